//! Two API servers on one etcd.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minicp::{Client, Config, Server, SystemClock};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::etcd::Etcd;
use crate::run;

async fn start(etcd: &Etcd, dir: &std::path::Path) -> Server {
    let mut config = Config::new(dir.into(), "127.0.0.1:0".parse().unwrap());
    config.controllers = false;
    config.etcd = Some(etcd.config());
    Server::start(config, Rc::new(SystemClock)).await.unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn two_api_servers_are_one_cluster() {
    run(async {
        let etcd = Etcd::start();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = start(&etcd, one.path()).await;
        // One CA for both, as an operator copies it.
        std::fs::create_dir(two.path().join("pki")).unwrap();
        for entry in std::fs::read_dir(one.path().join("pki")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, two.path().join("pki").join(path.file_name().unwrap())).unwrap();
        }
        let second = start(&etcd, two.path()).await;
        assert_eq!(first.ca_pem(), second.ca_pem());
        let (a, b) = (first.client(), second.client());
        let (_, from) = b.list("configmaps", Some("default")).await.unwrap();
        let mut watch = b.watch("configmaps", from).unwrap();
        let made =
            a.create("configmaps", "default", json!({"metadata": {"name": "x"}, "data": {"k": "1"}})).await.unwrap();
        let mut seen = b.get("configmaps", "default", "x").await.unwrap().as_ref().clone();
        assert_eq!(seen, made, "the same object with the same resourceVersion");
        let event = watch.next().await.unwrap();
        assert_eq!(event.object.as_ref(), &made);
        // Optimistic concurrency works across them.
        seen["data"]["k"] = "2".into();
        b.update("configmaps", seen.clone()).await.unwrap();
        seen["data"]["k"] = "3".into();
        let conflict = a.update("configmaps", seen).await.err().unwrap();
        assert_eq!(conflict.code, 409);
        assert_eq!(a.get("configmaps", "default", "x").await.unwrap()["data"]["k"], "2");
        let exists = a.create("configmaps", "default", json!({"metadata": {"name": "x"}})).await.err().unwrap();
        assert!(exists.is_already_exists());
        first.stop().await;
        second.stop().await;
    });
}

/// One that pods would reach at this address, with the certificates of `like`.
async fn advertised(etcd: &Etcd, dir: &std::path::Path, like: Option<&std::path::Path>, at: &str) -> Server {
    if let Some(like) = like {
        std::fs::create_dir(dir.join("pki")).unwrap();
        for entry in std::fs::read_dir(like.join("pki")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, dir.join("pki").join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut config = Config::new(dir.into(), "127.0.0.1:0".parse().unwrap());
    config.controllers = false;
    config.advertise = at.parse().unwrap();
    config.etcd = Some(etcd.config());
    Server::start(config, Rc::new(SystemClock)).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The addresses behind the `kubernetes` Service, by both kinds of objects; waits until they are `want`.
async fn endpoints_are(client: &Client, want: &[&str], seconds: u64) {
    let mut seen = Vec::new();
    for _ in 0..seconds * 20 {
        let endpoints = client.get("endpoints", "default", "kubernetes").await;
        let subsets = endpoints.map(|e| e["subsets"].clone()).unwrap_or_default();
        let ips = |list: &serde_json::Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|a| a["ip"].as_str().unwrap().to_owned()).collect()
        };
        seen = subsets.as_array().into_iter().flatten().flat_map(|s| ips(&s["addresses"])).collect();
        seen.sort();
        let (slices, _) = client.list("endpointslices.discovery.k8s.io", Some("default")).await.unwrap();
        let of_slice = |s: &serde_json::Value| -> Vec<String> {
            let endpoints = s["endpoints"].as_array().unwrap();
            endpoints.iter().map(|e| e["addresses"][0].as_str().unwrap().to_owned()).collect()
        };
        let mut sliced: Vec<String> = slices.iter().flat_map(|s| of_slice(s)).collect();
        sliced.sort();
        if seen == want && sliced == want {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the endpoints are {seen:?}, not {want:?}");
}

#[test]
fn the_kubernetes_service_has_the_servers_that_live() {
    run(async {
        let etcd = Etcd::start();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = advertised(&etcd, one.path(), None, "10.9.0.1").await;
        let client = first.client();
        endpoints_are(&client, &["10.9.0.1"], 10).await;
        let second = advertised(&etcd, two.path(), Some(one.path()), "10.9.0.2").await;
        endpoints_are(&client, &["10.9.0.1", "10.9.0.2"], 10).await;
        // An orderly end gives the lease back: at once.
        second.stop().await;
        endpoints_are(&client, &["10.9.0.1"], 5).await;
        // One of another port has slices of its own; nobody keeps it alive: it goes with its lease, as a server's that was killed.
        let granted = etcd.ask("/v3/lease/grant", json!({"TTL": "2"})).unwrap();
        let key = STANDARD.encode(format!("{}/servers/10.9.0.3:7443", etcd.config().prefix));
        let put = json!({"key": key, "value": STANDARD.encode("{}"), "lease": granted["ID"]});
        etcd.ask("/v3/kv/put", put).unwrap();
        endpoints_are(&client, &["10.9.0.1", "10.9.0.3"], 10).await;
        endpoints_are(&client, &["10.9.0.1"], 20).await;
        // A lease that etcd has given up meanwhile is replaced: the address comes back by itself.
        let mine = STANDARD.encode(format!("{}/servers/{}", etcd.config().prefix, address(&first)));
        let held = etcd.ask("/v3/kv/range", json!({ "key": mine })).unwrap();
        let lease = held["kvs"][0]["lease"].clone();
        assert!(lease.as_str().is_some_and(|id| id != "0"), "{held}");
        etcd.ask("/v3/lease/revoke", json!({ "ID": lease })).unwrap();
        let mut again = serde_json::Value::Null;
        for _ in 0..300 {
            again = etcd.ask("/v3/kv/range", json!({ "key": mine })).unwrap()["kvs"][0]["lease"].clone();
            if again.is_string() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(again.is_string() && again != lease, "{again}");
        endpoints_are(&client, &["10.9.0.1"], 5).await;
        first.stop().await;
        let left = etcd.ask("/v3/kv/range", json!({ "key": mine })).unwrap();
        assert!(left["kvs"].is_null(), "{left}");
    });
}

fn address(server: &Server) -> String {
    server.url().trim_start_matches("https://").to_owned()
}

/// The answer to a question of nobody in particular, head and body.
async fn asked(server: &Server, path: &str) -> String {
    let mut stream = server.connect(minicp::user::UserInfo::new("nobody", &[]));
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_server_is_as_ready_as_its_store() {
    run(async {
        let mut etcd = Etcd::start();
        let dir = tempfile::tempdir().unwrap();
        let server = start(&etcd, dir.path()).await;
        assert!(asked(&server, "/readyz").await.starts_with("HTTP/1.0 200"));
        etcd.kill();
        let said = asked(&server, "/readyz").await;
        assert!(said.starts_with("HTTP/1.0 500") && said.contains("[-]etcd failed: reason withheld"), "{said}");
        let alive = asked(&server, "/livez?verbose").await;
        assert!(alive.ends_with("[+]ping ok\nlivez check passed\n"), "{alive}");
        etcd.run();
        etcd.wait();
        let mut said = String::new();
        for _ in 0..200 {
            said = asked(&server, "/readyz?verbose").await;
            if said.starts_with("HTTP/1.0 200") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(said.ends_with("[+]ping ok\n[+]etcd ok\nreadyz check passed\n"), "{said}");
        server.stop().await;
    });
}
