//! A pod network for every node: the first free piece of the cluster's.

use super::super::Context;
use super::super::view::node::Node;
use super::super::world::Res;
use crate::config::Cidr;
use mote_api::status::Status;
use mote_api::tree::json;
use std::collections::BTreeSet;

/// The first network of `prefix` bits in `cluster` that none of `used` overlaps. `None`: all taken.
pub fn first_free(cluster: Cidr, prefix: u8, used: &[Cidr]) -> Option<Cidr> {
    let shift = 32u32.checked_sub(u32::from(prefix))?;
    let size = 1u64 << shift;
    let pieces = cluster.size() / size;
    let taken: BTreeSet<u64> = used
        .iter()
        .filter_map(|c| cluster.index(c.network()).map(|at| (at / size, c.size().div_ceil(size))))
        .flat_map(|(first, count)| first..first.saturating_add(count).min(pieces))
        .collect();
    let free = (0..pieces).find(|piece| !taken.contains(piece))?;
    Cidr::new(cluster.nth(free.checked_mul(size)?)?, prefix)
}

/// Writes the node's network. Callers take turns (`turn`), and each result is learnt at once, so that no two nodes share one.
pub async fn assign(cx: &Context, turn: &tokio::sync::Mutex<()>, node: &Node) -> Result<(), Status> {
    let _turn = turn.lock().await;
    let cidr = {
        let world = cx.world.look();
        if world.nodes.get(&node.meta.key).is_none_or(|node| !node.pod_cidrs.is_empty()) {
            return Ok(());
        }
        let used: Vec<Cidr> =
            world.nodes.iter().flat_map(|n| n.pod_cidrs.iter()).filter_map(|c| c.parse().ok()).collect();
        first_free(cx.settings.cluster_cidr, cx.settings.node_prefix, &used)
    };
    let Some(cidr) = cidr else {
        let why = format!("assign a network to node {}: none is free in {}", node.name(), cx.settings.cluster_cidr);
        return Err(Status::internal(why));
    };
    let patch = json!({
        "metadata": {"uid": &*node.meta.uid}, "spec": {"podCIDR": cidr.to_string(), "podCIDRs": [cidr.to_string()]},
    });
    let written = cx.api.merge_patch("nodes", "", node.name(), None, patch).await?;
    cx.world.learn(Res::Nodes, &written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_free_piece() {
        let c = |text: &str| text.parse::<Cidr>().unwrap();
        let rows: [(&str, u8, &[&str], Option<&str>); 6] = [
            ("10.42.0.0/16", 24, &[], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.0/23"], Some("10.42.2.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.64/26"], Some("10.42.1.0/24")),
            ("10.42.0.0/16", 24, &["10.99.0.0/24"], Some("10.42.0.0/24")),
            ("10.42.0.0/23", 24, &["10.42.0.0/24", "10.42.1.0/24"], None),
        ];
        for (cluster, prefix, used, want) in rows {
            let used: Vec<Cidr> = used.iter().map(|u| c(u)).collect();
            assert_eq!(first_free(c(cluster), prefix, &used), want.map(c), "{cluster} {used:?}");
        }
        assert_eq!(first_free(c("10.42.0.0/25"), 24, &[]), None);
    }
}
