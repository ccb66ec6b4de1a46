//! Conversations with a pod: exec, attach, run -it, debug, cp and port-forward, over WebSocket (kubectl 1.32, 1.36) and SPDY (1.20).

use std::io::Write;
use std::process::{Command, Output, Stdio};

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

/// Calls `test` with the node, each kubectl, and an image for more pods.
fn each_release(test: impl Fn(&Node, &Kubectl, &str)) {
    let registry = Registry::with_images();
    let node = Node::up();
    let first = Kubectl::new(RELEASES[0], &node.kubeconfig(), node.dir.path());
    first.apply(&listener(&registry));
    first.ok(&["wait", "--for=condition=Ready", "pod/listener", "--timeout=30s"]);
    for release in RELEASES {
        eprintln!("kubectl {release}");
        test(&node, &Kubectl::new(release, &node.kubeconfig(), node.dir.path()), &registry.image("busybox"));
    }
}

/// What kubectl says on a terminal of 80 columns where `input` is typed.
fn typed(node: &Node, kubectl: &Kubectl, line: &str, input: &str) -> Output {
    let mut terminal = Command::new("script")
        .args(["-qec", &format!("{} {line}", kubectl.program().display()), "/dev/null"])
        .env("KUBECONFIG", node.kubeconfig())
        .env("HOME", node.dir.path().join("terminal"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run script (package bsdutils)");
    terminal.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
    terminal.wait_with_output().expect("script")
}

#[test]
fn exec_carries_output_input_and_the_exit_code() {
    each_release(|node, kubectl, _| {
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
        let terminal = typed(node, kubectl, "exec -it listener -- sh -c 'tty; exit 5'", "");
        let shown = String::from_utf8_lossy(&terminal.stdout).into_owned();
        assert!(shown.contains("/dev/pts/"), "a terminal of the container's own: {shown}");
        assert_eq!(terminal.status.code(), Some(5), "{shown}");
    });
}

#[test]
fn run_attaches_to_what_it_made() {
    each_release(|node, kubectl, image| {
        let args = [
            "run",
            "once",
            "-i",
            "--rm",
            "--restart=Never",
            "--image",
            image,
            "--",
            "sh",
            "-c",
            "cat; echo end of input; exit 3",
        ];
        let input = "0123456789\n".repeat(20_000);
        let answer = kubectl.answer(&args, &input);
        assert!(!answer.ok && answer.stdout.contains("end of input"), "{}{}", answer.stdout, answer.stderr);
        assert!(answer.stdout.len() > input.len(), "all of it comes back: {} bytes", answer.stdout.len());
        assert!(answer.stderr.contains("terminated (Error)"), "{}", answer.stderr);
        let line = format!(
            "run typed -it --rm --restart=Never --image {image} -- sh -c 'read x; tty; stty size; echo got $x; exit 0'"
        );
        let terminal = typed(node, kubectl, &line, "word\n");
        let shown = String::from_utf8_lossy(&terminal.stdout).into_owned();
        assert!(shown.contains("/dev/pts/") && shown.contains("got word"), "{shown}");
        assert!(terminal.status.success() && !shown.contains("falling back"), "{shown}");
        assert!(kubectl.objects("pods", "run").is_empty(), "both were removed");
    });
}

#[test]
fn attached_clients_share_what_runs() {
    each_release(|node, kubectl, image| {
        let command = "while read word; do echo heard $word; [ $word = stop ] && exit 7; done";
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: talker}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{image}', stdin: true, command: [sh, -c, '{command}']}}\n"
        ));
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=30s"]);
        let watcher = kubectl.start(&["attach", "talker"], &node.dir.path().join("watched"));
        // One who comes and goes without a word ends nothing: its input is not the program's.
        for word in ["one", "two"] {
            let log = node.dir.path().join(format!("attach-{word}"));
            let mut client = kubectl.start_with_input(&["attach", "-i", "talker"], &log);
            until("the program hears an attached client", 20, || {
                client.say(&format!("{word}\n"));
                client.so_far().contains(&format!("heard {word}")).then_some(())
            });
        }
        let last = kubectl.answer(&["attach", "-i", "talker"], "stop\n");
        assert!(last.ok && last.stdout.contains("heard stop"), "{}{}", last.stdout, last.stderr);
        until("the watcher sees all", 10, || watcher.so_far().contains("heard stop").then_some(()));
        let logs = kubectl.ok(&["logs", "talker"]);
        assert!(["one", "two", "stop"].iter().all(|word| logs.contains(&format!("heard {word}"))), "{logs}");
        let late = kubectl.fails(&["attach", "talker"], "");
        assert!(late.contains("completed pod"), "{late}");
        kubectl.ok(&["delete", "pod", "talker"]);
    });
}

#[test]
fn debug_joins_the_processes_of_its_target() {
    each_release(|_, kubectl, image| {
        if kubectl.program().to_string_lossy().contains("1.20") {
            return; // asks for an alpha API that is gone
        }
        let debug = [
            "debug",
            "listener",
            "--target=main",
            "-i",
            "--quiet",
            "--image",
            image,
            "--",
            "sh",
            "-c",
            "head -n 1; ps",
        ];
        let shown = kubectl.ok_with(&debug, "typed\n");
        assert!(shown.contains("httpd -f -p 127.0.0.1:8080") && shown.contains("typed"), "{shown}");
        let pod = kubectl.object("pod", "listener").expect("the pod");
        let states: Vec<_> = pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten().collect();
        assert!(!states.is_empty() && pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{pod}");
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/listener", "--timeout=10s"]);
    });
}

#[test]
fn files_are_copied_in_and_out() {
    each_release(|node, kubectl, _| {
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
    each_release(|node, kubectl, _| {
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
