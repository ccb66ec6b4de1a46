//! Kills at any moment, under load.

use crate::node::{Node, WAIT, kill, pair};
use mote_runtime::keeper::protocol::*;
use mote_runtime::keeper::{Client, RunDir};
use std::time::{Duration, Instant};

/// Lines of one stream put together again from whole and partial ones, of the live file and the rotated ones.
pub(crate) fn joined(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut joined = String::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (kind, rest) = (words.nth(2).unwrap_or_default(), words.next().unwrap_or_default());
        joined.push_str(rest);
        if kind == "F" {
            joined.push('\n');
        }
    }
    joined
}

/// One short container through whatever happens: its exit, or `None` if nobody acknowledged its start.
fn one_short(node: &mut Node, n: usize) -> Option<Exit> {
    let id = format!("short{n}");
    let code = n % 200;
    let started = node.start(node.container(&id, &format!("echo out {n}; exit {code}"))).is_ok();
    let until = Instant::now() + *WAIT;
    let mut exit = None;
    while exit.is_none() {
        assert!(Instant::now() < until, "{id}: {}", node.said());
        let Ok(Reply::List { containers, .. }) = node.client.call(Request::List) else {
            pair(&node.run);
            if let Ok(client) = Client::connect(node.run.path()) {
                node.client = client;
            }
            continue;
        };
        match containers.iter().find(|c| c.id == id).map(|c| &c.state) {
            Some(State::Exited(e)) => exit = Some(e.clone()),
            Some(_) => std::thread::sleep(Duration::from_millis(1)),
            None => {
                assert!(!started, "{id}: forgotten; {}", node.said());
                return None;
            }
        }
    }
    let _ = node.client.call(Request::Remove { id }); // a broken connection: the list at the end is short enough
    exit.filter(|_| started)
}

/// Kills worker or guard, over and over, under a logging load: no line lost or doubled, no exit code lost. Longer by `MOTE_KILL_SECONDS`; on slow machines rarer
/// by `MOTE_KILL_PAUSE_MS`, so that some starts are acknowledged.
#[test]
fn random_kills_lose_nothing() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let number = |name, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (seconds, pause_ms) = (number("MOTE_KILL_SECONDS", 5), number("MOTE_KILL_PAUSE_MS", 60));
    let mut node = Node::new("kills");
    let script = "i=0; while [ ! -e /flag/up ]; do n=0; while [ $n -lt 40 ]; do echo line $i of a container that has much to say; i=$((i+1)); \
        n=$((n+1)); done; sleep 0.002; done; exit 33";
    for n in 0..3 {
        node.start(node.container(&format!("long{n}"), script)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (run, mut shorts, mut told) = (RunDir::new(node.run.path()), 0, 0);
    let kills = [const { AtomicU32::new(0) }; 2];
    let each = || kills.each_ref().map(|k| k.load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut dice = 0x1234_5678_9abc_def0u64;
            while !stop.load(Ordering::Relaxed) {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                std::thread::sleep(Duration::from_micros(dice % (pause_ms * 1000)));
                let (worker, guard) = pair(&run);
                let which = usize::from(dice.is_multiple_of(3));
                kill([worker, guard][which], nix::sys::signal::Signal::SIGKILL);
                kills[which].fetch_add(1, Ordering::Relaxed);
                // Until the other has seen it: both at once is more than anybody promises.
                let until = Instant::now() + *WAIT;
                while pair(&run) == (worker, guard) && Instant::now() < until {}
            }
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        // A processor in software may take longer until everything has happened once.
        let enough = |told| told > 0 && each().iter().all(|kills| *kills > 0);
        while Instant::now() < until || !enough(told) && Instant::now() < until + *WAIT {
            if let Some(exit) = one_short(&mut node, shorts) {
                assert_eq!((exit.code, exit.note.as_str()), ((shorts % 200) as i32, ""), "short{shorts}");
                assert_eq!(node.lines(&format!("short{shorts}")), [format!("stdout F out {shorts}")]);
                told += 1;
            }
            shorts += 1;
        }
        stop.store(true, Ordering::Relaxed);
        killer.join().unwrap();
    });
    node.reconnect();
    let mut lines = 0;
    for n in 0..3 {
        let id = format!("long{n}");
        node.raise_flag(&id);
        let until = Instant::now() + *WAIT;
        let exit = loop {
            match node.list().0.into_iter().find(|c| c.id == id).map(|c| c.state) {
                Some(State::Exited(exit)) => break exit,
                _ => assert!(Instant::now() < until, "{id} does not end"),
            }
        };
        assert_eq!((exit.code, exit.note.as_str()), (33, ""));
        let text = joined(&node.log(&id));
        for (n, line) in text.lines().enumerate() {
            assert_eq!(line, format!("line {n} of a container that has much to say"), "{id}");
            lines += 1;
        }
    }
    let kills = each();
    println!(
        "{} workers and {} guards killed in {seconds} s: {lines} lines, {told} of {shorts} short containers acknowledged",
        kills[0], kills[1]
    );
    assert!(kills[0] > 0 && kills[1] > 0 && told > 0);
}
