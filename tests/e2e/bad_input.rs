//! Bad input: a clear error where the user looks, nothing half-made left, no panic.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::node::container;
use crate::harness::{Node, Registry, mote};
use crate::{pod, shell};

#[test]
fn manifests_that_are_wrong_are_refused_with_the_place() {
    let registry = Registry::with_images();
    let node = Node::up();
    let kubectl = node.kubectl();
    let refuse = |input: &str, part: &str| {
        let said = kubectl.fails(&["create", "-f", "-"], input);
        assert!(said.contains(part), "expected {part:?} in {said:?} for\n{input}");
    };
    let good = shell("good", &registry, "true");
    refuse("{not yaml", "error parsing");
    refuse(&good.replace("kind: Pod", "kind: Pot"), "no matches for kind \"Pot\"");
    refuse(&good.replace("    image:", "    imagee:"), "unknown field \"spec.containers[0].imagee\"");
    refuse(&good.replace("name: good\n", "name: Not_A_Label\n"), "RFC 1123");
    refuse(&good.replace("  - name: main\n", "  - name: UPPER\n"), "spec.containers[0].name");
    refuse("apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n", "spec.containers");
    refuse(&good.replace("    image:", "    ports: [{containerPort: 99999}]\n    image:"), "containerPort");
    refuse(&good.replace("    image:", "    resources: {limits: {memory: lots}}\n    image:"), "quantit");
    assert_eq!(kubectl.objects("pods", "").len(), 0, "nothing was made");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": "no list"}});
    refuse(&list.to_string(), "containers");
    // Past kubectl, the API itself: broken JSON and a body that is too large.
    let said = kubectl.fails(&["create", "--raw", "/api/v1/namespaces/default/pods", "-f", "-"], "{\"kind\": ");
    assert!(!said.contains("panic"), "{said}");
    let large = format!(
        "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"big\"}},\"data\":{{\"x\":\"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    kubectl.fails(&["create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", "-"], &large);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn creating_twice_says_already_exists() {
    let registry = Registry::with_images();
    let node = Node::up();
    let manifest = shell("one", &registry, "sleep 100");
    node.kubectl().ok_with(&["create", "-f", "-"], &manifest);
    let said = node.kubectl().fails(&["create", "-f", "-"], &manifest);
    assert!(said.contains("AlreadyExists") && said.contains("pods \"one\" already exists"), "{said}");
}

fn waiting<'a>(pod: &'a Value, field: &str) -> &'a str {
    container(pod)["state"]["waiting"][field].as_str().unwrap_or("")
}

#[test]
fn an_image_that_does_not_exist_is_reported_with_the_registrys_reason() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&pod("one", &format!("{}/nothing:1", registry.address()), ""));
    node.wait_pod("one", "ErrImagePull", 20, |pod| {
        waiting(pod, "reason") == "ErrImagePull" || waiting(pod, "reason") == "ImagePullBackOff"
    });
    let pod = node.wait_pod("one", "ImagePullBackOff", 30, |pod| waiting(pod, "reason") == "ImagePullBackOff");
    let message = waiting(&pod, "message").to_owned();
    let events = node.kubectl().ok(&["get", "events", "-o", "json"]);
    assert!(events.contains("manifest unknown") || message.contains("manifest unknown"), "{message}\n{events}");
    node.kubectl().ok(&["delete", "pod", "one"]);
    node.wait_no_pods(5);
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let node = Node::up();
    node.kubectl().apply(&pod("one", "127.0.0.1:9/nothing:1", ""));
    node.wait_pod("one", "ImagePullBackOff", 40, |pod| waiting(pod, "reason") == "ImagePullBackOff");
    let events = node.kubectl().ok(&["get", "events", "-o", "json"]);
    assert!(events.contains("127.0.0.1:9") && events.contains("refused"), "{events}");
}

#[test]
fn an_image_for_another_architecture_is_refused_in_plain_words() {
    let other = if std::env::consts::ARCH == "s390x" { "amd64" } else { "s390x" };
    let registry = Registry::empty();
    registry.push("busybox", &["--platform", &format!("linux/{other}")]);
    let node = Node::up();
    node.kubectl().apply(&pod("one", &registry.image("busybox"), "    command: [sleep, '100']\n"));
    node.wait_pod("one", "ImagePullBackOff", 40, |pod| waiting(pod, "reason") == "ImagePullBackOff");
    let events = node.kubectl().ok(&["get", "events", "-o", "json"]);
    assert!(events.contains(&format!("linux/{other}")), "names what the image is for: {events}");
    assert!(!events.contains("exec format error"), "{events}");
}

#[test]
fn a_corrupt_layer_is_refused_and_leaves_nothing_in_the_store() {
    let registry = Registry::empty();
    registry.push("busybox", &[]);
    corrupt_largest_blob(&registry.storage());
    let node = Node::up();
    node.kubectl().apply(&pod("one", &registry.image("busybox"), "    command: [sleep, '100']\n"));
    node.wait_pod("one", "ImagePullBackOff", 60, |pod| waiting(pod, "reason") == "ImagePullBackOff");
    let events = node.kubectl().ok(&["get", "events", "-o", "json"]);
    assert!(events.contains("sha256:"), "names the layer: {events}");
    let data_dir = node.data_dir();
    let list = crate::harness::run(
        mote().to_str().expect("UTF-8"),
        &["image", "ls", "--data-dir", data_dir.to_str().expect("UTF-8")],
    );
    assert!(!list.contains("busybox"), "{list}");
}

/// Flips bytes in the middle of the largest file below a registry's folder: a layer.
fn corrupt_largest_blob(storage: &std::path::Path) {
    let list = crate::harness::run("find", &[storage.to_str().expect("UTF-8"), "-name", "data", "-size", "+100k"]);
    let path = list.lines().next().expect("a large blob");
    let mut bytes = std::fs::read(path).expect("blob");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x55);
    std::fs::write(path, bytes).expect("blob");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&pod("one", &registry.image("busybox"), "    command: [/no/such/program]\n"));
    let told = |pod: &Value| {
        let status = container(pod);
        let texts = [&status["state"]["waiting"], &status["state"]["terminated"], &status["lastState"]["terminated"]];
        texts.iter().any(|state| state["message"].as_str().is_some_and(|m| m.contains("/no/such/program")))
    };
    node.wait_pod("one", "told about its command", 30, told);
    assert!(!node.log().contains("panicked"));
}

#[test]
fn without_root_it_says_so() {
    crate::harness::need("setpriv", "util-linux");
    let program = tempfile::tempdir().expect("folder");
    let copy = program.path().join("mote");
    std::fs::copy(mote(), &copy).expect("copy");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(program.path(), mode).expect("mode");
    let out = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["up", "--data-dir"])
        .arg(program.path().join("data"))
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("root"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(!program.path().join("data").exists(), "nothing half-made");
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_half_made() {
    let registry = Registry::with_images();
    let disk = tempfile::Builder::new().prefix("mote-e2e-disk-").tempdir().expect("folder");
    let point = disk.path().to_str().expect("UTF-8").to_owned();
    // In a mount namespace of its own: nothing to clean up. The debian image does not fit into 24 MB.
    let script = format!(
        "mount -t tmpfs -o size=24m tmpfs {point} && {mote} image pull --data-dir {point} {image}; echo status $?; find {point} -type f -size +1M | wc -l",
        mote = mote().display(),
        image = registry.image("debian"),
    );
    let out = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(stdout.contains("status 1\n0\n"), "{stdout}{stderr}");
    assert!(stderr.to_lowercase().contains("no space left"), "{stderr}");
}

#[test]
fn wrong_command_lines_are_explained() {
    for (args, part) in [
        (&["upp"][..], "upp"),
        (&["up", "--no-such-flag"], "no-such-flag"),
        (&["up", "--listen", "nonsense"], "nonsense"),
        (&["up", "--cluster-cidr", "10.0.0.0/99"], "10.0.0.0/99"),
    ] {
        let out = std::process::Command::new(mote()).args(args).output().expect("mote");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

#[test]
fn check_says_what_this_machine_lacks() {
    let out = std::process::Command::new(mote()).arg("check").output().expect("mote check");
    let said = String::from_utf8_lossy(&out.stdout);
    for word in ["overlay", "cgroup", "nf_tables"] {
        assert!(said.contains(word), "{word} is not mentioned: {said}");
    }
    // Where the kernel's cgroups are hidden, it says so and fails.
    let hidden = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("mount -t tmpfs none /sys/fs/cgroup; {} check", mote().display())])
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&hidden.stdout);
    assert!(!hidden.status.success() && said.contains("cgroup"), "{said}");
}

/// Nobody reads what a command prints: it ends as C programs do. A full disk cannot take it: that is an error, in one line.
#[test]
fn what_cannot_be_printed_is_no_panic() {
    let data = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", data.path().display());
    for words in [&["--help"][..], &["version"], &["check"], &["image", "list", &data], &["image", "df", &data]] {
        let with = |stdout: Stdio| {
            let mut command = Command::new(mote());
            command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
            command.spawn().unwrap().wait_with_output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unheard = with(writer.into());
        assert!(unheard.status.signal() == Some(libc::SIGPIPE) && unheard.stderr.is_empty(), "{words:?}: {unheard:?}");
        let full = with(std::fs::File::options().write(true).open("/dev/full").unwrap().into());
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert!(full.status.code() == Some(1) && said.contains("No space left on device"), "{words:?}: {full:?}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}
