//! The few things a registry client must know about URLs: parts, relative locations, and when plain HTTP is right.

use std::fmt;
use std::net::IpAddr;

/// `http(s)://AUTHORITY/PATH?QUERY`; no user, no fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub https: bool,
    pub authority: String,
    /// Begins with a slash, includes the query.
    pub path: String,
}

impl Url {
    /// An absolute URL. `None` when it is none, or carries what we never send.
    pub fn parse(text: &str) -> Option<Url> {
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(cut)?;
        let fine = |b: u8| b.is_ascii_graphic() && b != b'@' && b != b'\\';
        if authority.is_empty() || !authority.bytes().all(fine) || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return None;
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Url { https, authority: authority.to_ascii_lowercase(), path })
    }

    /// Where a `Location` leads from here (RFC 9110, 10.2.2; RFC 3986, 5.2 without dot segments, which registries do not send).
    pub fn join(&self, location: &str) -> Option<Url> {
        if location.contains("://") && Url::parse(location).is_some() {
            return Url::parse(location);
        }
        let scheme = if self.https { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let own_path = self.path.split('?').next().unwrap_or_default();
        let path = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{own_path}{location}"),
            _ => format!("{}/{location}", own_path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority))
    }

    /// The same place with one more query parameter (already encoded).
    pub fn with_query(&self, pair: &str) -> Url {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{joint}{pair}", self.path), ..self.clone() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.https { "https" } else { "http" }, self.authority, self.path)
    }
}

/// Host without port and brackets.
pub fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Is it this machine itself (127.0.0.0/8, ::1, localhost)?
pub fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_the_rfc_says() {
        let here = Url::parse("https://r.example:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, want) in [
            ("https://cdn.example/b?sig=1#f", "https://cdn.example/b?sig=1"),
            ("/v2/b", "https://r.example:5000/v2/b"),
            ("//other/x", "https://other/x"),
            ("?y=2", "https://r.example:5000/v2/a/blobs/uploads/?y=2"),
            ("id", "https://r.example:5000/v2/a/blobs/uploads/id"),
            ("http://r.example", "http://r.example/"),
        ] {
            assert_eq!(here.join(location).unwrap().to_string(), want);
        }
        for bad in ["ftp://x/", "https://user:pw@x/", "https:///x", "https://a b/", "https://x/a\nb", "nothing"] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(here.with_query("digest=1").path, "/v2/a/blobs/uploads/?x=1&digest=1");
    }

    #[test]
    fn loopback_is_recognised() {
        for (authority, is) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_loopback(authority), is, "{authority}");
        }
    }
}
