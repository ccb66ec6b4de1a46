//! Two API servers on one etcd.

use std::rc::Rc;

use minicp::{Config, Server, SystemClock};
use serde_json::json;

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
