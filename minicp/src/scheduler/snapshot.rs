//! What the scheduler knows of the nodes: what they have, and who is on them, kept up with every change instead of counted anew.
//!
//! A pod that was just given a node is *assumed* there at once, so that a burst is placed right before any bind is confirmed.

use crate::controllers::view::node::Node;
use crate::controllers::view::pod::Pod;
use crate::controllers::view::resources::Resources;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a pod without requests counts for in scores (not in filters), as upstream.
const UNSAID_CPU_MILLI: i64 = 100;
const UNSAID_MEMORY_BYTES: i64 = 200 << 20;

pub struct NodeInfo {
    pub node: Rc<Node>,
    pub pods: Vec<Rc<Pod>>,
    /// Sum of the requests of `pods`.
    pub used: Resources,
    /// The same with [`UNSAID_CPU_MILLI`] and [`UNSAID_MEMORY_BYTES`] filled in.
    pub scored_cpu_milli: i64,
    pub scored_memory_bytes: i64,
}

impl NodeInfo {
    fn count(&mut self, pod: &Pod, sign: i64) {
        self.used.add(&pod.requests, sign);
        self.used.pods += sign;
        let (cpu, memory) = scored(pod);
        self.scored_cpu_milli += cpu * sign;
        self.scored_memory_bytes += memory * sign;
    }
}

/// CPU and memory of a pod as scores count it.
pub fn scored(pod: &Pod) -> (i64, i64) {
    let or = |n: i64, unsaid: i64| if n == 0 { unsaid } else { n };
    (or(pod.requests.cpu_milli, UNSAID_CPU_MILLI), or(pod.requests.memory_bytes, UNSAID_MEMORY_BYTES))
}

#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: BTreeMap<Rc<str>, usize>,
    /// Every bound or assumed pod by uid, also those of nodes we do not (yet) know.
    placed: BTreeMap<Rc<str>, (Rc<str>, Rc<Pod>)>,
    /// Those of them that have wishes about other pods.
    opinionated: BTreeMap<Rc<str>, (Rc<str>, Rc<Pod>)>,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(*self.by_name.get(name)?)
    }

    /// Pods with affinity of their own, and where they are.
    pub fn opinionated(&self) -> impl Iterator<Item = (&NodeInfo, &Rc<Pod>)> {
        self.opinionated.values().filter_map(|(node, pod)| Some((self.node(node)?, pod)))
    }

    pub fn set_node(&mut self, node: Rc<Node>) {
        if let Some(info) = self.by_name.get(node.name()).and_then(|at| self.nodes.get_mut(*at)) {
            info.node = node;
            return;
        }
        let mut info = NodeInfo {
            node,
            pods: Vec::new(),
            used: Resources::default(),
            scored_cpu_milli: 0,
            scored_memory_bytes: 0,
        };
        for (_, pod) in self.placed.values().filter(|(name, _)| name == info.node.name()) {
            info.pods.push(pod.clone());
        }
        for pod in info.pods.clone() {
            info.count(&pod, 1);
        }
        self.by_name.insert(info.node.name().clone(), self.nodes.len());
        self.nodes.push(info);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.remove(name) else { return };
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.by_name.insert(moved.node.name().clone(), at);
        }
    }

    /// The pod is on the node (or will be): counted once, however often this is said.
    pub fn place(&mut self, pod: Rc<Pod>, node: Rc<str>) {
        self.remove_pod(&pod.meta.uid);
        if let Some(info) = self.by_name.get(&node).and_then(|at| self.nodes.get_mut(*at)) {
            info.count(&pod, 1);
            info.pods.push(pod.clone());
        }
        if pod.affinity.is_some() {
            self.opinionated.insert(pod.meta.uid.clone(), (node.clone(), pod.clone()));
        }
        self.placed.insert(pod.meta.uid.clone(), (node, pod));
    }

    pub fn remove_pod(&mut self, uid: &Rc<str>) {
        let Some((node, _)) = self.placed.remove(uid) else { return };
        self.opinionated.remove(uid);
        let Some(info) = self.by_name.get(&node).and_then(|at| self.nodes.get_mut(*at)) else { return };
        if let Some(at) = info.pods.iter().position(|pod| pod.meta.uid == *uid) {
            let pod = info.pods.swap_remove(at);
            info.count(&pod, -1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    fn node(name: &str) -> Rc<Node> {
        Rc::new(Node::parse(&json!({"metadata": {"name": name}})))
    }

    fn pod(uid: &str, cpu: &str) -> Rc<Pod> {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        Rc::new(Pod::parse(&json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": containers}})))
    }

    #[test]
    fn counted_once_and_gone_without_a_rest() {
        let mut snapshot = Snapshot::default();
        snapshot.place(pod("early", "1"), "a".into());
        snapshot.set_node(node("a"));
        snapshot.set_node(node("b"));
        for _ in 0..3 {
            snapshot.place(pod("x", "2"), "a".into());
        }
        assert_eq!(snapshot.node("a").map(|n| (n.used.cpu_milli, n.used.pods)), Some((3000, 2)));
        snapshot.place(pod("x", "2"), "b".into());
        assert_eq!(snapshot.node("a").map(|n| (n.used.cpu_milli, n.used.pods)), Some((1000, 1)));
        snapshot.remove_node("a");
        assert_eq!(snapshot.node("b").map(|n| (n.used.cpu_milli, n.used.pods)), Some((2000, 1)));
        snapshot.remove_pod(&"x".into());
        assert_eq!(snapshot.node("b").map(|n| (n.used.cpu_milli, n.scored_cpu_milli, n.pods.len())), Some((0, 0, 0)));
        snapshot.set_node(node("a"));
        assert_eq!(snapshot.node("a").map(|n| n.used.pods), Some(1));
    }
}
