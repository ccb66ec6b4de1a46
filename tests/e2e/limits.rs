//! cpu, memory and pids limits bind, whatever cgroup version the machine has.

use crate::harness::node::container;
use crate::harness::{Node, Registry, machine};
use crate::{IDLE, shell};

#[test]
fn a_container_over_its_memory_limit_is_oom_killed_and_restarts_with_back_off() {
    let registry = Registry::with_images();
    let node = Node::up();
    // `tail` keeps what it reads until a line ends: zeros have none.
    let manifest = shell("hungry", &registry, "tail /dev/zero") + "    resources: {limits: {memory: 16Mi}}\n";
    node.kubectl().apply(&manifest);
    let killed = |pod: &serde_json::Value| container(pod)["lastState"]["terminated"]["reason"] == "OOMKilled";
    let pod = node.wait_pod("hungry", "OOMKilled", 40, killed);
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 137);
    let waits = |pod: &serde_json::Value| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    node.wait_pod("hungry", "in back-off", 40, waits);
}

#[test]
fn limits_of_the_spec_are_the_kernels() {
    let registry = Registry::with_images();
    let node = Node::up();
    let manifest = shell("limited", &registry, IDLE) + "    resources: {limits: {memory: 32Mi, cpu: 250m}}\n";
    node.kubectl().apply(&manifest);
    let pod = node.wait_pod_ready("limited", 20);
    let uid = pod["metadata"]["uid"].as_str().expect("uid");
    let id = container(&pod)["containerID"].as_str().and_then(|id| id.strip_prefix("mote://")).expect("container id");
    let group = format!("{}/pod{uid}/{id}", node.traces.cgroup_parent);
    let memory = machine::cgroup_value(&group, &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory.as_deref(), Some("33554432"), "memory limit of {group}");
    let quota = machine::cgroup_value(&group, &["cpu.cfs_quota_us", "cpu.max"]).expect("cpu limit");
    assert_eq!(quota.split(' ').next(), Some("25000"), "cpu quota of {group}");
}
