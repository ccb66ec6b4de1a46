//! Asks the host's own name servers: over UDP from a fresh port with a random id, again elsewhere when one is silent, over TCP
//! when the answer does not fit.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::wire::{self, Query};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLV_CONF_LEN_MAX: u64 = 64 * 1024;
/// As resolvers do (resolv.conf(5): MAXNS, attempts); each try waits this long.
const SERVERS_MAX: usize = 3;
const ROUNDS: usize = 2;
const TRY_MAX: Duration = Duration::from_secs(2);
/// Wrong replies to one socket before we stop listening to them.
const STRAYS_MAX: usize = 16;
const UDP_LEN_MAX: usize = 4096;

/// The servers to ask.
pub(super) struct Upstream {
    fixed: Vec<SocketAddr>,
    /// Our own addresses: asking them would go round for ever.
    own: Vec<SocketAddr>,
    read: RefCell<(Option<SystemTime>, Vec<SocketAddr>)>,
    random: SystemRandom,
}

impl Upstream {
    pub(super) fn new(fixed: Vec<SocketAddr>, own: Vec<SocketAddr>) -> Upstream {
        Upstream { fixed, own, read: RefCell::new((None, Vec::new())), random: SystemRandom::new() }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        let about = fs::metadata(RESOLV_CONF).ok().filter(|m| m.len() <= RESOLV_CONF_LEN_MAX);
        let changed = about.and_then(|m| m.modified().ok());
        let mut read = self.read.borrow_mut();
        if read.0 != changed || changed.is_none() {
            let text = changed.and_then(|_| fs::read_to_string(RESOLV_CONF).ok()).unwrap_or_default();
            *read = (changed, name_servers(&text, &self.own));
        }
        read.1.clone()
    }

    /// A random id for a question of our own.
    pub(super) fn id(&self) -> u16 {
        let mut bytes = [0; 2];
        // Only the guard against forged answers gets weaker if the kernel has no randomness, which it always has.
        let _ = self.random.fill(&mut bytes);
        u16::from_be_bytes(bytes)
    }

    /// The reply to `question` (a whole message as `query` was read from it), under the question's own id. `whole` asks again
    /// over TCP when the reply was cut. `None` when no server answered.
    pub(super) async fn ask(&self, query: &Query, question: &[u8], whole: bool) -> Option<Vec<u8>> {
        let servers = self.servers();
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            let id = self.id();
            let mut message = question.to_vec();
            wire::set_id(&mut message, id);
            let mut reply = match timeout(TRY_MAX, over_udp(*server, query, &message, id)).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(e)) => {
                    log::debug!("ask name server {server}: {e}");
                    continue;
                }
                Err(_) => continue,
            };
            if whole && wire::is_truncated(&reply) {
                match timeout(TRY_MAX, over_tcp(*server, query, &message, id)).await {
                    Ok(Ok(long)) => reply = long,
                    // The cut answer is better than none.
                    Ok(Err(e)) => log::debug!("ask name server {server} over TCP: {e}"),
                    Err(_) => log::debug!("ask name server {server} over TCP: no answer in time"),
                }
            }
            wire::set_id(&mut reply, query.id);
            return Some(reply);
        }
        None
    }
}

async fn over_udp(server: SocketAddr, query: &Query, message: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; UDP_LEN_MAX];
    for _ in 0..STRAYS_MAX {
        let len = socket.recv(&mut buffer).await?;
        if buffer.get(..len).is_some_and(|reply| query.answered_by(reply, id)) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
    Err(io::Error::other("too many replies that answer something else"))
}

async fn over_tcp(server: SocketAddr, query: &Query, message: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    send_framed(&mut stream, message).await?;
    let reply = read_framed(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if query.answered_by(&reply, id) { Ok(reply) } else { Err(io::Error::other("the reply answers something else")) }
}

/// Writes a message with its length in front (RFC 1035 section 4.2.2).
pub(super) async fn send_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let framed = [&len.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

/// Reads a message with its length in front; `None` at the end of the stream.
pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    match stream.read_exact(&mut len).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// The `nameserver` lines of a resolv.conf(5), without ourselves.
fn name_servers(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|w| *w == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    });
    named.filter(|server| !own.contains(server)).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch x\n nameserver\t192.0.2.1 # a\nnameserver bad\nnameserver 10.43.0.10\n\
            nameserver fd00::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let own = ["10.43.0.10:53".parse().unwrap()];
        let want = ["192.0.2.1:53", "[fd00::1]:53", "192.0.2.3:53"].map(|a| a.parse().unwrap());
        assert_eq!(name_servers(text, &own), want);
        assert_eq!(name_servers("", &own), []);
    }
}
