//! Keepers that follow keepers: killed ones, newer binaries, other protocols.

use crate::node::{Node, WAIT, exe, kill, pair};
use mote_runtime::keeper;
use mote_runtime::keeper::protocol::*;
use std::time::{Duration, Instant};

#[test]
fn the_container_outlives_its_keeper() {
    let mut node = Node::new("outlives");
    let script =
        "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); [ -e /flag/up ] && break; sleep 0.01; done; exit 5";
    let started = node.start(node.container("c1", script)).unwrap();
    node.wait_for_line("c1", "stdout F line 20");
    node.replace_keeper();
    let (containers, _) = node.list();
    assert_eq!((containers[0].pid, &containers[0].state), (started.pid, &State::Running));
    node.wait_for_line("c1", "stdout F line 60");
    node.raise_flag("c1");
    let exit = node.exit("c1");
    assert_eq!((exit.code, exit.note.as_str()), (5, ""));
    let numbers: Vec<usize> =
        node.lines("c1").iter().filter_map(|l| l.strip_prefix("stdout F line ")?.parse().ok()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line lost, none twice");
    node.replace_keeper();
    assert_eq!(node.list().0[0].state, State::Exited(exit));
}

#[test]
fn two_keepers_on_one_folder_are_refused() {
    let node = Node::new("two");
    let pid = keeper::hello(node.run.path()).unwrap();
    assert_eq!(keeper::spawn(&exe(), node.run.path()).unwrap(), pid, "found, not made");
    let second = std::process::Command::new(exe()).arg("keeper").arg("--dir").arg(node.run.path()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another keeper"), "{second:?}");
}

#[test]
fn an_end_between_two_workers_is_told() {
    let mut node = Node::new("between");
    node.start(node.container("c1", "echo first; while [ ! -e /flag/up ]; do sleep 0.01; done; echo last; exit 9"))
        .unwrap();
    node.wait_for_line("c1", "stdout F first");
    let (worker, guard) = pair(&node.run);
    // The guard is stopped, so that nobody starts a worker until the container is gone.
    kill(guard, nix::sys::signal::Signal::SIGSTOP);
    kill(worker, nix::sys::signal::Signal::SIGKILL);
    node.raise_flag("c1");
    std::thread::sleep(Duration::from_millis(300));
    kill(guard, nix::sys::signal::Signal::SIGCONT);
    pair(&node.run);
    node.reconnect();
    let until = Instant::now() + *WAIT;
    let exit = loop {
        if let State::Exited(exit) = node.list().0[0].state.clone() {
            break exit;
        }
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((exit.code, exit.note.as_str()), (9, ""));
    assert_eq!(node.lines("c1"), ["stdout F first", "stdout F last"]);
}

#[test]
fn the_guard_is_replaced_without_a_break() {
    let mut node = Node::new("guard");
    node.start(node.container("c1", "while [ ! -e /flag/up ]; do sleep 0.01; done; echo last; exit 4")).unwrap();
    let (worker, guard) = pair(&node.run);
    kill(guard, nix::sys::signal::Signal::SIGKILL);
    let until = Instant::now() + *WAIT;
    while pair(&node.run) == (worker, guard) {
        assert!(Instant::now() < until);
    }
    let (next, its_guard) = pair(&node.run);
    assert_eq!(its_guard, worker, "the worker is the guard of its copy");
    assert_ne!(next, worker);
    // The same connection, never broken, hears of it.
    node.raise_flag("c1");
    let exit = node.exit("c1");
    assert_eq!((exit.code, exit.note.as_str()), (4, ""));
    assert_eq!(node.lines("c1"), ["stdout F last"]);
}

#[test]
fn a_newer_binary_takes_over() {
    let mut node = Node::new("upgrade");
    let newer = node.dir.path().join("newer");
    std::fs::copy(exe(), &newer).unwrap();
    node.start(
        node.container("c1", "i=0; while [ ! -e /flag/up ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 6"),
    )
    .unwrap();
    node.wait_for_line("c1", "stdout F line 5");
    let (worker, guard) = pair(&node.run);
    let broken = node.dir.path().join("broken");
    std::fs::write(&broken, "no program").unwrap();
    let now = keeper::replace(&newer, node.run.path()).unwrap();
    assert_ne!(now, worker);
    assert_eq!(std::fs::read_link(format!("/proc/{now}/exe")).unwrap(), newer);
    assert_eq!(pair(&node.run).1, guard, "in place, so the containers are still its children");
    // A binary that does not run changes nothing but the worker's pid.
    let after = keeper::replace(&broken, node.run.path()).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{after}/exe")).unwrap(), newer);
    node.reconnect();
    node.wait_for_line("c1", "stdout F line 30");
    node.raise_flag("c1");
    let exit = node.exit("c1");
    assert_eq!((exit.code, exit.note.as_str()), (6, ""));
    let lines = node.lines("c1");
    assert_eq!(lines, (0..lines.len()).map(|n| format!("stdout F line {n}")).collect::<Vec<_>>());
}

#[test]
fn another_version_is_told_and_replaced() {
    use std::io::{Read, Write};
    let node = Node::new("skew");
    // A call of tomorrow: the answer is a frame of today, whose version tomorrow's client can read.
    let mut stream = std::os::unix::net::UnixStream::connect(node.run.socket()).unwrap();
    stream.set_read_timeout(Some(*WAIT)).unwrap();
    stream.write_all(&[4, 0, 0, 0, 0xff, 0x7f, 8, 6]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer[4..6], VERSION.to_le_bytes(), "every frame says who speaks");
    let mut decoder = Decoder::default();
    decoder.push(&answer);
    match decoder.next_frame::<Message>() {
        Ok(Some(Message::Reply { reply: Reply::Failed(failure), .. })) => {
            assert_eq!(failure.kind, FailureKind::Version)
        }
        other => panic!("{other:?}"),
    }
    // And what does not depend on frames: the pid on file and a signal.
    let before = keeper::hello(node.run.path()).unwrap();
    assert_ne!(keeper::replace(&exe(), node.run.path()).unwrap(), before);
    assert!(keeper::replace(&exe(), &node.dir.path().join("nobody")).is_err());
}

/// Both of the keeper dead, the container ends in nobody's hands, and another keeper comes: the kernel still knows (from 6.15 on).
#[test]
fn a_witness_knows_what_no_keeper_saw() {
    let mut node = Node::new("witness");
    node.start(node.container("c1", "while [ ! -e /flag/up ]; do sleep 0.01; done; exit 44")).unwrap();
    let mut listed = node.list().0.remove(0);
    let witness = keeper::Witness::of(&listed).unwrap();
    assert!(keeper::Witness::of(&Listed { start_time: listed.start_time + 1, ..listed.clone() }).is_none());
    let (worker, guard) = pair(&node.run);
    // Stopped first, so that neither can follow the other.
    for signal in [nix::sys::signal::Signal::SIGSTOP, nix::sys::signal::Signal::SIGKILL] {
        kill(guard, signal);
        kill(worker, signal);
    }
    node.raise_flag("c1");
    let until = Instant::now() + *WAIT;
    while std::path::Path::new(&format!("/proc/{}", listed.pid)).exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
    keeper::spawn(&exe(), node.run.path()).unwrap();
    node.reconnect();
    listed = node.list().0.remove(0);
    let State::Exited(exit) = &listed.state else { panic!("{listed:?}") };
    assert_eq!(exit.code, 255);
    assert!(exit.note.starts_with("exit status lost"), "{exit:?}");
    witness.mend_listed(&mut listed);
    let State::Exited(exit) = listed.state else { panic!() };
    match kernel_tells_reaped_ends() {
        true => assert_eq!((exit.code, exit.note.as_str()), (44, "")),
        false => assert_eq!(exit.code, 255),
    }
}

/// Not a test but the keeper of protocol 1 that the next one replaces: one process, no file with its pid, no signal that it knows.
#[test]
fn as_a_keeper_of_protocol_1() {
    use std::io::{Read, Write};
    let Some(dir) = std::env::var_os("KEEPER_TEST_AS_OLD") else { return };
    let socket = std::path::Path::new(&dir).join(keeper::SOCKET);
    let _ = std::fs::remove_file(&socket);
    for stream in std::os::unix::net::UnixListener::bind(&socket).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(&[4, 0, 0, 0, 1, 0, 0, 0]);
    }
}

#[test]
fn a_keeper_of_protocol_1_is_succeeded() {
    let mut node = Node::new("old");
    node.start(node.container("c1", "while [ ! -e /flag/up ]; do sleep 0.01; done; echo last; exit 12")).unwrap();
    let (worker, guard) = pair(&node.run);
    for signal in [nix::sys::signal::Signal::SIGSTOP, nix::sys::signal::Signal::SIGKILL] {
        kill(guard, signal);
        kill(worker, signal);
    }
    std::fs::remove_file(node.run.pid()).unwrap();
    let until = Instant::now() + *WAIT;
    while std::os::unix::net::UnixStream::connect(node.run.socket()).is_ok() {
        assert!(Instant::now() < until, "both are dead");
    }
    let dead = keeper::replace(&exe(), node.run.path()).unwrap_err();
    assert!(dead.to_string().contains("none is running"), "{dead}");
    let old = |name: &str| {
        let exe = node.dir.path().join(name);
        std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        let mut command = std::process::Command::new(exe);
        command.args(["--exact", "adoption::as_a_keeper_of_protocol_1"]).env("KEEPER_TEST_AS_OLD", node.run.path());
        let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let until = Instant::now() + *WAIT;
        while std::os::unix::net::UnixStream::connect(node.run.socket()).is_err() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    };
    let mut stranger = old("stranger");
    let refused = keeper::spawn(&exe(), node.run.path()).map_err(|e| e.to_string());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(refused.as_ref().is_err_and(|e| e.contains("end it with the executable")), "{refused:?}");
    let mut child = old("mote-keeper");
    let spawned = keeper::spawn(&exe(), node.run.path());
    let _ = child.kill(); // it is dead already
    child.wait().unwrap();
    assert_ne!(spawned.unwrap(), child.id() as i32);
    node.reconnect();
    node.raise_flag("c1");
    let exit = node.exit("c1");
    assert_eq!((exit.code, exit.note.as_str()), (12, ""));
    assert_eq!(node.lines("c1"), ["stdout F last"]);
}

/// PIDFD_INFO_EXIT is of Linux 6.15.
fn kernel_tells_reaped_ends() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).take(2).map(|n| n.parse().unwrap_or(0)).collect();
    numbers >= vec![6, 15]
}
