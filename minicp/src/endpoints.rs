//! The endpoints of the `kubernetes` Service: the API servers that live. On a store of its own that is this server; those that share an etcd announce
//! themselves there ([`Store::announce`]), each makes the endpoints of what all have announced, and who dies is gone from them within seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, str_at};

use crate::api::client::Client;
use crate::store::{Ended, ReadError, SERVERS, Store};

const SLICES: &str = "endpointslices.discovery.k8s.io";
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Makes this address an endpoint: the only one, or one of those of the servers that share the state (then this goes on in the background).
pub(crate) async fn publish(client: &Client, address: SocketAddr) -> Result<(), Status> {
    let store = client.api().store.clone();
    if store.announce(&format!("{SERVERS}{address}"), Bytes::from_static(b"{}")) {
        tokio::task::spawn_local(follow(client.clone(), store));
        return Ok(());
    }
    make(client, &plan(&BTreeSet::from([address]))).await
}

/// Until the store is closed.
async fn follow(client: Client, store: Rc<dyn Store>) {
    loop {
        match turn(&client, &*store).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                log::warn!("make the endpoints of the {NAME} Service: {why}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Makes what is true now, and waits until something else is. False: the store is closed.
async fn turn(client: &Client, store: &dyn Store) -> Result<bool, String> {
    let why = |e: ReadError| e.to_string();
    let found = store.range(SERVERS, "", None, 0).await.map_err(why)?;
    let mut watch = store.watch(SERVERS, found.revision).map_err(|e| why(e.into()))?;
    let servers = found.entries.iter().filter_map(|(key, _)| key.strip_prefix(SERVERS)?.parse().ok()).collect();
    let want = plan(&servers);
    // Nobody at all: then this server's own word is on its way, and until it is there the last endpoints are the best that is known.
    if !servers.is_empty() {
        make(client, &want).await.map_err(|e| e.message)?;
    }
    Ok(!matches!(watch.next().await, Err(Ended::Closed)))
}

/// Both kinds of objects for these servers.
struct Wanted {
    endpoints: Value,
    slices: Vec<Value>,
}

fn plan(servers: &BTreeSet<SocketAddr>) -> Wanted {
    let mut groups: BTreeMap<(bool, u16), Vec<String>> = BTreeMap::new();
    for server in servers {
        groups.entry((server.is_ipv6(), server.port())).or_default().push(server.ip().to_string());
    }
    let port = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let slice = |(n, ((is_ipv6, at), ips)): (usize, (&(bool, u16), &Vec<String>))| {
        // Servers of one kind and port share a slice; the first has the name that upstream gives it.
        let name = if n == 0 { NAME.to_owned() } else { format!("{NAME}-{}-{at}", if *is_ipv6 { "v6" } else { "v4" }) };
        let endpoints: Vec<Value> =
            ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": if *is_ipv6 { "IPv6" } else { "IPv4" },
            "endpoints": endpoints,
            "ports": port(*at),
        })
    };
    let subset = |((_, at), ips): (&(bool, u16), &Vec<String>)| {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"addresses": addresses, "ports": port(*at)})
    };
    let subsets: Vec<Value> = groups.iter().map(subset).collect();
    Wanted {
        endpoints: json!({
            "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": subsets,
        }),
        slices: groups.iter().enumerate().map(slice).collect(),
    }
}

async fn make(client: &Client, want: &Wanted) -> Result<(), Status> {
    let slices = async {
        for slice in &want.slices {
            make_one(client, SLICES, slice).await?;
        }
        let (there, _) = client.list(SLICES, Some(NAMESPACE)).await?;
        let ours = |o: &&Rc<Value>| str_at(o, &["metadata", "labels", "kubernetes.io/service-name"]) == NAME;
        for old in there.iter().filter(ours).map(|o| meta::name(o)) {
            if !want.slices.iter().any(|new| meta::name(new) == old) {
                gone(client.delete(SLICES, NAMESPACE, old, Default::default()).await)?;
            }
        }
        Ok(())
    };
    let (slices, endpoints) = tokio::join!(slices, make_one(client, "endpoints", &want.endpoints));
    slices.and(endpoints)
}

/// Another server may have been faster.
fn gone(deleted: Result<(), Status>) -> Result<(), Status> {
    match deleted {
        Err(e) if e.code == 404 => Ok(()),
        done => done,
    }
}

async fn make_one(client: &Client, resource: &str, object: &Value) -> Result<(), Status> {
    match client.create(resource, NAMESPACE, object.clone()).await {
        Err(e) if e.is_already_exists() => {
            client.merge_patch(resource, NAMESPACE, meta::name(object), None, object.clone()).await.map(drop)
        }
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::{at, list_at};

    fn planned(servers: &[&str]) -> Wanted {
        plan(&servers.iter().map(|s| s.parse().unwrap()).collect())
    }

    #[test]
    fn servers_of_one_port_share_a_slice() {
        let want = planned(&["10.0.0.2:6443", "10.0.0.1:6443"]);
        assert_eq!(want.slices.len(), 1);
        let slice = &want.slices[0];
        assert_eq!((meta::name(slice), str_at(slice, &["addressType"])), ("kubernetes", "IPv4"));
        let ips: Vec<&str> =
            list_at(slice, &["endpoints"]).iter().map(|e| e["addresses"][0].as_str().unwrap()).collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);
        let subsets = list_at(&want.endpoints, &["subsets"]);
        assert_eq!((subsets.len(), list_at(&subsets[0], &["addresses"]).len()), (1, 2));
        assert_eq!(at(&subsets[0], &["ports"]).unwrap()[0]["port"], 6443);
    }

    #[test]
    fn other_ports_and_families_have_slices_of_their_own() {
        let want = planned(&["10.0.0.1:6443", "10.0.0.1:7443", "[fd00::1]:6443"]);
        let said: Vec<(&str, &str, u64)> = want
            .slices
            .iter()
            .map(|s| (meta::name(s), str_at(s, &["addressType"]), s["ports"][0]["port"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            said,
            [("kubernetes", "IPv4", 6443), ("kubernetes-v4-7443", "IPv4", 7443), ("kubernetes-v6-6443", "IPv6", 6443)]
        );
        assert_eq!(list_at(&want.endpoints, &["subsets"]).len(), 3);
    }
}
