//! One pod's way onto the network: a veth pair born with its far end in the pod's namespace, one address, one route each way,
//! and both neighbours known for good.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::ipam;
use super::link::{self, Link, Mac, Veth};
use super::netns::Netns;
use super::route::{self, Route};
use super::socket::{Refusal, Socket};
use super::{Cidr, Error, NetConfig, Tag};

const POD_LINK: &str = "eth0";
/// Every host end has the same MAC: each is alone on its wire.
const HOST_MAC: Mac = [0xee; 6];

/// How long the kernel gets to notice that both ends are up: 500 ms.
const WORKS_TRIES: usize = 500;
const WORKS_PAUSE: Duration = Duration::from_millis(1);

/// A pod and the address it shall have.
pub(super) struct Place<'a> {
    pub(super) config: &'a NetConfig,
    pub(super) mtu: u32,
    pub(super) id: &'a str,
    pub(super) address: Ipv4Addr,
}

impl Place<'_> {
    /// Does every step that is not done yet.
    pub(super) fn attach(&self, path: &Path) -> Result<(), Error> {
        let netns = Netns::open(path)?;
        let mut host = Socket::route()?;
        let mut inside = netns.route_socket()?;
        let name = self.config.tag.veth(self.id);
        let (near, far) = match self.present(&mut host, &mut inside, &name)? {
            Some(pair) => pair,
            None => self.create(&mut host, &mut inside, &netns, &name)?,
        };
        link::no_ipv6_autoconf(&mut inside, far.index);
        self.inside(&mut inside, far.index).map_err(|e| e.error("set up pod link of sandbox", self.id))?;
        self.outside(&mut host, near.index).map_err(|e| e.error("set up host link of sandbox", self.id))?;
        self.wait_until_it_works(&mut inside, POD_LINK)?;
        self.wait_until_it_works(&mut host, &name)
    }

    /// The end that was set up first drops every packet until the kernel's deferred work has seen its carrier: without this
    /// the pod's first datagram is lost (a name looked up at start then takes five seconds). Kernels from 6.8 on do that work
    /// when they are asked for the link.
    fn wait_until_it_works(&self, socket: &mut Socket, name: &str) -> Result<(), Error> {
        for _ in 0..WORKS_TRIES {
            if link::get(socket, name)?.is_none_or(|link| link.works) {
                return Ok(());
            }
            std::thread::sleep(WORKS_PAUSE);
        }
        log::warn!("link {name} of sandbox {} has no carrier yet", self.id);
        Ok(())
    }

    /// The pair, if a former call made it and both ends are where they belong. Anything else under the name is removed.
    fn present(&self, host: &mut Socket, inside: &mut Socket, name: &str) -> Result<Option<(Link, Link)>, Error> {
        let Some(near) = link::get(host, name)? else { return Ok(None) };
        match ipam::parse_alias(&near.alias) {
            Some((id, _)) if id != self.id => {
                return Err(Error::Config(format!("sandboxes {id} and {} share the link name {name}", self.id)));
            }
            Some((_, address)) if address == self.address => {
                if let Some(far) =
                    link::get(inside, POD_LINK)?.filter(|far| far.peer == near.index && near.peer == far.index)
                {
                    return Ok(Some((near, far)));
                }
            }
            _ => {}
        }
        link::delete(host, name)?;
        Ok(None)
    }

    fn create(&self, host: &mut Socket, inside: &mut Socket, netns: &Netns, name: &str) -> Result<(Link, Link), Error> {
        let veth = Veth {
            name,
            mac: HOST_MAC,
            peer_name: POD_LINK,
            peer_mac: self.pod_mac(),
            peer_netns: netns.fd(),
            mtu: self.mtu,
        };
        link::create_veth(host, &veth)?;
        let vanished = |name: &str| Error::Kernel {
            op: "read link",
            object: name.to_owned(),
            cause: "it vanished".to_owned(),
            errno: libc::ENODEV,
        };
        let near = link::get(host, name)?.ok_or_else(|| vanished(name))?;
        let far = link::get(inside, POD_LINK)?.ok_or_else(|| vanished(POD_LINK))?;
        Ok((near, far))
    }

    fn inside(&self, socket: &mut Socket, index: u32) -> Result<(), Refusal> {
        const LOOPBACK: u32 = 1;
        let gateway = self.config.gateway();
        link::set_up(socket, LOOPBACK, None)?;
        route::add_address(socket, index, self.address)?;
        link::set_up(socket, index, None)?;
        route::set_neighbour(socket, index, gateway, HOST_MAC)?;
        route::set(socket, &Route::new(Cidr::new(gateway, 32), None, index, None))?;
        route::set(socket, &Route::new(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), Some(gateway), index, None))
    }

    fn outside(&self, socket: &mut Socket, index: u32) -> Result<(), Refusal> {
        link::no_ipv6_autoconf(socket, index);
        link::set_up(socket, index, Some(&ipam::alias(self.id, self.address)))?;
        route::set_neighbour(socket, index, self.address, self.pod_mac())?;
        route::set(socket, &Route::new(Cidr::new(self.address, 32), None, index, Some(self.config.gateway())))
    }

    /// Locally administered, unique on the node.
    fn pod_mac(&self) -> Mac {
        let [a, b, c, d] = self.address.octets();
        [0x0a, 0x58, a, b, c, d]
    }
}

/// All attached sandboxes of the instance.
pub(super) fn list(socket: &mut Socket, tag: Tag) -> Result<Vec<(String, Ipv4Addr)>, Error> {
    let prefix = tag.veth_prefix();
    let links = link::list(socket)?;
    let ours = links.iter().filter(|l| l.name.starts_with(&prefix));
    Ok(ours.filter_map(|l| ipam::parse_alias(&l.alias)).map(|(id, address)| (id.to_owned(), address)).collect())
}
