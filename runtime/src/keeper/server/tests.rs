use super::*;
use crate::container::{Log, Stdio};
use crate::keeper::record::Record;
use crate::sys::{self, allocations};
use std::io::Write;

/// A keeper that holds two containers, which are one `sleep`.
struct Holding {
    dir: tempfile::TempDir,
    server: Server,
    sleeper: std::process::Child,
    _guard: std::os::unix::net::UnixStream,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

fn holding() -> Holding {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    let listener = UnixListener::bind(run.socket()).unwrap();
    let (link, guard) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut server = Server::new(run, Layout::discover(), listener, Guard::new(link.into()), Kept::default()).unwrap();
    let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
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
    Holding { dir, server, sleeper, _guard: guard }
}

/// Lines come and are logged, turn after turn, and nothing is made on the heap for it.
#[test]
fn a_turn_of_the_loop_allocates_nothing() {
    let mut kept = holding();
    let (dir, server) = (kept.dir.path().to_owned(), &mut kept.server);
    let mut fifo = std::fs::File::options().write(true).open(server.dir.container("b").join("out")).unwrap();
    let mut say = |server: &mut Server, turns: usize| {
        for _ in 0..turns {
            fifo.write_all(&b"a line of some length\n".repeat(100)).unwrap();
            server.turn().unwrap();
        }
    };
    say(server, 3);
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
    let lines = std::fs::read_to_string(dir.join("b.log")).unwrap().lines().count();
    assert_eq!((counted, lines), (0, 53 * 100));
}

/// A hundred requests and their answers, from the socket to the socket.
#[test]
fn a_short_request_allocates_nothing() {
    use crate::keeper::protocol::{Call, Decoder, Message, Request, encode};
    use std::io::Read;
    let mut kept = holding();
    let mut client = std::os::unix::net::UnixStream::connect(kept.server.dir.socket()).unwrap();
    let asked = [
        Request::Signal { id: "a".into(), signal: 0, all: false },
        Request::Remove { id: "nobody".into() },
        Request::Signal { id: "b".into(), signal: 0, all: true },
        Request::Signal { id: "b".into(), signal: 18, all: false },
    ];
    let (mut counted, mut answered, mut decoder, mut buffer) = (0, 0, Decoder::default(), [0; 4096]);
    for seq in 0..104 {
        let request = asked[seq % asked.len()].clone();
        let frame = encode(&Call { seq: seq as u32, request }).unwrap();
        // In two pieces now and then.
        let (one, two) = frame.split_at(if seq % 3 == 0 { 5 } else { frame.len() });
        for part in [one, two].into_iter().filter(|p| !p.is_empty()) {
            client.write_all(part).unwrap();
            let before = allocations();
            kept.server.turn().unwrap();
            // The first of each makes the client's buffers and the list of what is polled.
            counted += if seq < 4 { 0 } else { allocations() - before };
        }
        client.set_nonblocking(true).unwrap();
        while let Ok(count) = client.read(&mut buffer) {
            decoder.push(&buffer[..count]);
        }
        client.set_nonblocking(false).unwrap();
        while let Some(Message::Reply { seq: of, reply }) = decoder.next_frame().unwrap() {
            assert_eq!((of, reply), (seq as u32, Reply::Done));
            answered += 1;
        }
    }
    assert_eq!((counted, answered), (0, 104));
}

/// Descriptions of containers, processes and limits are on the heap while they are handled: a few times their frame, and nothing of it stays.
#[test]
fn a_long_request_is_gone_when_it_is_answered() {
    use crate::container::{Container, Process, Resources};
    use crate::keeper::protocol::{Attach, Call, Decoder, Exec, Message, Request, Sandbox, Session, encode};
    use std::io::Read;
    let mut kept = holding();
    let process = || Process { args: vec!["x".repeat(1000); 200], env: vec!["A=b".into(); 500], ..Process::default() };
    let id = || "no body".to_owned(); // invalid where one would be made, unknown where one is looked for
    let sysctls = vec![("net.core.somaxconn".to_owned(), "1".repeat(1000)); 100];
    let asked = [
        Request::Start(Box::new(Container { id: id(), process: process(), ..Container::default() })),
        Request::Sandbox(Sandbox { id: id(), sysctls, ..Sandbox::default() }),
        Request::Exec(Exec { id: id(), process: process(), ..Exec::default() }),
        Request::Session(Session { id: id(), process: process(), terminal: false }),
        Request::Update { id: id(), resources: Resources { unified: vec![(id(), id()); 500], ..Resources::default() } },
        Request::Attach(Attach { id: id(), stdin: false }),
        Request::ReopenLog { id: id() },
        Request::List,
    ];
    let mut client = std::os::unix::net::UnixStream::connect(kept.server.dir.socket()).unwrap();
    let (mut decoder, mut buffer, mut answered) = (Decoder::default(), [0; 4096], 0);
    for seq in 0..4 * asked.len() {
        let request = asked[seq % asked.len()].clone();
        let frame = encode(&Call { seq: seq as u32, request }).unwrap();
        let before = crate::sys::peak_from_here();
        for part in frame.chunks(16 << 10) {
            client.write_all(part).unwrap();
            kept.server.turn().unwrap();
        }
        if seq >= asked.len() {
            assert_eq!(crate::sys::held(), before, "request {}", seq % asked.len());
            let most = usize::try_from(crate::sys::peak() - before).unwrap();
            assert!(most <= 4 * frame.len() + (64 << 10), "{most} bytes for a frame of {}", frame.len());
        }
        client.set_nonblocking(true).unwrap();
        while let Ok(count) = client.read(&mut buffer) {
            decoder.push(&buffer[..count]);
        }
        client.set_nonblocking(false).unwrap();
        while let Some(Message::Reply { seq: of, reply }) = decoder.next_frame().unwrap() {
            assert_eq!((of, matches!(reply, Reply::Failed(_) | Reply::List { .. })), (seq as u32, true));
            answered += 1;
        }
    }
    assert_eq!(answered, 4 * asked.len());
}
