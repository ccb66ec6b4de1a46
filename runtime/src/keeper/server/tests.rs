use super::*;
use crate::container::{Log, Stdio};
use crate::keeper::record::Record;
use crate::sys::allocations;
use std::io::Write;

/// Lines come and are logged, turn after turn, and nothing is made on the heap for it.
#[test]
fn a_turn_of_the_loop_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    let listener = UnixListener::bind(run.socket()).unwrap();
    let (link, _guard) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut server = Server::new(run, Layout::discover(), listener, Guard::new(link.into()), Kept::default()).unwrap();
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    for id in ["a", "b"] {
        let folder = server.dir.container(id);
        std::fs::create_dir(&folder).unwrap();
        let log = Log { path: dir.path().join(format!("{id}.log")), ..Log::default() };
        let stdio = super::super::stdio::Stdio::make(&folder, &Stdio::Log(log)).unwrap();
        let pidfd = sys::pidfd_open(sleeper.id() as i32).unwrap();
        let record = Record { id: id.into(), ..Record::default() };
        let phase = Phase::Running { pidfd, child: false };
        server.held.insert(id.into(), Held { id: id.into(), record, phase, stdio });
    }
    let mut fifo = std::fs::File::options().write(true).open(server.dir.container("b").join("out")).unwrap();
    let mut say = |server: &mut Server, turns: usize| {
        for _ in 0..turns {
            fifo.write_all(&b"a line of some length\n".repeat(100)).unwrap();
            server.turn().unwrap();
        }
    };
    say(&mut server, 3);
    let text = b"a line of some length\n".repeat(100);
    let before = allocations();
    drop(text.clone());
    assert_eq!(allocations() - before, 1, "it counts");
    let mut counted = 0;
    for _ in 0..50 {
        fifo.write_all(&text).unwrap();
        let before = allocations();
        server.turn().unwrap();
        counted += allocations() - before;
    }
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let lines = std::fs::read_to_string(dir.path().join("b.log")).unwrap().lines().count();
    assert_eq!((counted, lines), (0, 53 * 100));
}
