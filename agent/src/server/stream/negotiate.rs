//! What a client that wants a stream can speak, and what we agree on: WebSocket with channels or SPDY/3.1 with streams. Pure.
//!
//! kubectl asks for WebSocket first (from 1.30 for exec and attach, from 1.31 for port-forward) and for SPDY when that is refused;
//! older ones and many client libraries know one of them only. For port-forward the WebSocket carries SPDY frames.

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};

use super::websocket;

/// The header by which SPDY clients name the versions they know.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Versions that a client may offer.
const OFFERS_MAX: usize = 16;
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";

/// How streams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// One message per piece, its first byte the channel.
    Channels {
        /// Text messages, the rest of each base64.
        base64: bool,
        /// How the end is told.
        version: Version,
    },
    Spdy(Version),
    /// SPDY frames in WebSocket messages.
    Tunnel,
}

/// Of `channel.k8s.io`: from v4 on the error stream carries a Status, v5 can close a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V4,
    V5,
}

/// An agreement: how it goes on, and the headers that say so.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) wire: Wire,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// For exec and attach. The best of what the client offers, in its WebSocket's or SPDY's own names.
pub(crate) fn remote_command(request: &HeaderMap) -> Result<Agreed, String> {
    const CHANNELS: [(&str, bool, Version); 5] = [
        ("v5.channel.k8s.io", false, Version::V5),
        ("v4.channel.k8s.io", false, Version::V4),
        ("v4.base64.channel.k8s.io", true, Version::V4),
        ("channel.k8s.io", false, Version::V1),
        ("base64.channel.k8s.io", true, Version::V1),
    ];
    const STREAMS: [(&str, Version); 4] = [
        ("v4.channel.k8s.io", Version::V4),
        ("v3.channel.k8s.io", Version::V1),
        ("v2.channel.k8s.io", Version::V1),
        ("channel.k8s.io", Version::V1),
    ];
    let offers = offers(request);
    match upgrade(request)? {
        Upgrade::WebSocket(accept) => {
            let found = CHANNELS.iter().find(|(name, ..)| offers.contains(name));
            let (name, base64, version) = match found {
                Some((name, base64, version)) => (Some(*name), *base64, *version),
                None if offers.is_empty() => (None, false, Version::V1),
                None => return Err(unknown(&offers)),
            };
            Ok(web_socket(Wire::Channels { base64, version }, accept, name))
        }
        Upgrade::Spdy => match STREAMS.iter().find(|(name, _)| offers.contains(name)) {
            Some((name, version)) => Ok(spdy(Wire::Spdy(*version), name)),
            None => Err(unknown(&offers)),
        },
    }
}

/// For port-forward.
pub(crate) fn port_forward(request: &HeaderMap) -> Result<Agreed, String> {
    let offers = offers(request);
    match upgrade(request)? {
        Upgrade::WebSocket(accept) if offers.contains(&TUNNEL) => Ok(web_socket(Wire::Tunnel, accept, Some(TUNNEL))),
        Upgrade::Spdy if offers.contains(&PORT_FORWARD) => Ok(spdy(Wire::Spdy(Version::V1), PORT_FORWARD)),
        _ => Err(unknown(&offers)),
    }
}

enum Upgrade {
    /// With the key that answers the client's.
    WebSocket(HeaderValue),
    Spdy,
}

fn upgrade(request: &HeaderMap) -> Result<Upgrade, String> {
    let wanted = text(request, &UPGRADE);
    if wanted.eq_ignore_ascii_case("SPDY/3.1") {
        return Ok(Upgrade::Spdy);
    }
    if !wanted.eq_ignore_ascii_case("websocket") {
        return Err("unable to upgrade: the request asks for neither websocket nor SPDY/3.1".into());
    }
    if text(request, &SEC_WEBSOCKET_VERSION) != "13" {
        return Err("unable to upgrade: only version 13 of WebSocket is known".into());
    }
    let key = text(request, &SEC_WEBSOCKET_KEY);
    match HeaderValue::from_str(&websocket::accept_key(key)) {
        Ok(accept) if !key.is_empty() => Ok(Upgrade::WebSocket(accept)),
        _ => Err("unable to upgrade: no Sec-WebSocket-Key".into()),
    }
}

fn text<'a>(request: &'a HeaderMap, name: &HeaderName) -> &'a str {
    request.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim()
}

fn offers(request: &HeaderMap) -> Vec<&str> {
    [SEC_WEBSOCKET_PROTOCOL, STREAM_PROTOCOL]
        .iter()
        .flat_map(|name| request.get_all(name))
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|offer| !offer.is_empty())
        .take(OFFERS_MAX)
        .collect()
}

fn unknown(offers: &[&str]) -> String {
    format!("unable to upgrade: none of the protocols {offers:?} is known")
}

fn web_socket(wire: Wire, accept: HeaderValue, protocol: Option<&'static str>) -> Agreed {
    let mut headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    headers.extend(protocol.map(|name| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))));
    Agreed { wire, headers }
}

fn spdy(wire: Wire, protocol: &'static str) -> Agreed {
    let headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("SPDY/3.1")),
        (STREAM_PROTOCOL, HeaderValue::from_static(protocol)),
    ];
    Agreed { wire, headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn socket(protocol: &str) -> HeaderMap {
        let mut lines = vec![("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "eA==")];
        if !protocol.is_empty() {
            lines.push(("sec-websocket-protocol", protocol));
        }
        request(&lines)
    }

    #[test]
    fn the_best_that_both_know() {
        let cases = [
            (socket("v5.channel.k8s.io"), Wire::Channels { base64: false, version: Version::V5 }),
            (socket("v4.channel.k8s.io, v5.channel.k8s.io"), Wire::Channels { base64: false, version: Version::V5 }),
            (
                socket("base64.channel.k8s.io,v4.base64.channel.k8s.io"),
                Wire::Channels { base64: true, version: Version::V4 },
            ),
            (socket(""), Wire::Channels { base64: false, version: Version::V1 }),
            (
                request(&[
                    ("upgrade", "SPDY/3.1"),
                    ("x-stream-protocol-version", "v5.channel.k8s.io"),
                    ("x-stream-protocol-version", "v4.channel.k8s.io"),
                    ("x-stream-protocol-version", "channel.k8s.io"),
                ]),
                Wire::Spdy(Version::V4),
            ),
        ];
        for (headers, wire) in cases {
            assert_eq!(remote_command(&headers).unwrap().wire, wire, "{headers:?}");
        }
        let spdy = request(&[("upgrade", "spdy/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")]);
        assert_eq!(port_forward(&spdy).unwrap().wire, Wire::Spdy(Version::V1));
        let agreed = port_forward(&socket(TUNNEL)).unwrap();
        assert_eq!(agreed.wire, Wire::Tunnel);
        assert!(agreed.headers.contains(&(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(TUNNEL))));
    }

    #[test]
    fn refusals() {
        assert!(remote_command(&HeaderMap::new()).unwrap_err().contains("neither"));
        assert!(remote_command(&socket("v9.channel.k8s.io")).unwrap_err().contains("v9"));
        assert!(port_forward(&socket("v5.channel.k8s.io")).is_err());
        assert!(remote_command(&request(&[("upgrade", "SPDY/3.1")])).is_err());
        let old = request(&[("upgrade", "websocket"), ("sec-websocket-version", "8"), ("sec-websocket-key", "eA==")]);
        assert!(remote_command(&old).unwrap_err().contains("13"));
        let keyless = request(&[("upgrade", "websocket"), ("sec-websocket-version", "13")]);
        assert!(remote_command(&keyless).unwrap_err().contains("Key"));
    }
}
