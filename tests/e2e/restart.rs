//! Ends and new starts: of mote itself, of the keeper, of several nodes side by side.

use nix::sys::signal::Signal;

use crate::harness::node::{container, pod_ip, wait_http};
use crate::harness::{Node, Registry, machine, until};
use crate::shell;

const SERVER: &str = "echo started; exec httpd -f -p 8080 -h /www";

fn survives(signal: Signal) {
    let registry = Registry::with_images();
    let mut node = Node::up();
    node.kubectl().apply(&shell("web", &registry, SERVER));
    let before = node.wait_pod_ready("web", 20);
    node.stop(signal);
    assert!(wait_http(pod_ip(&before), 8080, "/").contains("busybox"), "the container goes on without mote");
    node.start();
    node.wait_ready();
    let after = node.wait_pod_ready("web", 20);
    for field in ["containerID", "restartCount"] {
        assert_eq!(
            container(&before)[field],
            container(&after)[field],
            "{field}: the container was adopted, not replaced"
        );
    }
    assert_eq!(pod_ip(&before), pod_ip(&after));
    assert_eq!(node.kubectl().ok(&["logs", "web"]), "started\n");
    node.kubectl().ok(&["delete", "pod", "web"]);
    node.wait_no_pods(5);
}

#[test]
fn containers_go_on_when_mote_is_stopped_and_are_adopted_by_the_next() {
    survives(Signal::SIGTERM);
}

#[test]
fn containers_go_on_when_mote_is_killed_and_are_adopted_by_the_next() {
    survives(Signal::SIGKILL);
}

#[test]
fn containers_go_on_when_the_keeper_is_killed() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&shell("web", &registry, SERVER));
    let before = node.wait_pod_ready("web", 20);
    let keeper = node.keeper_pid().expect("a keeper");
    machine::signal(keeper, Signal::SIGKILL);
    until("another keeper", 15, || node.keeper_pid().filter(|pid| *pid != keeper));
    assert!(wait_http(pod_ip(&before), 8080, "/").contains("busybox"));
    let after = node.wait_pod_ready("web", 20);
    assert_eq!(container(&before)["containerID"], container(&after)["containerID"]);
    node.kubectl().ok(&["delete", "pod", "web"]);
    node.wait_no_pods(10);
}

#[test]
fn an_exit_while_mote_was_away_is_not_lost() {
    let registry = Registry::with_images();
    let mut node = Node::up();
    let manifest =
        shell("brief", &registry, "sleep 3; echo bye; exit 7").replace("spec:\n", "spec:\n  restartPolicy: Never\n");
    node.kubectl().apply(&manifest);
    node.wait_pod_ready("brief", 20);
    node.stop(Signal::SIGKILL);
    std::thread::sleep(std::time::Duration::from_secs(4));
    node.start();
    node.wait_ready();
    let pod = node.wait_pod("brief", "Failed", 20, |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(container(&pod)["state"]["terminated"]["exitCode"], 7);
    assert_eq!(node.kubectl().ok(&["logs", "brief"]), "bye\n");
}

#[test]
fn two_nodes_live_side_by_side() {
    let registry = Registry::with_images();
    let (one, two) = (Node::up(), Node::up());
    for node in [&one, &two] {
        node.kubectl().apply(&shell("web", &registry, SERVER));
    }
    for node in [&one, &two] {
        let pod = node.wait_pod_ready("web", 20);
        assert!(wait_http(pod_ip(&pod), 8080, "/").contains("busybox"));
    }
    drop(one);
    let pod = two.wait_pod_ready("web", 5);
    assert!(wait_http(pod_ip(&pod), 8080, "/").contains("busybox"), "the end of one node does not touch the other");
}

#[test]
fn a_second_mote_on_the_same_data_is_refused() {
    let node = Node::up();
    let out = std::process::Command::new(crate::harness::mote()).args(node.arguments()).output().expect("mote up");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(said.contains(&node.data_dir().display().to_string()), "names the data folder: {said}");
}

#[test]
fn the_demo_serves_a_page_with_no_registry_and_ctrl_c_leaves_nothing() {
    let mut node = Node::up_with(&["--demo"]);
    let address = until("the address of the demo page", 30, || {
        let log = node.log();
        let found = log.split_whitespace().find(|word| word.starts_with("http://"))?;
        Some(found.trim_start_matches("http://").trim_end_matches('/').to_owned())
    });
    let (host, port) =
        address.rsplit_once(':').map_or((address.as_str(), 80), |(host, port)| (host, port.parse().expect("port")));
    assert!(wait_http(host, port, "/").contains("mote"));
    node.stop(Signal::SIGINT);
    crate::harness::eventually(3, || node.traces.all().is_empty().then_some(())); // the keeper is about to end
    assert_eq!(node.traces.all(), Vec::<String>::new(), "left by Ctrl-C of the demo");
}

/// As `mote up | head -1` leaves it.
#[test]
fn nobody_has_to_listen_to_what_it_says() {
    let mut node = Node::prepared(&[]);
    node.start_unheard();
    node.wait_ready();
    let ended = node.stop(Signal::SIGTERM);
    assert!(ended.success(), "{ended}");
}
