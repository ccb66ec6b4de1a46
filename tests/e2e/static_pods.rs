//! Static pods: manifests in a folder, with and without a control plane.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{Node, Registry, machine, mote, until};
use crate::shell;

#[test]
fn a_static_pod_appears_as_a_mirror_pod_and_goes_with_its_file() {
    let registry = Registry::with_images();
    let manifests = tempfile::tempdir().expect("manifests");
    let file = manifests.path().join("web.yaml");
    fs::write(&file, shell("web", &registry, "exec httpd -f -p 8080 -h /www")).expect("manifest");
    let node = Node::up_with(&["--manifests", manifests.path().to_str().expect("UTF-8 path")]);
    let mirror = format!("web-{}", node.name);
    let pod = node.wait_pod_ready(&mirror, 20);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert!(annotations["kubernetes.io/config.mirror"].is_string());
    // Deleting the mirror does not end the pod: the file is the truth.
    node.kubectl().ok(&["delete", "pod", &mirror]);
    node.wait_pod_ready(&mirror, 20);
    fs::remove_file(&file).expect("remove the manifest");
    until("the mirror pod to go", 20, || node.kubectl().object("pod", &mirror).is_none().then_some(()));
    node.wait_no_pods(10);
}

#[test]
fn a_standalone_agent_runs_manifests_with_no_control_plane() {
    let registry = Registry::with_images();
    let node = Node::prepared(&[]);
    let manifests = node.dir.path().join("manifests");
    fs::create_dir(&manifests).expect("manifests");
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"alone"}},"spec":{{"hostNetwork":true,"containers":[{{"name":"main","image":"{}","command":["httpd","-f","-p","127.0.0.1:{}","-h","/www"]}}]}}}}"#,
        registry.image("busybox"),
        node.slot.port(5)
    );
    fs::write(manifests.join("alone.json"), json).expect("manifest");
    let log = fs::File::create(node.dir.path().join("agent.log")).expect("log");
    let mut agent = Command::new(mote())
        .args(["agent", "--standalone", "--node-name", &node.name, "--cgroup-parent", &node.traces.cgroup_parent])
        .args(["--cluster-cidr", &node.slot.cluster_cidr()])
        .arg("--data-dir")
        .arg(node.data_dir())
        .arg("--manifests")
        .arg(&manifests)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn()
        .expect("start mote agent");
    let page = crate::harness::eventually(20, || crate::harness::http::get("127.0.0.1", node.slot.port(5), "/"));
    machine::signal(agent.id().cast_signed(), Signal::SIGTERM);
    let ended = crate::harness::eventually(20, || agent.try_wait().expect("wait"));
    let _ = agent.kill();
    let _ = agent.wait();
    let down = Command::new(mote()).arg("down").arg("--data-dir").arg(node.data_dir()).output().expect("mote down");
    let left = node.traces.all();
    node.traces.remove_by_force();
    let said = fs::read_to_string(node.dir.path().join("agent.log")).unwrap_or_default();
    assert!(page.is_some_and(|page| page.contains("busybox")), "no page from the static pod; the agent said:\n{said}");
    assert!(ended.is_some(), "the agent did not end at SIGTERM:\n{said}");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(left, Vec::<String>::new(), "left behind; the agent said:\n{said}");
}
