//! What a pod and a node alone say of each other: labels and taints. Nothing here looks at other pods.

use crate::controllers::view::node::{Node, Truth};
use crate::controllers::view::pod::Pod;
use crate::controllers::view::taints::{Effect, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Whether the pod tolerates a taint of this key and effect, whatever its value.
pub fn bears(pod: &Pod, key: &str, effect: Effect) -> bool {
    let taint = Taint { key: key.into(), value: "".into(), effect, added: None };
    pod.tolerations.iter().any(|t| t.tolerates(&taint))
}

/// Key and value of the first taint that keeps the pod away. A node that is not ready counts as tainted before the controller
/// says so.
pub fn first_untolerated<'a>(pod: &Pod, node: &'a Node) -> Option<(&'a str, &'a str)> {
    let mut refusing = node.taints.iter().filter(|t| t.effect != Effect::PreferNoSchedule);
    if let Some(taint) = refusing.find(|taint| !pod.tolerations.iter().any(|t| t.tolerates(taint))) {
        return Some((&taint.key, &taint.value));
    }
    let unready = node.ready != Some(Truth::True) && !bears(pod, NOT_READY, Effect::NoSchedule);
    unready.then_some((NOT_READY, ""))
}

/// nodeSelector and required node affinity.
pub fn by_labels(pod: &Pod, node: &Node) -> bool {
    let required = pod.affinity.as_ref().and_then(|a| a.node_required.as_ref());
    pod.node_selector.iter().all(|(key, value)| node.labels().get(key) == Some(value))
        && required.is_none_or(|terms| terms.iter().any(|term| term.matches(node.name(), node.labels())))
}
