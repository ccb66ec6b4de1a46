//! Names to addresses without libc: /etc/hosts, then the name servers of /etc/resolv.conf over UDP, over TCP where the answer was cut.
//! Static glibc has no usable getaddrinfo, and the default resolver of the HTTP library starts a thread per name.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::limits::{HOST_FILE_BYTES_MAX, NAME_SERVERS_MAX};

/// Seconds to wait for one answer of one server, and rounds over all servers (resolv.conf(5) defaults: 5 and 2).
const TIMEOUT: Duration = Duration::from_secs(5);
const ROUNDS: usize = 2;
const ADDRESSES_MAX: usize = 16;
const CNAMES_MAX: usize = 8;
const PORT: u16 = 53;

/// What resolv.conf(5) says that we follow.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

fn resolv_conf(text: &str) -> Config {
    let mut config = Config { servers: Vec::new(), search: Vec::new(), ndots: 1 };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // a zone index (fe80::1%eth0) is for link-local servers only; those are passed over
                if let Some(Ok(ip)) = words.next().map(str::parse)
                    && config.servers.len() < NAME_SERVERS_MAX
                {
                    config.servers.push(ip);
                }
            }
            Some("search" | "domain") => {
                config.search = words.take(6).map(|word| word.trim_end_matches('.').to_owned()).collect()
            }
            Some("options") => {
                if let Some(Ok(n)) =
                    words.filter_map(|word| word.strip_prefix("ndots:")).map(str::parse::<usize>).next()
                {
                    config.ndots = n.min(15);
                }
            }
            _ => {}
        }
    }
    if config.servers.is_empty() {
        config.servers.push(Ipv4Addr::LOCALHOST.into());
    }
    config
}

fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(Ok(ip)) = words.next().map(str::parse)
            && words.any(|word| word.eq_ignore_ascii_case(name))
        {
            found.push(ip);
        }
    }
    found
}

/// The names to ask for, in order.
fn candidates(name: &str, config: &Config) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let searched = config.search.iter().filter(|domain| !domain.is_empty()).map(|domain| format!("{name}.{domain}"));
    if name.matches('.').count() >= config.ndots {
        std::iter::once(name.to_owned()).chain(searched).collect()
    } else {
        searched.chain(std::iter::once(name.to_owned())).collect()
    }
}

/// What one server said about one name and type.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Truncated,
    /// Not an answer to this question, or the server failed.
    Useless,
}

fn query(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).ok()?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

fn read_reply(bytes: &[u8], id: u16, name: &str) -> Reply {
    let Ok(packet) = Packet::parse(bytes) else { return Reply::Useless };
    let asked = packet.questions.first().is_some_and(|question| question.qname.to_string().eq_ignore_ascii_case(name));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Reply::Useless;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Reply::NoSuchName,
        _ => return Reply::Useless,
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Reply::Truncated;
    }
    let mut owner = name.to_owned();
    for _ in 0..CNAMES_MAX {
        let alias = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(cname) if record.name.to_string().eq_ignore_ascii_case(&owner) => Some(cname.0.to_string()),
            _ => None,
        });
        match alias {
            Some(alias) => owner = alias,
            None => break,
        }
    }
    let of_owner = packet.answers.iter().filter(|record| record.name.to_string().eq_ignore_ascii_case(&owner));
    let addresses = of_owner.filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
        _ => None,
    });
    Reply::Addresses(addresses.take(ADDRESSES_MAX).collect())
}

fn ask(server: SocketAddr, name: &str, kind: TYPE, timeout: Duration) -> Reply {
    let Some((id, question)) = random_id().and_then(|id| Some((id, query(id, name, kind)?))) else {
        return Reply::Useless;
    };
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let exchange = || -> std::io::Result<Reply> {
        let socket = UdpSocket::bind(local)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.send(&question)?;
        let mut buffer = [0u8; 4096];
        // A stray or forged datagram must not end the wait; a few are read over.
        for _ in 0..4 {
            let n = socket.recv(&mut buffer)?;
            match read_reply(buffer.get(..n).unwrap_or_default(), id, name) {
                Reply::Useless => continue,
                reply => return Ok(reply),
            }
        }
        Ok(Reply::Useless)
    };
    match exchange() {
        Ok(Reply::Truncated) => ask_tcp(server, &question, id, name, timeout).unwrap_or(Reply::Useless),
        Ok(reply) => reply,
        Err(_) => Reply::Useless,
    }
}

fn ask_tcp(server: SocketAddr, question: &[u8], id: u16, name: &str, timeout: Duration) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0u8; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(read_reply(&answer, id, name))
}

fn random_id() -> Option<u16> {
    let mut bytes = [0u8; 2];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).ok()?;
    Some(u16::from_ne_bytes(bytes))
}

/// Addresses of a name; IPv4 first. Empty when there are none.
fn lookup(name: &str, config: &Config, port: u16, timeout: Duration) -> Vec<IpAddr> {
    for candidate in candidates(name, config) {
        'rounds: for _ in 0..ROUNDS {
            for server in &config.servers {
                let server = SocketAddr::new(*server, port);
                let first = ask(server, &candidate, TYPE::A, timeout);
                let mut found = match first {
                    Reply::NoSuchName => break 'rounds,
                    Reply::Addresses(found) => found,
                    Reply::Truncated | Reply::Useless => continue,
                };
                if let Reply::Addresses(more) = ask(server, &candidate, TYPE::AAAA, timeout) {
                    found.extend(more);
                }
                if !found.is_empty() {
                    return found;
                }
                break 'rounds;
            }
        }
    }
    Vec::new()
}

fn read_host_file(path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(HOST_FILE_BYTES_MAX).read_to_end(&mut text); // unreadable is as good as absent
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The resolver of the HTTP client.
#[derive(Debug)]
pub(crate) struct Stub;

impl Resolver for Stub {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let addresses = if let Ok(ip) = host.parse::<IpAddr>() {
            vec![ip]
        } else {
            let mut found = hosts(&read_host_file("/etc/hosts"), host);
            if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
                found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            }
            if found.is_empty() {
                found = lookup(host, &resolv_conf(&read_host_file("/etc/resolv.conf")), PORT, TIMEOUT);
            }
            found
        };
        let mut resolved = self.empty();
        for ip in addresses.into_iter().take(ADDRESSES_MAX) {
            resolved.push(SocketAddr::new(ip, port));
        }
        if resolved.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(resolved) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    #[test]
    fn files_are_read_as_their_man_pages_say() {
        let config = resolv_conf(
            "# c\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a.b. c\noptions edns0 ndots:3\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n",
        );
        assert_eq!(config.servers, ["10.0.0.1", "::1", "1.1.1.1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!((config.search.as_slice(), config.ndots), (&["a.b".to_owned(), "c".to_owned()][..], 3));
        assert_eq!(candidates("x.y", &config), ["x.y.a.b", "x.y.c", "x.y"]);
        assert_eq!(candidates("x.y.z.w", &config), ["x.y.z.w", "x.y.z.w.a.b", "x.y.z.w.c"]);
        assert_eq!(candidates("x.", &config), ["x"]);
        assert_eq!(resolv_conf("").servers, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(hosts("127.0.0.1 localhost # x\n::1 lo6 LocalHost\nbad localhost\n", "localhost").len(), 2);
    }

    fn reply(request: &[u8], truncate: bool) -> Vec<u8> {
        let request = Packet::parse(request).unwrap();
        let question = request.questions[0].clone();
        let mut packet = Packet::new_reply(request.id());
        if truncate {
            packet.set_flags(PacketFlag::TRUNCATION);
        } else if question.qtype == QTYPE::TYPE(TYPE::A) {
            let alias = Name::new_unchecked("real.example");
            packet.answers.push(ResourceRecord::new(
                question.qname.clone(),
                CLASS::IN,
                9,
                RData::CNAME(CNAME(alias.clone())),
            ));
            packet.answers.push(ResourceRecord::new(
                alias,
                CLASS::IN,
                9,
                RData::A(A { address: u32::from(Ipv4Addr::new(192, 0, 2, 7)) }),
            ));
            packet.answers.push(ResourceRecord::new(
                Name::new_unchecked("other.example"),
                CLASS::IN,
                9,
                RData::A(A { address: 1 }),
            ));
        }
        packet.questions.push(question);
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn aliases_forgery_and_cut_answers() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(server).unwrap();
        let serve = std::thread::spawn(move || {
            let mut buffer = [0u8; 512];
            // A: a forged answer first, then one cut off, so that TCP is tried; AAAA: none
            let (n, peer) = udp.recv_from(&mut buffer).unwrap();
            let mut forged = reply(&buffer[..n], false);
            forged[0] ^= 1;
            udp.send_to(&forged, peer).unwrap();
            udp.send_to(&reply(&buffer[..n], true), peer).unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            let mut length = [0u8; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let answer = reply(&question, false);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
            let (n, peer) = udp.recv_from(&mut buffer).unwrap();
            udp.send_to(&reply(&buffer[..n], false), peer).unwrap();
        });
        let config = Config { servers: vec![server.ip()], search: vec![], ndots: 1 };
        assert_eq!(
            lookup("www.example", &config, server.port(), Duration::from_secs(5)),
            [IpAddr::from([192, 0, 2, 7])]
        );
        serve.join().unwrap();
    }

    proptest::proptest! {
        #[test]
        fn no_reply_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            let _ = read_reply(&bytes, 1, "a");
            let _ = resolv_conf(&String::from_utf8_lossy(&bytes));
        }
    }
}
