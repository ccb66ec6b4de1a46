//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any HTTP request, relayed to what an object stands for.
//!
//! The path says who: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`. Nothing else does: an address is taken from a pod's status (or from endpoints that are a
//! pod of the same namespace), never one of this machine's own or a link's, and answers that point elsewhere are passed on, not followed. What the client
//! showed to prove who it is stays here.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, list_at, str_at};

use super::App;
use super::answer::{self, Answer};
use super::asked::Asked;
use super::body::AnswerBody;
use super::proxy::{self, ask_node, bad_gateway};
use crate::api::object;
use crate::api::request::{Target, before_tail};

/// What a name of the path says.
#[derive(PartialEq, Eq, Debug)]
struct Who<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl Who<'_> {
    fn parse(text: &str) -> Option<Who<'_>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let tls = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Who { tls, name, port })
    }
    fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

/// Whether a request may be sent there: not to this machine's own services, nor to those of its links (clouds keep credentials there).
fn reachable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || of_link)
}

fn address(ip: &str, port: u16) -> Result<SocketAddr, Status> {
    let parsed: Option<IpAddr> = ip.parse().ok();
    let parsed = parsed.ok_or_else(|| Status::bad_request("address not allowed"))?;
    if !reachable(parsed) {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(SocketAddr::new(parsed, port))
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|n| *n != 0)
}

fn unavailable(why: String) -> Status {
    Status::new(503, "ServiceUnavailable", why)
}

/// Where a pod serves: the port asked for, or the first that it names. Pure.
fn of_pod(pod: &Value, who: &Who<'_>) -> Result<SocketAddr, Status> {
    let named = || {
        let first = list_at(pod, &["spec", "containers"]).iter().flat_map(|c| list_at(c, &["ports"])).next();
        first.and_then(|p| u16::try_from(i64_at(p, &["containerPort"])?).ok())
    };
    let port = match who.port {
        "" => named().unwrap_or_else(|| who.default_port()),
        port => number(port).ok_or_else(|| Status::bad_request(format!("invalid pod request {:?}", who.name)))?,
    };
    match str_at(pod, &["status", "podIP"]) {
        "" => Err(unavailable(format!("pod {:?} has no address yet", who.name))),
        ip => address(ip, port),
    }
}

/// The name of the port of a Service that was asked for by number, name, or not at all. Pure.
fn port_name<'a>(service: &'a Value, who: &Who<'a>) -> Result<&'a str, Status> {
    let Some(port) = number(who.port) else { return Ok(who.port) };
    let ports = list_at(service, &["spec", "ports"]);
    let found = ports.iter().find(|p| i64_at(p, &["port"]) == Some(i64::from(port)));
    let found = found.map(|p| str_at(p, &["name"]));
    found.ok_or_else(|| unavailable(format!("no service port {port} found for service {:?}", who.name)))
}

/// (pod, address, port) of all that is ready behind a port of a Service. Pure.
fn candidates<'a>(endpoints: &'a Value, port: &str) -> Vec<(&'a str, &'a str, u16)> {
    let mut out = Vec::new();
    for subset in list_at(endpoints, &["subsets"]) {
        let Some(port) = list_at(subset, &["ports"]).iter().find(|p| str_at(p, &["name"]) == port) else { continue };
        let Some(port) = i64_at(port, &["port"]).and_then(|p| u16::try_from(p).ok()) else { continue };
        for address in list_at(subset, &["addresses"]) {
            if str_at(address, &["targetRef", "kind"]) == "Pod" {
                out.push((str_at(address, &["targetRef", "name"]), str_at(address, &["ip"]), port));
            }
        }
    }
    out
}

/// A pod that is ready behind the Service, any. Addresses that somebody wrote by hand and that are no pod's are passed over.
async fn of_service(app: &App, target: &Target, who: &Who<'_>) -> Result<SocketAddr, Status> {
    let read = async |resource: &str, name: &str| {
        let kind = app.api.registry().find(resource).cloned().ok_or_else(Status::no_such_resource)?;
        let entry = app.api.entry(&kind, &target.ns, name).await?;
        Ok::<_, Status>(object::decode(&kind, &entry))
    };
    let service = read("services", who.name).await?;
    let port = port_name(&service, who)?;
    let none = || unavailable(format!("no endpoints available for service {:?}", target.name));
    let endpoints = read("endpoints", who.name).await.map_err(|e| if e.is_not_found() { none() } else { e })?;
    let mut all = candidates(&endpoints, port);
    if !all.is_empty() {
        let first = usize::from(u16::from_le_bytes(app.api.random())) % all.len();
        all.rotate_left(first);
    }
    for (name, ip, port) in all {
        let Ok(pod) = read("pods", name).await else { continue };
        let own = list_at(&pod, &["status", "podIPs"]).iter().any(|i| str_at(i, &["ip"]) == ip);
        if own || str_at(&pod, &["status", "podIP"]) == ip {
            return address(ip, port);
        }
    }
    Err(none())
}

pub(super) async fn answer(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let kind = &target.kind;
    let who = Who::parse(&target.name)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {:?}", kind.singular, target.name)))?;
    let (prefix, tail) = tail(asked.uri.path()).ok_or_else(|| Status::bad_request("the path's names are not plain"))?;
    if tail.is_empty() && matches!(asked.method, Method::GET | Method::HEAD) && asked.upgrade.borrow().is_none() {
        return Ok(moved(asked, prefix));
    }
    let query = asked.uri.query().map_or(String::new(), |q| format!("?{q}"));
    let path = format!("/{}{query}", tail.trim_start_matches('/'));
    let mut request = Request::builder().method(asked.method.clone()).uri(path);
    if let Some(headers) = request.headers_mut() {
        *headers = relayed(&asked.headers);
    }
    let body = AnswerBody::Passed(body);
    let response = if kind.is("", "Node") {
        let object = object::decode(kind, &app.api.entry(kind, "", who.name).await?);
        let agent = proxy::address_of(&object);
        match (number(who.port), agent) {
            (None, _) if !who.port.is_empty() => {
                return Err(Status::bad_request(format!("invalid node request {:?}", target.name)));
            }
            (Some(port), Some(agent)) if port != agent.port() => {
                send(app, &who, address(&agent.ip().to_string(), port)?, request, body).await?
            }
            _ => ask_node(app, who.name, request.header(HOST, who.name), body).await?,
        }
    } else {
        let to = if kind.is("", "Pod") {
            of_pod(&object::decode(kind, &app.api.entry(kind, &target.ns, who.name).await?), &who)?
        } else {
            of_service(app, target, &who).await?
        };
        send(app, &who, to, request, body).await?
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = asked.upgrade.take()
    {
        return Ok(proxy::join(client, response));
    }
    Ok(given_back(response, prefix))
}

async fn send(
    app: &App,
    who: &Who<'_>,
    to: SocketAddr,
    request: hyper::http::request::Builder,
    body: AnswerBody,
) -> Result<Response<Incoming>, Status> {
    let tls = who.tls.then_some(&app.pod_tls);
    let wire = proxy::dial(to, tls).await.map_err(|e| bad_gateway(format!("dial {} at {to}: {e}", who.name)))?;
    proxy::send(wire, who.name, request.header(HOST, to.to_string()), body).await
}

/// A path as it was sent, cut before what is asked of the other side. None: its own parts are written so that they would mean another place.
fn tail(path: &str) -> Option<(&str, &str)> {
    let own = path.trim_start_matches('/');
    let count = before_tail(own)?;
    let end = own.match_indices('/').nth(count - 1).map_or(own.len(), |(end, _)| end);
    let (start, skipped) = (own.get(..end)?, path.len() - own.len());
    (!start.contains('%') || start.to_ascii_lowercase().replace("%3a", "").find('%').is_none())
        .then(|| (path.get(..skipped + end).unwrap_or(path), own.get(end..).unwrap_or_default()))
}

/// Relative links of a page need its folder to end in `/`.
fn moved(asked: &Asked, prefix: &str) -> Answer {
    let query = asked.uri.query().map_or(String::new(), |q| format!("?{q}"));
    let mut answer = answer::text(301, "");
    if let Ok(to) = HeaderValue::from_str(&format!("/{}/{query}", prefix.trim_start_matches('/'))) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

/// Headers of one connection (RFC 9110, 7.6.1) and of who the client is to us.
fn is_ours(name: &HeaderName) -> bool {
    static OURS: [HeaderName; 6] = [AUTHORIZATION, CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING];
    let text = name.as_str();
    OURS.contains(name)
        || matches!(text, "keep-alive" | "proxy-connection" | "proxy-authorization")
        || text.starts_with("impersonate-")
        || text.starts_with("x-remote-")
}

fn relayed(headers: &HeaderMap) -> HeaderMap {
    let upgrades = headers.contains_key(UPGRADE);
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        if !is_ours(name) || (upgrades && name == CONNECTION) {
            out.append(name, value.clone());
        }
    }
    out
}

fn given_back(response: Response<Incoming>, prefix: &str) -> Answer {
    let (head, body) = response.into_parts();
    let mut answer = Response::new(AnswerBody::Passed(body));
    *answer.status_mut() = head.status;
    for (name, value) in &head.headers {
        if !is_ours(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    // A path of the other side is one below ours.
    let to =
        head.headers.get(LOCATION).and_then(|l| l.to_str().ok()).filter(|l| l.starts_with('/') && !l.starts_with("//"));
    if let Some(Ok(to)) = to.map(|l| HeaderValue::from_str(&format!("{prefix}{l}"))) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    #[test]
    fn names_of_paths() {
        for (text, want) in [
            ("a", Some((false, "a", ""))),
            ("a:80", Some((false, "a", "80"))),
            ("https:a:", Some((true, "a", ""))),
            ("http:a:web", Some((false, "a", "web"))),
            ("ftp:a:1", None),
            (":80", None),
            ("http:a:1:2", None),
        ] {
            assert_eq!(Who::parse(text), want.map(|(tls, name, port)| Who { tls, name, port }), "{text}");
        }
    }

    #[test]
    fn what_is_asked_of_the_other_side() {
        let pod = "/api/v1/namespaces/n/pods/p/proxy";
        for (path, want) in [
            (pod.to_owned(), Some((pod, ""))),
            (format!("{pod}/"), Some((pod, "/"))),
            (format!("{pod}/a%2Fb//c/"), Some((pod, "/a%2Fb//c/"))),
            ("/api/v1/nodes/n/proxy/metrics".into(), Some(("/api/v1/nodes/n/proxy", "/metrics"))),
            (
                "/api/v1/namespaces/n/services/https%3As%3a1/proxy/x".into(),
                Some(("/api/v1/namespaces/n/services/https%3As%3a1/proxy", "/x")),
            ),
            ("/api/v1/namespaces/n%2Fpods/x/p/proxy/a".into(), None),
            ("/api/v1/namespaces/n/pods/p%2Fproxy/proxy/a".into(), None),
            ("/api/v1/namespaces/n/pods/p".into(), None),
        ] {
            assert_eq!(tail(&path), want, "{path}");
        }
    }

    #[test]
    fn addresses_of_this_machine_and_its_links_are_not_dialled() {
        for (ip, want) in [
            ("10.42.0.5", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("host.name", false),
            ("", false),
        ] {
            assert_eq!(address(ip, 80).is_ok(), want, "{ip}");
        }
    }

    #[test]
    fn ports_of_pods_and_services() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]}, "status": {"podIP": "10.0.0.1"}});
        let of = |who: &str| of_pod(&pod, &Who::parse(who).unwrap()).map(|a| a.port()).map_err(|e| e.code);
        assert_eq!((of("p"), of("p:81"), of("p:x"), of("p:0")), (Ok(8080), Ok(81), Err(400), Err(400)));
        assert_eq!(
            of_pod(&json!({"status": {"podIP": "10.0.0.1"}}), &Who::parse("https:p:").unwrap()).unwrap().port(),
            443
        );
        assert_eq!(of_pod(&json!({}), &Who::parse("p").unwrap()).unwrap_err().code, 503);
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "x", "port": 81}]}});
        let of = |who: &str| port_name(&service, &Who::parse(who).unwrap()).map(str::to_owned).map_err(|e| e.code);
        assert_eq!((of("s:81"), of("s:web"), of("s:82")), (Ok("x".into()), Ok("web".into()), Err(503)));
        let endpoints = json!({"subsets": [{"ports": [{"name": "web", "port": 8080}], "addresses": [
            {"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p"}}, {"ip": "169.254.169.254"}]}]});
        assert_eq!(candidates(&endpoints, "web"), [("p", "10.0.0.1", 8080)]);
        assert!(candidates(&endpoints, "x").is_empty());
    }

    #[test]
    fn secrets_of_the_client_stay_here() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "impersonate-user", "connection", "x-remote-user", "accept", "cookie"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let names = |h: &HeaderMap| h.keys().map(|k| k.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&relayed(&headers)), ["accept", "cookie"]);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(relayed(&headers).len(), 4);
    }
}
