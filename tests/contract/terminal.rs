//! Terminals: by a console socket, and of the runtime's own.
use super::*;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// The descriptor a runtime sends to a console socket.
fn receive(listener: &UnixListener) -> std::fs::File {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + WAIT;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(Instant::now() < until, "nobody connected to the console socket"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut text = [0u8; 4096];
    let mut slices = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).unwrap();
    let fd = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    std::fs::File::from(owned(fd.expect("a descriptor")))
}

#[allow(unsafe_code)]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads until `word` came, or the other end closed.
fn read_until(master: &mut std::fs::File, word: &str) -> String {
    let mut said = String::new();
    let mut buffer = [0u8; 1024];
    while !said.contains(word) {
        match master.read(&mut buffer) {
            Ok(count) if count > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..count])),
            _ => break,
        }
    }
    said
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let mut bundle = Bundle::new(
        "tty; stty size; [ /dev/console -ef /proc/self/fd/0 ] && echo console; read x; echo got $x; exit 0",
    );
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    let path = bundle.dir.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.ok(&["create", "--console-socket", "console", "ID"]);
    let mut master = receive(&listener);
    bundle.ok(&["start", "ID"]);
    let said = read_until(&mut master, "console");
    assert!(said.contains("/dev/pts/0") || said.contains("/dev/console"), "{said}");
    assert!(said.contains("33 77"), "{said}");
    master.write_all(b"typed\n").unwrap();
    let said = read_until(&mut master, "got typed");
    assert!(said.contains("got typed"), "{said}");
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID"]);
    bundle.nothing_left();
}

#[test]
fn control_c_reaches_the_foreground_program() {
    let mut bundle = Bundle::new("trap 'echo interrupted; exit 0' INT; echo ready; while true; do sleep 0.05; done");
    bundle.config["process"]["terminal"] = json!(true);
    let path = bundle.dir.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.ok(&["create", "--console-socket", "console", "ID"]);
    let mut master = receive(&listener);
    bundle.ok(&["start", "ID"]);
    read_until(&mut master, "ready");
    master.write_all(&[3]).unwrap();
    assert!(read_until(&mut master, "interrupted").contains("interrupted"));
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID"]);
}

#[test]
fn a_detached_terminal_needs_a_socket() {
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["terminal"] = json!(true);
    assert!(!bundle.call(&["create", "ID"]).status.success());
    bundle.nothing_left();
}

#[test]
fn an_exec_may_have_a_terminal() {
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    let process = json!({"terminal": true, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
        "args": ["sh", "-c", "tty; echo done"]});
    std::fs::write(bundle.dir.path().join("process.json"), process.to_string()).unwrap();
    let listener = UnixListener::bind(bundle.dir.path().join("console")).unwrap();
    bundle.ok(&["exec", "--detach", "--process", "process.json", "--console-socket", "console", "ID"]);
    let said = read_until(&mut receive(&listener), "done");
    assert!(said.contains("/dev/pts/") && said.contains("done"), "{said}");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn a_run_in_the_foreground_is_shown_and_typed_to() {
    let mut bundle = Bundle::new("tty; read x; echo got $x; exit 6");
    bundle.config["process"]["terminal"] = json!(true);
    let mut command = bundle.command(&["run", "ID"]);
    let mut inner = vec![command.get_program().to_string_lossy().into_owned()];
    inner.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let line: Vec<String> = inner.iter().map(|w| format!("'{}'", w.replace('\'', "'\\''"))).collect();
    let mut child = Command::new("script")
        .args(["-qec", &line.join(" "), "/dev/null"])
        .current_dir(bundle.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("needs script(1) of bsdutils");
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("/dev/pts/0") && said.contains("got typed"), "{said}");
    assert_eq!(output.status.code(), Some(6), "{said}");
    command.env_clear();
    bundle.nothing_left();
}

/// With a terminal of its own on the way: it is bound over /dev/console, and over nothing that an image makes of that name.
#[test]
fn cve_2025_52565_a_terminal_is_bound_over_no_link_of_the_image() {
    for target in ["/proc/sysrq-trigger", "/data/target", "../data/target"] {
        let mut bundle = Bundle::new(
            "grep -c ' /dev/console ' /proc/self/mountinfo; grep devpts /proc/self/mountinfo; echo end; read x",
        );
        std::fs::write(bundle.rootfs("data/target"), "untouched").unwrap();
        std::os::unix::fs::symlink(target, bundle.rootfs("dev/console")).unwrap();
        // /dev is the image's own.
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| !["/dev", "/dev/shm"].contains(&m["destination"].as_str().unwrap()));
        bundle.config["process"]["terminal"] = json!(true);
        let listener = UnixListener::bind(bundle.dir.path().join("console")).unwrap();
        let created = bundle.call(&["create", "--console-socket", "console", "ID"]);
        if created.status.success() {
            let mut master = receive(&listener);
            bundle.ok(&["start", "ID"]);
            let said = read_until(&mut master, "end");
            let astray: Vec<&str> = said.lines().filter(|l| l.contains(" /proc") || l.contains(" /data")).collect();
            assert_eq!(astray, Vec::<&str>::new(), "{target}: {said}");
        }
        assert_eq!(std::fs::read_to_string(bundle.rootfs("data/target")).unwrap(), "untouched", "{target}");
        let _ = bundle.call(&["delete", "--force", "ID"]);
        bundle.nothing_left();
    }
}
