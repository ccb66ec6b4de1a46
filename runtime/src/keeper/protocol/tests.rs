use super::*;
use proptest::prelude::*;

fn start() -> Call {
    let container = Container { id: "c1".into(), ..Container::default() };
    Call { seq: 7, request: Request::Start(Box::new(container)) }
}

#[test]
fn frames_survive_any_cut() {
    let mut bytes = encode(&start()).unwrap();
    bytes.extend(encode(&Call { seq: 8, request: Request::List }).unwrap());
    for cut in 0..bytes.len() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            decoder.push(part);
            while let Some(call) = decoder.next_frame::<Call>().unwrap() {
                seen.push(call);
            }
        }
        assert_eq!(seen, [start(), Call { seq: 8, request: Request::List }]);
    }
}

#[test]
fn the_header_is_stated_once() {
    // Golden: length 4 (version + seq + variant), version 3, seq 8, request 6 = List. Must not change without a new VERSION.
    let bytes = encode(&Call { seq: 8, request: Request::List }).unwrap();
    assert_eq!(bytes, [4, 0, 0, 0, 3, 0, 8, 6]);
}

#[test]
fn other_versions_and_lengths_are_refused() {
    let mut decoder = Decoder::default();
    decoder.push(&[3, 0, 0, 0, 9, 0, 0]);
    assert_eq!(decoder.next_frame::<Call>(), Err(FrameError::Version(9)));
    for bad in [0u32, 1, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut decoder = Decoder::default();
        decoder.push(&bad.to_le_bytes());
        assert_eq!(decoder.next_frame::<Call>(), Err(FrameError::Length(bad as usize)));
    }
    assert_eq!(encode(&vec![0u8; FRAME_BYTES_MAX]), Err(FrameError::TooLarge));
}

/// The keeper's own reading and writing are the protocol's, variant by variant.
#[test]
fn wait_statuses() {
    let exit = |code, signal| Exit { code, signal, ..Exit::default() };
    for (status, wanted) in [
        (0, exit(0, None)),
        (3 << 8, exit(3, None)),
        (9, exit(137, Some(9))),
        (0x80 | 11, exit(139, Some(11))), // with a core file
    ] {
        assert_eq!(Exit::of(status), wanted, "{status:#x}");
    }
}

#[test]
fn what_is_borrowed_is_the_same_on_the_wire() {
    let id = || "c1".to_owned();
    let process = Process { args: vec!["true".into()], ..Process::default() };
    let exec = Exec { id: id(), process: process.clone(), timeout_ms: 5, output_bytes_max: 6 };
    let session = Session { id: id(), process, terminal: true };
    let sandbox = Sandbox { id: id(), net: true, ..Sandbox::default() };
    let resources = Resources { pids_max: Some(7), ..Resources::default() };
    let container = Container { id: id(), ..Container::default() };
    let pairs = [
        (Request::Hello { events: true }, Wanted::Hello { events: true }),
        (Request::Sandbox(sandbox.clone()), Wanted::Sandbox(Box::new(sandbox))),
        (Request::RemoveSandbox { id: id() }, Wanted::RemoveSandbox { id: "c1" }),
        (Request::Start(Box::new(container.clone())), Wanted::Start(Box::new(container))),
        (Request::Signal { id: id(), signal: -9, all: true }, Wanted::Signal { id: "c1", signal: -9, all: true }),
        (Request::Remove { id: id() }, Wanted::Remove { id: "c1" }),
        (Request::List, Wanted::List),
        (Request::Exec(exec.clone()), Wanted::Exec(Box::new(exec))),
        (
            Request::Update { id: id(), resources: resources.clone() },
            Wanted::Update { id: "c1", resources: Box::new(resources) },
        ),
        (Request::ReopenLog { id: id() }, Wanted::ReopenLog { id: "c1" }),
        (Request::Shutdown, Wanted::Shutdown),
        (Request::Session(session.clone()), Wanted::Session(Box::new(session))),
        (Request::Attach(Attach { id: id(), stdin: true }), Wanted::Attach(WantedAttach { id: "c1", stdin: true })),
    ];
    for (place, (request, wanted)) in pairs.into_iter().enumerate() {
        let bytes = encode(&Call { seq: 9, request }).unwrap();
        let (payload, whole) = first_frame(&bytes).unwrap().unwrap();
        assert_eq!((whole, usize::from(payload[1])), (bytes.len(), place), "in the protocol's order, none left out");
        assert_eq!(decode::<Asked<'_>>(payload), Ok(Asked { seq: 9, request: wanted }));
    }
    let event = Event::Exited { id: id(), exit: Exit::default() };
    assert_eq!(encode(&Told::Event(&event)).unwrap(), encode(&Message::Event(event.clone())).unwrap());
    let reply = Reply::Failed(Failure::new(FailureKind::Busy, "x"));
    let told = encode(&Told::Reply { seq: 3, reply: &reply }).unwrap();
    assert_eq!(told, encode(&Message::Reply { seq: 3, reply }).unwrap());
    assert_eq!(encode_onto(told.clone(), &Told::Event(&event)).unwrap()[..told.len()], told[..]);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::default();
        decoder.push(&(bytes.len() as u32).to_le_bytes());
        decoder.push(&VERSION.to_le_bytes());
        decoder.push(&bytes);
        for _ in 0..50 {
            if !matches!(decoder.next_frame::<Call>(), Ok(Some(_))) { break }
        }
    }
}
