//! Conversations with a pod: exec, cp and port-forward, over WebSocket (kubectl 1.32, 1.36) and SPDY (1.20).

use std::process::Command;

use crate::harness::kubectl::RELEASES;
use crate::harness::{Kubectl, Node, Registry, http, until};

/// Listens on the pod's loopback alone.
fn listener(registry: &Registry) -> String {
    let command = "mkdir /pages; echo within > /pages/index.html; exec httpd -f -p 127.0.0.1:8080 -h /pages";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: listener\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {}\n    command: [sh, -c, '{command}']\n",
        registry.image("busybox")
    )
}

fn each_release(test: impl Fn(&Node, &Kubectl)) {
    let registry = Registry::with_images();
    let node = Node::up();
    let first = Kubectl::new(RELEASES[0], &node.kubeconfig(), node.dir.path());
    first.apply(&listener(&registry));
    first.ok(&["wait", "--for=condition=Ready", "pod/listener", "--timeout=30s"]);
    for release in RELEASES {
        eprintln!("kubectl {release}");
        test(&node, &Kubectl::new(release, &node.kubeconfig(), node.dir.path()));
    }
}

#[test]
fn exec_carries_output_input_and_the_exit_code() {
    each_release(|node, kubectl| {
        let both = kubectl.answer(&["exec", "listener", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], "");
        assert!(!both.ok && both.stdout == "out\n" && both.stderr.contains("err\n"), "{}{}", both.stdout, both.stderr);
        assert!(both.stderr.contains("exit code 3"), "{}", both.stderr);
        let input = "0123456789".repeat(100_000);
        let counted = kubectl.ok_with(&["exec", "-i", "listener", "--", "wc", "-c"], &input);
        assert_eq!(counted.trim(), "1000000", "all input comes, then its end");
        let long = kubectl.ok(&["exec", "listener", "--", "sh", "-c", "yes 0123456 | head -c 2000000"]);
        assert_eq!(long.len(), 2_000_000);
        let missing = kubectl.fails(&["exec", "listener", "--", "no-such-program"], "");
        assert!(missing.contains("no-such-program") && missing.contains("not found"), "{missing}");
        let stranger = kubectl.fails(&["exec", "listener", "-c", "other", "--", "true"], "");
        assert!(stranger.contains("other"), "{stranger}");
        let (kubeconfig, home) = (node.kubeconfig(), node.dir.path().join("terminal"));
        let typed = format!("{} exec -it listener -- sh -c 'tty; exit 5'", kubectl.program().display());
        let terminal = Command::new("script")
            .args(["-qec", &typed, "/dev/null"])
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", home)
            .output()
            .expect("run script (package bsdutils)");
        let shown = String::from_utf8_lossy(&terminal.stdout).into_owned();
        assert!(shown.contains("/dev/pts/"), "a terminal of the container's own: {shown}");
        assert_eq!(terminal.status.code(), Some(5), "{shown}");
    });
}

#[test]
fn files_are_copied_in_and_out() {
    each_release(|node, kubectl| {
        let (there, back) = (node.dir.path().join("there"), node.dir.path().join("back"));
        let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&there, &bytes).expect("write a file");
        kubectl.ok(&["cp", &there.display().to_string(), "listener:/tmp/copy"]);
        kubectl.ok(&["cp", "listener:/tmp/copy", &back.display().to_string()]);
        assert!(std::fs::read(&back).expect("the copy's copy") == bytes);
        std::fs::remove_file(back).expect("remove the copy");
    });
}

#[test]
fn ports_are_forwarded_into_the_pod() {
    each_release(|node, kubectl| {
        let log = node.dir.path().join("forward");
        let forward = kubectl.start(&["port-forward", "pod/listener", ":8080"], &log);
        let port: u16 = until("port-forward listens", 20, || {
            let text = forward.so_far();
            text.split_once("127.0.0.1:")?.1.split(' ').next()?.parse().ok()
        });
        for _ in 0..3 {
            let page = until("the forwarded page", 10, || http::get("127.0.0.1", port, "/"));
            assert!(page.contains("within"), "{page}");
        }
    });
}
