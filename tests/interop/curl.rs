//! The API as `curl` meets it: status codes, content types, patches, pages and watches, by client certificate and by token.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{Node, need};

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// curl with files of its own, in the node's folder.
struct Curl {
    url: String,
    dir: std::path::PathBuf,
}

#[derive(Debug)]
struct Answer {
    code: u16,
    media: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Who asks.
enum As<'a> {
    Admin,
    Token(&'a str),
    Nobody,
}

impl Curl {
    fn new(node: &Node) -> Curl {
        let config = std::fs::read_to_string(node.kubeconfig()).expect("kubeconfig");
        let dir = node.dir.path().join("curl");
        std::fs::create_dir_all(&dir).expect("folder");
        for (field, file) in [
            ("certificate-authority-data", "ca.crt"),
            ("client-certificate-data", "client.crt"),
            ("client-key-data", "client.key"),
        ] {
            let line = config.lines().find_map(|l| l.trim().strip_prefix(&format!("{field}:")[..]));
            let bytes = STANDARD.decode(line.expect(field).trim().trim_matches('"')).expect("base64");
            std::fs::write(dir.join(file), bytes).expect("write");
        }
        Curl { url: format!("https://{}", node.listen()), dir }
    }
    fn ask(&self, who: &As, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut curl = Command::new("curl");
        curl.args(["-s", "--noproxy", "*", "--max-time", "30", "-X", method, "--cacert", &file("ca.crt")]);
        curl.args(["-w", "\n%{http_code} %{content_type}"]);
        match who {
            As::Admin => drop(curl.args(["--cert", &file("client.crt"), "--key", &file("client.key")])),
            As::Token(token) => drop(curl.args(["-H", &format!("Authorization: Bearer {token}")])),
            As::Nobody => {}
        }
        for header in headers {
            curl.args(["-H", header]);
        }
        if !body.is_empty() {
            std::fs::write(self.dir.join("body"), body).expect("write");
            curl.args(["-H", "Expect:", "--data-binary", &format!("@{}", file("body"))]);
        }
        let out = curl.arg(format!("{}{path}", self.url)).output().expect("curl");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, last) = said.rsplit_once('\n').unwrap_or_else(|| panic!("{method} {path}: {out:?}"));
        let (code, media) = last.split_once(' ').expect("code and type");
        Answer { code: code.parse().expect("code"), media: media.into(), body: body.into() }
    }
    /// As the admin; the answer must have this code.
    fn want(&self, code: u16, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let answer = self.ask(&As::Admin, method, path, headers, body);
        assert_eq!(answer.code, code, "{method} {path} {headers:?}: {answer:?}");
        answer
    }
}

fn content(media: &str) -> String {
    format!("Content-Type: {media}")
}

fn map(name: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"1"}}}}"#)
}

#[test]
fn who_may_ask_what() {
    need("curl", "curl");
    let node = Node::up();
    let curl = Curl::new(&node);
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd"] {
        assert_eq!(curl.ask(&As::Nobody, "GET", path, &[], "").code, 200, "{path}");
    }
    let verbose = curl.ask(&As::Nobody, "GET", "/readyz?verbose", &[], "").body;
    assert_eq!(verbose, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n");
    for path in ["/version", "/api/v1/nodes"] {
        let refused = curl.ask(&As::Nobody, "GET", path, &[], "");
        assert!(refused.code == 401 && refused.json()["reason"] == "Unauthorized", "{refused:?}");
    }
    assert_eq!(curl.ask(&As::Token("no.such.token"), "GET", "/api/v1/nodes", &[], "").code, 401);
    let kubectl = node.kubectl();
    kubectl.ok(&["create", "serviceaccount", "reader"]);
    let token = kubectl.ok(&["create", "token", "reader"]);
    let reader = As::Token(token.trim());
    let refused = curl.ask(&reader, "GET", MAPS, &[], "");
    assert_eq!(refused.code, 403, "{refused:?}");
    assert!(
        refused.body.contains(
            r#"User \"system:serviceaccount:default:reader\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""#
        ),
        "{refused:?}"
    );
    kubectl.ok(&["create", "role", "reads", "--verb=get,list", "--resource=configmaps"]);
    kubectl.ok(&["create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:reader"]);
    assert_eq!(curl.ask(&reader, "GET", MAPS, &[], "").code, 200);
    assert_eq!(curl.ask(&reader, "POST", MAPS, &[&content(JSON)], &map("x")).code, 403);
    assert_eq!(curl.want(200, "GET", "/api", &[], "").json()["kind"], "APIVersions");
}

#[test]
fn bodies_in_every_form() {
    need("curl", "curl");
    let node = Node::up();
    let curl = Curl::new(&node);
    let one = format!("{MAPS}/one");
    curl.want(201, "POST", MAPS, &[&content(JSON)], &map("one"));
    let again = curl.want(409, "POST", MAPS, &[&content(JSON)], &map("one"));
    assert_eq!((&again.json()["reason"], &again.json()["details"]["name"]), (&"AlreadyExists".into(), &"one".into()));
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: two\n";
    curl.want(201, "POST", MAPS, &[&content("application/yaml")], yaml);
    curl.want(415, "POST", MAPS, &[&content("text/plain")], &map("x"));
    curl.want(400, "POST", MAPS, &[&content(JSON)], "{");
    curl.want(404, "GET", &format!("{MAPS}/none"), &[], "");
    curl.want(405, "PUT", MAPS, &[&content(JSON)], &map("x"));
    curl.want(406, "GET", &one, &["Accept: image/png"], "");
    let large = map("large").replace(r#""1""#, &format!(r#""{}""#, "x".repeat(4 << 20)));
    curl.want(413, "POST", MAPS, &[&content(JSON)], &large);
    for (media, body, key) in [
        ("application/merge-patch+json", r#"{"data":{"merge":"1"}}"#, "merge"),
        ("application/strategic-merge-patch+json", r#"{"data":{"strategic":"1"}}"#, "strategic"),
        ("application/json-patch+json", r#"[{"op":"add","path":"/data/json","value":"1"}]"#, "json"),
    ] {
        let patched = curl.want(200, "PATCH", &one, &[&content(media)], body);
        assert_eq!(patched.json()["data"][key], "1", "{media}");
    }
    let applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: three}\ndata: {a: '1'}\n";
    let three = format!("{MAPS}/three?fieldManager=me");
    curl.want(201, "PATCH", &three, &[&content("application/apply-patch+yaml")], applied);
    let other = three.replace("=me", "=you");
    let conflict =
        curl.want(409, "PATCH", &other, &[&content("application/apply-patch+yaml")], &applied.replace("'1'", "'2'"));
    assert!(conflict.body.contains(r#"conflict with \"me\": .data.a"#), "{conflict:?}");
    curl.want(415, "PATCH", &one, &[&content(JSON)], "{}");
    let yaml = curl.want(200, "GET", &one, &["Accept: application/yaml"], "");
    assert!(yaml.media.starts_with("application/yaml") && yaml.body.contains("kind: ConfigMap"), "{yaml:?}");
    let table = curl.want(200, "GET", MAPS, &["Accept: application/json;as=Table;v=v1;g=meta.k8s.io"], "").json();
    assert_eq!((&table["kind"], &table["columnDefinitions"][0]["name"]), (&"Table".into(), &"Name".into()));
    let gone = curl.want(200, "DELETE", &one, &[], "").json();
    assert_eq!((&gone["kind"], &gone["status"]), (&"Status".into(), &"Success".into()));
}

#[test]
fn pages_and_watches() {
    need("curl", "curl");
    let node = Node::up();
    let curl = Curl::new(&node);
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    for n in 0..5 {
        curl.want(201, "POST", maps, &[&content(JSON)], &map(&format!("m{n}")));
    }
    let (mut names, mut next, mut revision) = (Vec::new(), String::new(), Value::Null);
    for _ in 0..10 {
        let page = curl.want(200, "GET", &format!("{maps}?limit=2&continue={next}"), &[], "").json();
        assert!(revision.is_null() || revision == page["metadata"]["resourceVersion"], "one state of the world");
        revision = page["metadata"]["resourceVersion"].clone();
        names.extend(
            page["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    names.retain(|name| name.starts_with('m'));
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    curl.want(
        200,
        "PATCH",
        &format!("{maps}/m1"),
        &[&content("application/merge-patch+json")],
        r#"{"data":{"k":"2"}}"#,
    );
    curl.want(200, "DELETE", &format!("{maps}/m2"), &[], "");
    let watch = format!("{maps}?watch=true&timeoutSeconds=1&resourceVersion={}", revision.as_str().unwrap());
    let lines = curl.want(200, "GET", &watch, &[], "");
    let events: Vec<(String, String)> = lines
        .body
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .map(|e| (e["type"].as_str().unwrap().into(), e["object"]["metadata"]["name"].as_str().unwrap().into()))
        .collect();
    assert_eq!(events, [("MODIFIED".into(), "m1".into()), ("DELETED".into(), "m2".into())]);
    let bad = curl.want(400, "GET", &format!("{maps}?watch=true&resourceVersion=abc"), &[], "");
    assert_eq!(bad.json()["kind"], "Status");
    // What a list may be as old as: exactly that, no older, or anything.
    let then = revision.as_str().unwrap();
    let names = |query: &str| -> Vec<String> {
        let list = curl.want(200, "GET", &format!("{maps}?{query}"), &[], "").json();
        let of = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
        list["items"].as_array().unwrap().iter().map(of).filter(|name| name.starts_with('m')).collect()
    };
    let (before, now) = (["m0", "m1", "m2", "m3", "m4"], ["m0", "m1", "m3", "m4"]);
    assert_eq!(names(&format!("resourceVersion={then}&resourceVersionMatch=Exact")), before);
    assert_eq!(names(&format!("resourceVersion={then}&limit=9")), before);
    for query in ["", "resourceVersion=0", "resourceVersion=0&limit=9"] {
        assert_eq!(names(query), now, "{query}");
    }
    assert_eq!(names(&format!("resourceVersion={then}")), now);
    assert_eq!(names(&format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan")), now);
    let future = "resourceVersion=999999999";
    for path in [
        format!("{maps}?{future}"),
        format!("{maps}?{future}&limit=9"),
        format!("{maps}?{future}&resourceVersionMatch=Exact"),
        format!("{maps}?{future}&resourceVersionMatch=NotOlderThan"),
        format!("{maps}/m0?{future}"),
    ] {
        let refused = curl.want(504, "GET", &path, &[], "").json();
        assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{path}: {refused}");
    }
}
