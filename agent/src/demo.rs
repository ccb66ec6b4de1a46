//! `mote up --demo`: a web page served by a pod, from an image packed out of our own executable. Needs no registry.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mote_api::tree::{Value, json, list_at, str_at};
use mote_images::{Cancel, Compression, ImageConfig, PackLayer, PackSpec, Platform, Reference, Store};

use crate::apply;
use crate::client::{Client, path};

/// The image's name; `localhost` is no registry, so nothing is ever pulled.
pub(crate) const IMAGE: &str = concat!("localhost/mote-hello:", env!("CARGO_PKG_VERSION"));
const NAME: &str = "hello";
/// How long the demo waits for its page.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Packs the image, unless the same executable was packed before.
pub(crate) fn pack(store: &Store, exe: &Path) -> Result<(), String> {
    let reference: Reference = IMAGE.parse().map_err(|e| format!("{e}"))?;
    let mut files = vec![("/mote".to_owned(), exe.to_owned(), 0o755)];
    files.extend(libraries(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()));
    let config = ImageConfig {
        entrypoint: vec!["/mote".into()],
        cmd: vec!["hello".into()],
        exposed_ports: vec!["8080/tcp".into()],
        platform: Platform::host(),
        ..ImageConfig::default()
    };
    let spec =
        PackSpec { config, layers: vec![PackLayer::Files(files)], compression: Compression::None, mtime: Some(0) };
    store.pack(&reference, spec, &Cancel::default()).map(|_| ()).map_err(|e| format!("pack image {IMAGE}: {e}"))
}

/// A dynamically linked executable needs its libraries: those mapped into this process, where its loader looks for them.
fn libraries(maps: &str) -> Vec<(String, PathBuf, u32)> {
    let mapped: BTreeSet<&str> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .collect();
    let mut files = Vec::new();
    for path in mapped {
        files.push((path.to_owned(), PathBuf::from(path), 0o755));
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-") || name.starts_with("ld64") {
            for folder in ["/lib", "/lib64"] {
                let at = format!("{folder}/{name}");
                if at != path {
                    files.push((at, PathBuf::from(path), 0o755));
                }
            }
        }
    }
    files
}

fn objects() -> [Value; 2] {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let labels = json!({"app": NAME});
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME, "namespace": "default", "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 2,
                "containers": [{"name": NAME, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 8080}],
                    "env": [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP"), field("NODE_NAME", "spec.nodeName")],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5}}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": "default", "labels": labels},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}}),
    ]
}

/// Makes the demo's objects and waits for its page; the addresses to open.
pub(crate) async fn run(client: &Client) -> Result<Vec<String>, String> {
    for object in objects() {
        apply::one(client, object).await?;
    }
    let end = tokio::time::Instant::now() + READY_WITHIN;
    loop {
        let pods =
            client.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dhello").await.map_err(|e| e.to_string())?;
        for pod in list_at(&pods, &["items"]) {
            let conditions = list_at(pod, &["status", "conditions"]);
            if conditions.iter().any(|c| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) == "True") {
                let service = client.get(&path::core("default", "services", NAME)).await.map_err(|e| e.to_string())?;
                let mut addresses = Vec::new();
                let cluster_ip = str_at(&service, &["spec", "clusterIP"]);
                if !cluster_ip.is_empty() {
                    addresses.push(format!("http://{cluster_ip}/"));
                }
                addresses.push(format!("http://{}:8080/", str_at(pod, &["status", "podIP"])));
                return Ok(addresses);
            }
        }
        if tokio::time::Instant::now() >= end {
            return Err("the demo's pod did not become ready within 60 s; `kubectl describe pods` tells why".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_process() {
        let maps = "7f0-7f1 r--p 0 00:1 1   /usr/lib/x/libc.so.6\n7f0-7f1 r--p 0 00:1 1   /usr/lib/x/libc.so.6\n\
                    7f0-7f1 r--p 0 00:1 1   /usr/lib/x/ld-linux-x86-64.so.2\n7f0-7f1 rw-p 0 00:0 0   [heap]\n1-2 r--p 0 00:1 1 /bin/mote\n";
        let names: Vec<String> = libraries(maps).into_iter().map(|file| file.0).collect();
        assert_eq!(
            names,
            [
                "/usr/lib/x/ld-linux-x86-64.so.2",
                "/lib/ld-linux-x86-64.so.2",
                "/lib64/ld-linux-x86-64.so.2",
                "/usr/lib/x/libc.so.6"
            ]
        );
        assert!(libraries("1-2 r--p 0 00:1 1 /bin/mote\n").is_empty());
    }
}
