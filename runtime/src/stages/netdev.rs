//! `linux.netDevices`: network devices of the host's move into the container's network namespace, renamed if so wished, with their addresses,
//! and come up there (specification 1.3). rtnetlink(7) by hand: four requests, all fields in host order.

use super::report::{Fault, at, errno, plain};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const HEADER_BYTES: usize = 16;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE_ONLY: u16 = 0x600;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_FD: u16 = 28;
const ADDRESS_FLAGS: u16 = 8;
const UP: u32 = 1;
const PERMANENT: u32 = 0x80;
/// RT_SCOPE_UNIVERSE.
const GLOBAL: u8 = 0;
/// Attributes of an address that mean the same elsewhere: IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY.
const KEPT: [u16; 5] = [1, 2, 4, ADDRESS_FLAGS, 9];
/// Addresses of one device.
const ADDRESSES_MAX: usize = 256;
/// A kernel that does not answer so long is broken.
const ANSWER_WITHIN_S: i64 = 10;

/// One request: header, fixed part, attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(fixed);
        let head = kind.to_ne_bytes().into_iter().chain((flags | REQUEST).to_ne_bytes());
        bytes.iter_mut().skip(4).zip(head).for_each(|(to, from)| *to = from);
        Self(bytes)
    }
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    fn bytes(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0.iter_mut().zip(length).for_each(|(to, from)| *to = from);
        self.0
    }
}

/// Kind and payload of each message of a datagram; a length that lies ends it.
fn messages(datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    let mut rest = datagram;
    while let Some(head) = rest.first_chunk::<8>() {
        let [a, b, c, d, kind @ .., _, _] = *head;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(payload) = rest.get(HEADER_BYTES..length) else { break };
        all.push((u16::from_ne_bytes(kind), payload));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// Kind and value of each attribute.
fn attributes(bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some([a, b, c, d]) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let Some(value) = rest.get(4..length) else { break };
        all.push((u16::from_ne_bytes([*c, *d]), value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b))
}

/// struct ifinfomsg: of device `index`; `flags` are set and none cleared.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    let words = [0, index, flags, flags].map(u32::to_ne_bytes);
    fixed.iter_mut().zip(words.into_iter().flatten()).for_each(|(to, from)| *to = from);
    fixed
}

/// The request that gives device `index` the address of one RTM_NEWADDR `payload`; `None` = not one of `of`'s that goes along: those of a
/// limited scope or life are somebody's who stays behind.
fn again(payload: &[u8], of: u32, index: u32) -> Option<Request> {
    let [family, prefix, flags, scope, a, b, c, d] = *payload.first_chunk::<8>()?;
    let own = u32::from_ne_bytes([a, b, c, d]) == of;
    let all = attributes(payload.get(8..)?);
    let wide = all.iter().find(|(kind, _)| *kind == ADDRESS_FLAGS).and_then(|(_, value)| number(value));
    let flags = wide.map_or(u32::from(flags), i32::cast_unsigned);
    if !own || scope != GLOBAL || flags & PERMANENT == 0 {
        return None;
    }
    let mut fixed = [family, prefix, 0, scope, 0, 0, 0, 0];
    fixed.iter_mut().skip(4).zip(index.to_ne_bytes()).for_each(|(to, from)| *to = from);
    let request = Request::new(NEW_ADDRESS, ACK | CREATE_ONLY, &fixed);
    Some(all.iter().filter(|(kind, _)| KEPT.contains(kind)).fold(request, |r, (kind, value)| r.attribute(*kind, value)))
}

/// rtnetlink of one namespace.
struct Talk(OwnedFd);

impl Talk {
    /// In the caller's namespace of now.
    fn open() -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_WITHIN_S))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// Every message of the answer goes to `take`, until its end or an error.
    fn ask(&self, request: Request, mut take: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        send(self.0.as_raw_fd(), &request.bytes(), MsgFlags::empty())?;
        let mut buffer = [0u8; 32 << 10];
        loop {
            let count = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let datagram = buffer.get(..count).unwrap_or_default();
            for (kind, payload) in messages(datagram) {
                match kind {
                    ERROR => {
                        return match number(payload) {
                            Some(0) => Ok(()),
                            Some(code) => Err(Errno::from_raw(code.saturating_neg())),
                            None => Err(Errno::EBADMSG),
                        };
                    }
                    DONE => return Ok(()),
                    _ => take(kind, payload),
                }
            }
        }
    }

    /// Of the device of that name.
    fn index(&self, name: &str) -> Result<u32, Errno> {
        let mut name = name.as_bytes().to_vec();
        name.push(0);
        let mut found = Err(Errno::ENODEV);
        self.ask(Request::new(GET_LINK, ACK, &link(0, 0)).attribute(LINK_NAME, &name), |kind, payload| {
            if let (NEW_LINK, Some(index)) = (kind, payload.get(4..).and_then(number)) {
                found = Ok(index.cast_unsigned());
            }
        })?;
        found
    }

    /// The requests that give `of`'s addresses to device `index`.
    fn addresses(&self, of: u32, index: u32) -> Result<Vec<Request>, Errno> {
        let mut all = Vec::new();
        self.ask(Request::new(GET_ADDRESS, DUMP, &[0; 8]), |kind, payload| {
            if kind == NEW_ADDRESS && all.len() < ADDRESSES_MAX {
                all.extend(again(payload, of, index));
            }
        })?;
        Ok(all)
    }
}

/// By way of another's namespace; only single-threaded programs may call.
fn open_inside(target: &File) -> Result<Talk, Errno> {
    let own = File::open("/proc/self/ns/net").map_err(|e| errno(&e))?;
    setns(target, CloneFlags::CLONE_NEWNET)?;
    let done = Talk::open();
    // Our own, by a descriptor opened before: cannot fail while we had the right to leave it.
    setns(own, CloneFlags::CLONE_NEWNET)?;
    done
}

/// Moves `devices` (name here, name there) into the network namespace of `pid`.
pub(crate) fn hand_over(devices: &[(String, String)], pid: i32) -> Result<(), Fault> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let target = File::open(&path).map_err(|e| at("open", &path)(errno(&e)))?;
    let (here, there) =
        Talk::open().and_then(|here| Ok((here, open_inside(&target)?))).map_err(at("open", "rtnetlink"))?;
    for (name, new) in devices {
        let old = here.index(name).map_err(at("move network device", name))?;
        if there.index(new).is_ok() {
            return Err(plain(format!("move network device {name}: the container has a {new} already")));
        }
        let addresses = here.addresses(old, 0).map_err(at("read addresses of", name))?;
        let mut name_there = new.clone().into_bytes();
        name_there.push(0);
        let request = Request::new(NEW_LINK, ACK, &link(old, 0))
            .attribute(LINK_NAMESPACE_FD, &target.as_fd().as_raw_fd().to_ne_bytes())
            .attribute(LINK_NAME, &name_there);
        here.ask(request, |_, _| {}).map_err(at("move network device", name))?;
        let index = there.index(new).map_err(at("find network device", new))?;
        for Request(mut address) in addresses {
            let at_index = HEADER_BYTES + 4;
            address.iter_mut().skip(at_index).zip(index.to_ne_bytes()).for_each(|(to, from)| *to = from);
            there.ask(Request(address), |_, _| {}).map_err(at("give address to", new))?;
        }
        there.ask(Request::new(NEW_LINK, ACK, &link(index, UP)), |_, _| {}).map_err(at("bring up", new))?;
    }
    Ok(())
}

/// What a network device may be called: 1 to 15 bytes, no `.`, `..`, `/`, `:` or blank (the kernel's dev_valid_name).
pub(crate) fn valid_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(|b| b"/:%\0".contains(&b) || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(index: u32, scope: u8, flags: u32) -> Vec<u8> {
        let mut fixed = vec![2, 24, 0x80, scope];
        fixed.extend_from_slice(&index.to_ne_bytes());
        let request = Request::new(NEW_ADDRESS, 0, &fixed).attribute(1, &[10, 0, 0, 1]).attribute(3, b"eth0\0");
        request.attribute(ADDRESS_FLAGS, &flags.to_ne_bytes()).bytes().split_off(HEADER_BYTES)
    }

    #[test]
    fn only_lasting_addresses_of_the_world_go_along() {
        let request = again(&address(7, 0, PERMANENT), 7, 9).unwrap().bytes();
        let (kind, payload) = messages(&request)[0];
        assert_eq!((kind, &payload[..4], number(&payload[4..])), (NEW_ADDRESS, &[2u8, 24, 0, 0][..], Some(9)));
        let kinds: Vec<u16> = attributes(&payload[8..]).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, ADDRESS_FLAGS], "the label is the old name's");
        assert!(again(&address(8, 0, PERMANENT), 7, 9).is_none(), "another device's");
        assert!(again(&address(7, 253, PERMANENT), 7, 9).is_none(), "link scope");
        assert!(again(&address(7, 0, 0), 7, 9).is_none(), "given for a while");
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        let bytes = Request::new(NEW_LINK, ACK, &link(3, UP)).attribute(LINK_NAME, b"x\0").bytes();
        assert_eq!(messages(&bytes).len(), 1);
        for cut in 0..bytes.len() {
            assert!(messages(&bytes[..cut]).is_empty(), "{cut}");
        }
        for lie in [[0u8; 4], [1, 0, 0, 0], [255; 4]] {
            assert!(messages(&[&lie[..], &[0; 30]].concat()).is_empty());
            assert!(attributes(&lie).is_empty());
        }
        assert!(again(&[2, 24, 0x80], 0, 0).is_none());
    }

    #[test]
    fn names() {
        for good in ["eth0", "a", "veth-1.2", "abcdefghijklmno"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a%d", "abcdefghijklmnop"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
