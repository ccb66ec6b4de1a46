//! What containers cost the keeper, and what they must not leave behind.

use crate::node::{Node, WAIT, cgroup_folders, pair};
use mote_runtime::keeper::protocol::*;
use std::time::{Duration, Instant};

/// Resident and private memory of a process in KiB, from smaps_rollup.
fn memory_kib(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{field}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Descriptors, children, mounts, cgroups and folders a keeper has.
fn held_by(node: &Node, worker: i32, guard: i32) -> [usize; 7] {
    let children = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().count()
    };
    let fds = |pid: i32| count(&format!("/proc/{pid}/fd"));
    let mounts = std::fs::read_to_string(format!("/proc/{worker}/mountinfo")).unwrap();
    let mounts = mounts.lines().filter(|l| l.contains(node.dir.path().to_str().unwrap())).count();
    let groups = cgroup_folders(&format!("{}/c", node.cgroup)).len();
    let folders = count(node.run.containers().to_str().unwrap());
    [fds(worker), fds(guard), children(worker), children(guard), mounts, groups, folders]
}

/// Start, end, remove, over and over: no descriptor, process, mount, cgroup or memory more than before. Ten thousand of them:
/// `MOTE_CYCLES=10000 cargo test --release -p mote-runtime --test keeper cycles`.
#[test]
fn cycles_leave_nothing() {
    let cycles = std::env::var("MOTE_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(150usize);
    let mut node = Node::new("cycles");
    let cycle = |node: &mut Node, n: usize| {
        let mut container = node.container("c", "");
        container.process.args = vec!["true".into()];
        node.start(container).unwrap();
        assert_eq!(node.exit("c").code, 0, "cycle {n}");
        node.client.call(Request::Remove { id: "c".into() }).unwrap();
        let _ = std::fs::remove_file(node.log("c"));
    };
    (0..50).for_each(|n| cycle(&mut node, n));
    let (worker, guard) = pair(&node.run);
    let (before, rss_before) = (held_by(&node, worker, guard), [worker, guard].map(|pid| memory_kib(pid, "Rss")));
    (0..cycles).for_each(|n| cycle(&mut node, n));
    let until = Instant::now() + *WAIT;
    let more = |now: &[usize; 7]| now.iter().zip(&before).any(|(now, before)| now > before);
    while more(&held_by(&node, worker, guard)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10)); // the guard lets go of the last FIFOs a moment later
    }
    let now = held_by(&node, worker, guard);
    assert!(!more(&now), "descriptors, children, mounts, cgroups, folders: {before:?} -> {now:?}");
    let rss = [worker, guard].map(|pid| memory_kib(pid, "Rss"));
    println!("{cycles} cycles: RSS of worker and guard {rss_before:?} -> {rss:?} KiB");
    for (before, now) in rss_before.iter().zip(rss) {
        assert!(now <= before + 64, "{before} -> {now} KiB after {cycles} cycles");
    }
}

/// `MOTE_CONTAINERS=200` prints what a node full of containers costs.
#[test]
fn a_container_costs_the_keeper_little() {
    let containers = std::env::var("MOTE_CONTAINERS").ok().and_then(|n| n.parse().ok()).unwrap_or(20usize);
    let mut node = Node::new("many");
    node.start(node.container("first", "exec sleep 1000")).unwrap();
    let (worker, guard) = pair(&node.run);
    let own = |field| memory_kib(worker, field) + memory_kib(guard, field);
    let (pss, dirty) = (own("Pss"), own("Private_Dirty"));
    for n in 0..containers {
        node.start(node.container(&format!("s{n}"), "exec sleep 1000")).unwrap();
    }
    let (pss_now, dirty_now) = (own("Pss"), own("Private_Dirty"));
    // PSS goes up and down with everybody who maps the same executable; dirty pages are ours alone.
    let grown = dirty_now.saturating_sub(dirty);
    println!("{containers} containers: keeper's PSS {pss} -> {pss_now} KiB, private dirty {dirty} -> {dirty_now} KiB");
    assert!(grown <= 64 + 8 * containers as u64, "{grown} KiB for {containers} containers");
}
