//! What the nodes of [`crate::cluster`] say to an API server: leases, heartbeats, and a pod's status and events each time a container restarts.
//!
//! A day of it as fast as it goes, or so many seconds of a quiet hour in real time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use serde_json::{Value, json};

use crate::clients::{self, Fault, spread};
use crate::{PODS, Target, ask, cluster};

/// Connections that share the nodes in a compressed day.
const CONNECTIONS: usize = 16;
/// Seconds between two renewals of a lease.
const RENEW: usize = 10;
/// Renewals between two heartbeats in a node's status: five minutes.
const BEAT: usize = 30;
/// Renewals between two restarts of a container of one node.
const RESTART: usize = 200;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const EVENTS: &str = "/api/v1/namespaces/default/events";

type Sender = SendRequest<Full<Bytes>>;

/// The simulated moment, as Kubernetes writes it: on the 1st of a month of 2026.
fn time(second: usize) -> String {
    let (day, rest) = (second / 86_400, second % 86_400);
    format!("2026-06-{:02}T{:02}:{:02}:{:02}", day + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

async fn send(sender: &mut Sender, method: &str, path: &str, body: Value) -> Result<(), Fault> {
    ask(sender, method, path, body.to_string()).await?.into_body().collect().await?;
    Ok(())
}

/// Made, or there already.
async fn lease(sender: &mut Sender, node: usize) -> Result<(), Fault> {
    let spec = json!({"holderIdentity": format!("load-{node}"), "leaseDurationSeconds": 40, "renewTime": "2026-06-01T00:00:00.000000Z"});
    let body = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("load-{node}")}, "spec": spec});
    match send(sender, "POST", LEASES, body).await {
        Err(e) if e.to_string().contains("409 Conflict") => Ok(()),
        made => made,
    }
}

async fn renew(sender: &mut Sender, node: usize, second: usize) -> Result<(), Fault> {
    let renewed = json!({"spec": {"renewTime": format!("{}.000000Z", time(second))}});
    send(sender, "PATCH", &format!("{LEASES}/load-{node}"), renewed).await
}

async fn beat(sender: &mut Sender, node: usize, second: usize) -> Result<(), Fault> {
    let conditions = cluster::conditions(&format!("{}Z", time(second)));
    let path = format!("/api/v1/nodes/load-{node}/status");
    send(sender, "PATCH", &path, json!({"status": {"conditions": conditions}})).await
}

/// One container ends, waits and runs again: three statuses, two events.
async fn restart(sender: &mut Sender, node: usize, second: usize, count: usize) -> Result<(), Fault> {
    let at = format!("{}Z", time(second));
    let name = format!("load-{node}-{}", count % 10);
    let states = [
        json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": at, "finishedAt": at}}),
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}),
        json!({"running": {"startedAt": at}}),
    ];
    for (step, state) in states.into_iter().enumerate() {
        let status = cluster::pod_status(node * 10 + count % 10, count + step, state);
        send(sender, "PATCH", &format!("{PODS}/{name}/status"), status).await?;
    }
    for reason in ["BackOff", "Started"] {
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{name}.{second:x}{reason}").to_lowercase(), "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": name, "namespace": "default"}, "reason": reason, "type": "Normal",
            "message": "said by the node about its container", "firstTimestamp": at, "lastTimestamp": at, "count": 1});
        send(sender, "POST", EVENTS, event).await?;
    }
    Ok(())
}

/// One connection's nodes for so many ticks; what each tick of one node took.
async fn nodes(target: &Target, first: usize, all: usize, ticks: usize) -> Result<Vec<Duration>, Fault> {
    let mut sender = target.connect().await?;
    let mine: Vec<usize> = (first..all).step_by(CONNECTIONS).collect();
    for node in &mine {
        lease(&mut sender, *node).await?;
    }
    let mut took = Vec::with_capacity(ticks * mine.len());
    for tick in 0..ticks {
        for node in &mine {
            let began = Instant::now();
            renew(&mut sender, *node, tick * RENEW).await?;
            if (tick + node) % BEAT == 0 {
                beat(&mut sender, *node, tick * RENEW).await?;
            }
            if (tick + node * 7) % RESTART == 0 {
                restart(&mut sender, *node, tick * RENEW, tick / RESTART).await?;
            }
            took.push(began.elapsed());
        }
    }
    Ok(took)
}

/// `hours` of `count` nodes, as fast as it goes.
pub(crate) async fn compressed(target: Rc<Target>, count: usize, hours: usize) -> Result<Value, Fault> {
    clients::run(CONNECTIONS, 0, |first, _| {
        let target = target.clone();
        async move { nodes(&target, first, count, hours * 3600 / RENEW).await }
    })
    .await
}

/// `seconds` of `count` nodes that only renew their leases, in real time.
pub(crate) async fn quiet(target: &Target, count: usize, seconds: usize) -> Result<Value, Fault> {
    let mut sender = target.connect().await?;
    for node in 0..count {
        lease(&mut sender, node).await?;
    }
    let (began, mut took) = (Instant::now(), Vec::new());
    for second in 0..seconds {
        let due = Duration::from_secs(second as u64);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        for node in (0..count).filter(|n| n % RENEW == second % RENEW) {
            let sent = Instant::now();
            renew(&mut sender, node, second).await?;
            took.push(sent.elapsed());
        }
    }
    Ok(spread(took, began.elapsed()))
}
