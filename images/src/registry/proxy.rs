//! Which proxy, if any, stands between us and a registry: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` and their lower-case
//! forms, read as curl(1) and Go's httpproxy read them. `NO_PROXY` takes hosts (with all below them), `.suffix`, `*.suffix`, addresses, CIDR blocks, each
//! with a port if wanted, and `*`. Pure: the environment comes as a function.

use std::net::IpAddr;

use super::url::{Url, host_of, is_loopback};

/// The proxy's URL for requests to `url`; loopback is always reached directly.
pub fn choose(url: &Url, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let value = |name: &str| {
        let lower = name.to_ascii_lowercase();
        env(&lower).or_else(|| env(name)).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if is_loopback(&url.authority) || value("NO_PROXY").is_some_and(|list| excluded(url, &list)) {
        return None;
    }
    let proxy = value(if url.https { "HTTPS_PROXY" } else { "HTTP_PROXY" }).or_else(|| value("ALL_PROXY"))?;
    Some(if proxy.contains("://") { proxy } else { format!("http://{proxy}") })
}

fn excluded(url: &Url, list: &str) -> bool {
    let host = host_of(&url.authority).to_ascii_lowercase();
    let port = port_of(&url.authority).unwrap_or(if url.https { "443" } else { "80" });
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return matches!((address, network.parse(), bits.parse()), (Some(ip), Ok(network), Ok(bits)) if within(ip, network, bits));
        }
        if let (Some(ip), Ok(excluded)) = (address, entry.trim_matches(['[', ']']).parse::<IpAddr>()) {
            return ip == excluded;
        }
        let (name, wanted_port) = (host_of(entry).to_ascii_lowercase(), port_of(entry));
        if wanted_port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = name.trim_start_matches('*').trim_start_matches('.');
        let only_below = entry.starts_with(['*', '.']);
        let below = host.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
        !name.is_empty() && (below || (host == name && !only_below))
    })
}

fn port_of(authority: &str) -> Option<&str> {
    let after = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    let (before, port) = after.rsplit_once(':')?;
    (!before.contains(':')).then_some(port)
}

/// Is `ip` in the block of the first `bits` bits of `network`?
fn within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (a, b, width) = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96, 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    bits <= width && (bits == 0 || (a ^ b) >> (128 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let all =
            [("HTTPS_PROXY", "s.example:3128"), ("http_proxy", "http://p.example"), ("HTTP_PROXY", "http://shadowed")];
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let table: &[Row<'_>] = &[
            ("https://r.example/v2", &all, Some("http://s.example:3128")),
            ("http://r.example/v2", &all, Some("http://p.example")),
            ("https://127.0.0.1:5000/v2", &all, None),
            ("https://r.example/v2", &[("HTTP_PROXY", "p")], None),
            ("https://r.example/v2", &[("all_proxy", "p")], Some("http://p")),
            ("https://r.example/v2", &[("HTTPS_PROXY", " ")], None),
            ("https://r.example/v2", &[], None),
        ];
        for (url, env, want) in table {
            let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(choose(&Url::parse(url).unwrap(), &get).as_deref(), *want, "{url} {env:?}");
        }
    }

    #[test]
    fn exceptions_are_honoured() {
        for (url, list, is) in [
            ("https://r.example", "r.example", true),
            ("https://a.r.example", "r.example", true),
            ("https://ar.example", "r.example", false),
            ("https://r.example", ".r.example", false),
            ("https://a.r.example", ".r.example", true),
            ("https://a.r.example", "*.r.example", true),
            ("https://R.example", "x, r.EXAMPLE", true),
            ("https://r.example", "r.example:443", true),
            ("https://r.example:5000", "r.example:443", false),
            ("http://r.example", "r.example:80", true),
            ("https://10.1.2.3:5000", "10.0.0.0/8", true),
            ("https://11.1.2.3:5000", "10.0.0.0/8", false),
            ("https://11.1.2.3", "0.0.0.0/0", true),
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://10.1.2.30", "10.1.2.3", false),
            ("https://[fd00::1]:5000", "fd00::/8", true),
            ("https://[fd00::1]:5000", "[fd00::1]", true),
            ("https://[fe00::1]", "fd00::/8", false),
            ("https://10.1.2.3", "fd00::/8,10.0.0.0/33", false),
            ("https://r.example", "*", true),
            ("https://r.example", ",,.,*.", false),
        ] {
            assert_eq!(excluded(&Url::parse(url).unwrap(), list), is, "{url} in {list:?}");
        }
    }
}
