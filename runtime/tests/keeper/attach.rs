//! Clients that talk to a container's first process.

use crate::kills::joined;
use crate::node::{Node, WAIT, kill, pair};
use mote_runtime::container::{Container, Log, Stdin, Stdio, Talk};
use mote_runtime::keeper::protocol::*;
use mote_runtime::keeper::session::{self, Attached};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{SysconfVar, sysconf};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

fn talking(node: &Node, id: &str, script: &str, stdin: Stdin, terminal: bool) -> Container {
    let log = Log { path: node.log(id), ..Log::default() };
    Container { stdio: Stdio::Talk(Talk { log, stdin, terminal }), ..node.container(id, script) }
}

fn attach(node: &Node, id: &str, stdin: bool) -> Attached {
    session::attach(&node.run, id, stdin).unwrap()
}

fn file(fd: &OwnedFd) -> File {
    fd.try_clone().unwrap().into()
}

fn say(to: &Attached, text: &str) {
    file(to.input.as_ref().unwrap()).write_all(text.as_bytes()).unwrap();
}

/// Reads until `text` has come, or (empty) until the end; all of it.
fn hear(from: &OwnedFd, text: &str) -> String {
    let (mut from, until, mut all, mut piece) = (file(from), Instant::now() + *WAIT, Vec::new(), [0; 4096]);
    loop {
        match from.read(&mut piece) {
            Ok(0) => {
                let all = String::from_utf8_lossy(&all).into_owned();
                assert!(text.is_empty(), "ended before {text:?}");
                return all;
            }
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Looking through megabytes again and again is too much for an emulated processor.
        if !text.is_empty() && String::from_utf8_lossy(&all).contains(text) {
            return String::from_utf8_lossy(&all).into_owned();
        }
        let begin = || String::from_utf8_lossy(all.get(..300).unwrap_or(&all)).into_owned();
        assert!(Instant::now() < until, "no {text:?} in {:?}", begin());
    }
}

#[test]
fn several_hear_and_talk_and_the_log_has_it_all() {
    let mut node = Node::new("attach");
    let script = "while read line; do echo got $line; echo err $line >&2; [ $line = stop ] && exit 5; done; exit 6";
    node.start(talking(&node, "c", script, Stdin::Open, false)).unwrap();
    let (first, second) = (attach(&node, "c", true), attach(&node, "c", false));
    assert!(!first.terminal && second.input.is_none());
    say(&first, "one\n");
    for client in [&first, &second] {
        assert_eq!(hear(&client.stdout, "\n"), "got one\n");
        assert_eq!(hear(&client.stderr, "\n"), "err one\n");
    }
    drop(first); // stdin stays open for the next
    let third = attach(&node, "c", true);
    say(&third, "two\nstop\n");
    assert_eq!(hear(&second.stdout, ""), "got two\ngot stop\n");
    assert_eq!(hear(&third.stderr, ""), "err two\nerr stop\n");
    assert_eq!(node.exit("c").code, 5);
    let mut lines = node.lines("c");
    lines.sort();
    let wanted = ["one", "stop", "two"].map(|w| [format!("stderr F err {w}"), format!("stdout F got {w}")]);
    let mut wanted = wanted.concat();
    wanted.sort();
    assert_eq!(lines, wanted);
    assert_eq!(session::attach(&node.run, "c", true).err().unwrap().kind, FailureKind::Busy);
    assert_eq!(session::attach(&node.run, "nobody", true).err().unwrap().kind, FailureKind::NotFound);
}

#[test]
fn stdin_once_ends_with_its_first_holder() {
    let mut node = Node::new("once");
    node.start(talking(&node, "c", "cat; echo end; exit 3", Stdin::Once, false)).unwrap();
    let first = attach(&node, "c", true);
    say(&first, "text\n");
    assert_eq!(hear(&first.stdout, "\n"), "text\n");
    let second = attach(&node, "c", true);
    assert!(second.input.is_none(), "it is given away");
    node.replace_keeper();
    say(&first, "more\n");
    assert_eq!(hear(&second.stdout, "more\n"), "more\n", "the new worker goes on with both");
    drop(first);
    assert_eq!(hear(&second.stdout, ""), "end\n");
    assert_eq!(node.exit("c").code, 3);
    // Without stdin there is nothing to read.
    node.start(talking(&node, "none", "cat; exit 4", Stdin::None, false)).unwrap();
    assert_eq!(node.exit("none").code, 4);
}

#[test]
fn a_terminal_and_its_keepers() {
    let mut node = Node::new("terminal");
    let script =
        "tty; while read line; do echo got $line; [ $line = size ] && stty size; [ $line = stop ] && exit 8; done";
    node.start(talking(&node, "c", script, Stdin::Open, true)).unwrap();
    let until = Instant::now() + *WAIT;
    while joined(&node.log("c")) != "/dev/pts/0\n" {
        assert!(Instant::now() < until, "{:?}", node.lines("c"));
        std::thread::sleep(Duration::from_millis(5));
    }
    let client = attach(&node, "c", true);
    assert!(client.terminal);
    session::resize(client.input.as_ref().unwrap().as_fd(), 33, 77).unwrap();
    say(&client, "size\n");
    assert!(hear(&client.stdout, "33 77\r\n").contains("got size\r\n"));
    node.replace_keeper();
    say(&client, "again\n");
    hear(&client.stdout, "got again\r\n");
    // A worker that becomes the guard keeps it as well, and so does a newer binary.
    let (worker, guard) = pair(&node.run);
    kill(guard, nix::sys::signal::Signal::SIGKILL);
    let until = Instant::now() + *WAIT;
    while pair(&node.run) == (worker, guard) {
        assert!(Instant::now() < until);
    }
    node.replace_keeper();
    mote_runtime::keeper::replace(&crate::node::exe(), node.run.path()).unwrap();
    node.reconnect();
    let next = attach(&node, "c", true);
    say(&next, "stop\n");
    assert!(hear(&client.stdout, "").ends_with("got stop\r\n"));
    assert!(hear(&next.stdout, "").ends_with("got stop\r\n"));
    let exit = node.exit("c");
    assert_eq!((exit.code, exit.note.as_str()), (8, ""));
    let log = joined(&node.log("c"));
    assert!(log.lines().any(|line| line == "got again"), "{log:?}");
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_container_goes_on() {
    let mut node = Node::new("stalls");
    let container = talking(&node, "c", "read count; seq $count; exit 2", Stdin::Open, false);
    node.start(container).unwrap();
    let (lazy, keen) = (attach(&node, "c", true), attach(&node, "c", false));
    // More than FIFO (16 pages), pipe and what has been read hold together; a line is five digits and an end.
    fcntl(&lazy.stdout, FcntlArg::F_SETPIPE_SZ(1)).unwrap();
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap() as usize;
    let count = 20_000 + 20 * page_bytes / 6;
    say(&lazy, &format!("{count}\n"));
    let heard = std::thread::scope(|scope| {
        let keen = scope.spawn(|| hear(&keen.stdout, ""));
        assert_eq!(node.exit("c").code, 2);
        keen.join().unwrap()
    });
    assert_eq!(heard.lines().count(), count);
    assert!(heard.ends_with(&format!("\n{count}\n")));
    assert!(joined(&node.log("c")) == heard, "the log has the same");
    assert!(hear(&lazy.stdout, "").len() < heard.len(), "what it had not read when it was dropped is lost to it");
}

#[test]
fn a_program_that_closes_its_output_costs_nothing() {
    let mut node = Node::new("closed");
    node.start(node.container("c", "exec >&- 2>&-; while [ ! -e /flag/up ]; do sleep 0.05; done; exit 1")).unwrap();
    node.start(talking(
        &node,
        "t",
        "exec <&- >&- 2>&-; while [ ! -e /flag/up ]; do sleep 0.05; done; exit 1",
        Stdin::Open,
        true,
    ))
    .unwrap();
    let worker = pair(&node.run).0;
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        let fields: Vec<u64> =
            text.rsplit_once(')').unwrap().1.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        fields[10] + fields[11]
    };
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before < 20, "a hundredth of a second each: it spins");
    for id in ["c", "t"] {
        node.raise_flag(id);
        assert_eq!(node.exit(id).code, 1);
    }
}

#[test]
fn hostile_attaching() {
    let mut node = Node::new("attachers");
    node.start(talking(&node, "c", "read x; exit 7", Stdin::Open, false)).unwrap();
    let bare = node.client.call(Request::Attach(Attach { id: "c".into(), stdin: true })).unwrap_err();
    assert_eq!(bare.kind, FailureKind::Invalid, "{bare}");
    let all: Vec<Attached> = (0..16).map(|_| attach(&node, "c", true)).collect();
    assert_eq!(session::attach(&node.run, "c", true).err().unwrap().kind, FailureKind::Limit);
    drop(all);
    let until = Instant::now() + *WAIT;
    let again = loop {
        match session::attach(&node.run, "c", true) {
            Ok(client) => break client,
            Err(e) => assert!(e.kind == FailureKind::Limit && Instant::now() < until, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    say(&again, "x\n");
    assert_eq!(node.exit("c").code, 7);
}
