//! Addresses, networks and URLs as rules see them (Kubernetes' `ip`, `cidr` and `url` libraries).

use std::net::{IpAddr, Ipv6Addr};

/// Neither zones nor IPv4 within IPv6 (upstream refuses both).
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(format!("IP Address {text:?} parse error during conversion from string")),
    }
}

pub(super) fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip) || broadcast)
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80),
    }
}

pub(super) fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    pub ip: IpAddr,
    pub bits: u8,
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("network address parse error during conversion from string: {text:?}");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let ip = ip(address)?;
        let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits = bits.parse::<u8>().ok().filter(|b| plain && *b <= width(ip)).ok_or_else(wrong)?;
        Ok(Cidr { ip, bits })
    }
    pub(super) fn masked(self) -> Cidr {
        let whole = number(self.ip) >> (width(self.ip) - self.bits).min(127);
        let whole = if self.bits == 0 { 0 } else { whole << (width(self.ip) - self.bits).min(127) };
        let ip = match self.ip {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from(whole as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(whole)),
        };
        Cidr { ip, bits: self.bits }
    }
    pub(super) fn holds(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && Cidr { ip, bits: self.bits }.masked().ip == self.masked().ip
    }
    pub(super) fn holds_all(self, other: Cidr) -> bool {
        self.bits <= other.bits && self.holds(other.ip)
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// An absolute URL or a path from the root, in the parts that rules ask for.
#[derive(PartialEq, Eq)]
pub(super) struct Url {
    pub scheme: String,
    /// With port and brackets.
    pub host: String,
    pub path: String,
    pub query: Vec<(String, String)>,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Url, String> {
        let wrong = |why: &str| Err(format!("URL parse error during conversion from string: parse {text:?}: {why}"));
        if text.contains(|c: char| c.is_control()) {
            return wrong("net/url: invalid control character in URL");
        }
        let text_only = text.split_once('#').map_or(text, |(t, _)| t);
        let (before, query) = text_only.split_once('?').unwrap_or((text_only, ""));
        let is_scheme = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphabetic())
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        };
        let (scheme, rest) = match before.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ if before.starts_with('/') => (String::new(), before),
            _ => return wrong("invalid URI for request"),
        };
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
            }
            None if rest.starts_with('/') || scheme.is_empty() => ("", rest),
            None => return wrong("invalid URI for request"),
        };
        let port = split_port(host).1;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return wrong(&format!("invalid port {:?} after host", format!(":{port}")));
        }
        if host.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '}')) {
            return wrong("invalid character in host name");
        }
        let pair = |p: &str| {
            let (key, value) = p.split_once('=').unwrap_or((p, ""));
            (crate::uri::decode(key), crate::uri::decode(value))
        };
        let query = query.split('&').filter(|p| !p.is_empty()).map(pair).collect();
        Ok(Url { scheme, host: host.into(), path: path.replace(' ', "%20"), query })
    }
    pub(super) fn hostname(&self) -> &str {
        split_port(&self.host).0
    }
    pub(super) fn port(&self) -> &str {
        split_port(&self.host).1
    }
}

/// Brackets of IPv6 addresses go.
fn split_port(host: &str) -> (&str, &str) {
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return (address, rest.strip_prefix(':').unwrap_or(rest));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_is_within() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::/0", "1::", "1.2.3.4"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let cidr = Cidr::parse(network).unwrap();
            assert!(cidr.holds(ip(inside).unwrap()) && !cidr.holds(ip(outside).unwrap()), "{network}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/08", "x/8", "::ffff:1.2.3.4/96"] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Cidr::parse("10.1.2.3/8").unwrap().masked().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn urls_fall_into_parts() {
        let url = Url::parse("https://user@example.com:80/a b?q=1&q=2&r=%20#x").unwrap();
        assert_eq!(
            (&*url.scheme, &*url.host, url.hostname(), url.port()),
            ("https", "example.com:80", "example.com", "80")
        );
        assert_eq!((&*url.path, url.query.len()), ("/a%20b", 3));
        let url = Url::parse("https://[::1]:443/").unwrap();
        assert_eq!((url.hostname(), url.port()), ("::1", "443"));
        assert_eq!(Url::parse("/path").unwrap().path, "/path");
        for bad in ["", "a", "../x", "https://a:b/", "mailto:x", "http://a b/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
