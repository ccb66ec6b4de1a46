//! Clients and containers that would hold the keeper up.

use crate::node::{Node, WAIT, cgroup_folders};
use mote_runtime::container::NamespaceKind;
use mote_runtime::keeper::protocol::*;
use mote_runtime::keeper::{self, Client};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[test]
fn a_slow_removal_holds_up_nobody() {
    let mut node = Node::new("slow");
    node.start(node.container("c1", "exit 0")).unwrap();
    assert_eq!(node.exit("c1").code, 0);
    // Deeper than anybody follows: cannot be removed while it is there.
    let group = cgroup_folders(&format!("{}/c1", node.cgroup)).remove(0);
    let deep: Vec<PathBuf> = (1..40).map(|n| group.join(vec!["d"; n].join("/"))).collect();
    deep.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut other = Client::connect(node.run.path()).unwrap();
    let remover = std::thread::spawn(move || (other.call(Request::Remove { id: "c1".into() }), Instant::now()));
    std::thread::sleep(Duration::from_millis(300));
    node.start(node.container("c2", "exit 3")).unwrap();
    let code = node.exit("c2").code;
    let listed = node.list().0.iter().any(|c| c.id == "c1");
    let refused = node.client.call(Request::Shutdown).map_err(|f| f.kind);
    let freed = Instant::now();
    // Once the deepest are gone the keeper may be quicker with the rest.
    deep.iter().rev().for_each(|folder| drop(std::fs::remove_dir(folder)));
    let (answer, at) = remover.join().unwrap();
    assert_eq!((code, listed, refused), (3, true, Err(FailureKind::Busy)));
    assert_eq!(answer, Ok(Reply::Done));
    assert!(at > freed, "answered before it was gone");
    assert!(cgroup_folders(&format!("{}/c1", node.cgroup)).is_empty() && !node.run.container("c1").exists());
    assert!(node.list().0.iter().all(|c| c.id != "c1"));
}

#[test]
fn hostile_clients_do_not_stop_it() {
    use std::io::{Read, Write};
    let node = Node::new("hostile");
    for bytes in [&b"\xff\xff\xff\xff junk"[..], b"\x03\0\0\0\x09\0\0", b"\x05\0\0\0\x02\0\x07\xff\xff"] {
        let mut stream = std::os::unix::net::UnixStream::connect(node.run.socket()).unwrap();
        stream.set_read_timeout(Some(*WAIT)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&answer);
        assert!(matches!(decoder.next_frame::<Message>(), Ok(Some(Message::Reply { reply: Reply::Failed(_), .. }))));
    }
    assert!(keeper::hello(node.run.path()).is_ok());
}

/// Of a container, but nobody's.
struct Survivor(i32);

impl Drop for Survivor {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0), Signal::SIGKILL); // it may have ended
    }
}

/// Without a PID namespace of its own: what it leaves behind writes faster than anybody reads, and without a group nobody finds it to end it.
#[test]
fn a_survivor_that_never_stops_talking_does_not_put_off_the_end() {
    let mut node = Node::new("survivor");
    for (id, group) in [("kept", true), ("free", false)] {
        let script =
            "busybox yes more than can be said & echo $! >&2; while [ ! -e /flag/up ]; do sleep 0.01; done; exit 7";
        let mut container = node.container(id, script);
        container.namespaces.retain(|n| n.kind != NamespaceKind::Pid);
        if !group {
            container.cgroup.path.clear();
        }
        node.start(container).unwrap();
        node.wait_for_line(id, "stdout F more than can be said");
        let until = Instant::now() + *WAIT;
        let pid = loop {
            match node.lines(id).iter().find_map(|line| line.strip_prefix("stderr F ")?.parse().ok()) {
                Some(pid) => break pid,
                None => assert!(Instant::now() < until, "no pid"),
            }
        };
        let _survivor = (!group).then(|| Survivor(pid));
        node.raise_flag(id);
        assert_eq!(node.exit(id).code, 7);
    }
    // Whether he is ever found with nothing to read is the scheduler's choice: the bound itself is tested where it stands.
    assert!(!node.said().contains("kept"), "{}", node.said());
}
