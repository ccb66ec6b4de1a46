//! What every cluster has from its first minute: namespaces, and the `kubernetes` Service that points here. Made true at every start.

use std::net::SocketAddr;

use mote_api::status::Status;
use mote_api::tree::{Value, json, str_at};

use crate::api::admit::priority;
use crate::api::client::Client;
use crate::auth::bootstrap;
use crate::config::Config;
use crate::endpoints;

/// The ConfigMap in kube-system that tells every node the ranges of pods and Services.
const NETWORK: &str = "mote-network";
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

fn fine(result: Result<Value, Status>) -> Result<(), Status> {
    match result {
        Err(e) if !e.is_already_exists() => Err(e),
        _ => Ok(()),
    }
}

pub(crate) async fn seed(client: &Client, config: &Config, port: u16) -> Result<(), Status> {
    // All at once: what waits for the disk together goes to the disk together. Only what is in a namespace has to wait for that.
    let namespaced = async {
        let [a, b, c, d] = NAMESPACES.map(|name| client.create("namespaces", "", json!({"metadata": {"name": name}})));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        [a, b, c, d].into_iter().try_for_each(fine)?;
        in_namespaces(client, config, port).await
    };
    let [e, f] = priority::SYSTEM.map(|(name, value)| {
        let class =
            json!({"metadata": {"name": name}, "value": value, "description": "Used for system critical pods."});
        client.create("priorityclasses.scheduling.k8s.io", "", class)
    });
    let (namespaced, e, f, roles) = tokio::join!(namespaced, e, f, bootstrap::seed(client, false));
    namespaced.and(fine(e)).and(fine(f)).and(roles)
}

async fn in_namespaces(client: &Client, config: &Config, port: u16) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ip = config.service_cidr.nth(1).map(|ip| ip.to_string()).unwrap_or_default();
    match client.get("services", "default", "kubernetes").await {
        // Another service CIDR than last time: the address cannot be changed, only made again.
        Ok(old) if str_at(&old, &["spec", "clusterIP"]) != ip => {
            client.delete("services", "default", "kubernetes", Default::default()).await?;
        }
        _ => {}
    }
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    });
    let ranges = json!({
        "metadata": {"name": NETWORK},
        "data": {"clusterCIDR": config.cluster_cidr.to_string(), "serviceCIDR": config.service_cidr.to_string()},
    });
    let made = tokio::join!(
        make(client, "services", service),
        make_in(client, "configmaps", "kube-system", ranges),
        async {
            // No pod reaches our loopback: an endpoint there would only mislead. Whoever has a better address says so later.
            if config.advertise.is_loopback() {
                Ok(())
            } else {
                endpoints::publish(client, SocketAddr::new(config.advertise, port)).await
            }
        },
        bootstrap::seed(client, true)
    );
    made.0.and(made.1).and(made.2).and(made.3)
}

/// Makes it, or makes it as it should be.
async fn make(client: &Client, resource: &str, object: Value) -> Result<(), Status> {
    make_in(client, resource, "default", object).await
}

async fn make_in(client: &Client, resource: &str, ns: &str, object: Value) -> Result<(), Status> {
    match client.create(resource, ns, object.clone()).await {
        Err(e) if e.is_already_exists() => {
            let name = mote_api::meta::name(&object).to_owned();
            client.merge_patch(resource, ns, &name, None, object).await.map(drop)
        }
        done => done.map(drop),
    }
}
