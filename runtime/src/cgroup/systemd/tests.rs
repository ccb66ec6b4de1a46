use super::wire::tests::{answer, signal};
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

#[test]
fn slices_lie_in_each_other() {
    for (slice, path) in [
        ("a.slice", Some("/a.slice")),
        ("a-b-c.slice", Some("/a.slice/a-b.slice/a-b-c.slice")),
        ("-.slice", Some("")),
        ("a--b.slice", None),
        ("-a.slice", None),
        ("a/b.slice", None),
        (".slice", None),
        ("a.scope", None),
    ] {
        assert_eq!(expand(slice).as_deref(), path, "{slice}");
    }
}

#[test]
fn paths_become_units() {
    let unit = |path: &str| Unit::new(path, "id", &[]).map(|u| (u.name.clone(), u.path("/")));
    let found = |path: &str| unit(path).unwrap();
    assert_eq!(found("a-b.slice:crio:x"), ("crio-x.scope".into(), "a.slice/a-b.slice/crio-x.scope".into()));
    assert_eq!(found(":cri:x"), ("cri-x.scope".into(), "system.slice/cri-x.scope".into()));
    assert_eq!(found("a.slice::x"), ("x.scope".into(), "a.slice/x.scope".into()));
    assert_eq!(found(""), ("mote-id.scope".into(), "system.slice/mote-id.scope".into()));
    assert_eq!(found("a.slice:x:a-b.slice"), ("a-b.slice".into(), "a.slice/a-b.slice".into()));
    for bad in ["/a/b", "a:b", "a:b:c", "a.slice:b:", "../x.slice:b:c", "a.slice:b:../c", "a.slice:b:c:d"] {
        assert!(unit(bad).is_err(), "{bad}");
    }
    let nested = Unit::new("a.slice:b:c", "id", &[]).unwrap();
    assert_eq!(nested.path("/user.slice/user@1.service"), "user.slice/user@1.service/a.slice/b-c.scope");
    let annotation = |text: &str| vec![("org.systemd.property.CollectMode".to_owned(), text.to_owned())];
    assert!(Unit::new("", "id", &annotation("'inactive'")).is_ok() && Unit::new("", "id", &annotation("[")).is_err());
}

/// Answers each call with the next of its answers; gives back the names called.
fn fake(name: &str, answers: Vec<fn(u32) -> Vec<u8>>) -> (PathBuf, JoinHandle<Vec<String>>) {
    let path = std::env::temp_dir().join(format!("mote-fake-systemd-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let place = path.clone();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::fs::remove_file(place).unwrap();
        let (mut bytes, mut buffer, mut called) = (Vec::new(), [0u8; 4096], Vec::new());
        let mut more = |bytes: &mut Vec<u8>, stream: &mut std::os::unix::net::UnixStream| {
            let count = stream.read(&mut buffer).unwrap_or(0);
            bytes.extend_from_slice(&buffer[..count]);
            count > 0
        };
        while !bytes.ends_with(b"BEGIN\r\n") && more(&mut bytes, &mut stream) {}
        assert!(bytes.starts_with(b"\0AUTH EXTERNAL "));
        bytes.clear();
        stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        for answer in answers {
            let (message, used) = loop {
                match wire::message(&bytes).unwrap() {
                    Some(found) => break found,
                    None if more(&mut bytes, &mut stream) => {}
                    None => return called,
                }
            };
            let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            bytes.drain(..used);
            called.push(message.member);
            // In two pieces, as a socket may deliver it.
            let text = answer(serial);
            stream.write_all(&text[..5]).unwrap();
            stream.write_all(&text[5..]).unwrap();
        }
        called
    });
    (path, asked)
}

fn done(serial: u32) -> Vec<u8> {
    answer(2, serial, "", |_| {})
}
/// Another's job ends, then ours, and only then the call is answered.
fn job(serial: u32) -> Vec<u8> {
    let mut bytes = signal("/job/1", "other.scope", "failed");
    bytes.extend(signal("/job/2", "mote-x.scope", "done"));
    bytes.extend(answer(2, serial, "o", |w| w.text("/job/2")));
    bytes
}
fn failed_job(serial: u32) -> Vec<u8> {
    let mut bytes = answer(2, serial, "o", |w| w.text("/job/2"));
    bytes.extend(signal("/job/2", "mote-x.scope", "failed"));
    bytes
}
fn no_such_unit(serial: u32) -> Vec<u8> {
    answer(3, serial, "org.freedesktop.systemd1.NoSuchUnit", |w| w.text("Unit x not loaded."))
}
fn refusal(serial: u32) -> Vec<u8> {
    answer(3, serial, "org.freedesktop.DBus.Error.AccessDenied", |w| w.text("Not today."))
}

fn at(path: &std::path::Path) -> [Address; 2] {
    [Address::Private("/nonexistent/systemd/private".into()), Address::Private(path.to_owned())]
}

fn started(name: &str, answers: Vec<fn(u32) -> Vec<u8>>) -> (Result<(), CgroupError>, Vec<String>) {
    let (path, asked) = fake(name, answers);
    let unit = Unit::new(":mote:x", "x", &[]).unwrap();
    let limits = Resources { memory_max: Some(1 << 20), ..Resources::default() };
    let result = start(&at(&path), &unit, "x", 1, &Layout::default(), &limits);
    let asked = asked.join().unwrap();
    (result, asked)
}

#[test]
fn a_unit_is_started_and_its_job_waited_for() {
    let (result, asked) = started("start", vec![no_such_unit, job]);
    result.unwrap();
    assert_eq!(asked, ["ResetFailedUnit", "StartTransientUnit"]);
    let (result, _) = started("failing", vec![done, failed_job]);
    assert!(result.unwrap_err().to_string().contains("\"failed\""));
    let (result, _) = started("refused", vec![done, refusal]);
    assert_eq!(result.unwrap_err().to_string(), "start unit mote-x.scope: Not today.");
    let (result, _) = started("hangup", vec![done]);
    assert!(result.unwrap_err().to_string().contains("talk to systemd"));
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let (path, asked) = fake("stop", vec![no_such_unit, no_such_unit]);
    stop(&at(&path), &Unit::named("mote-x.scope")).unwrap();
    assert_eq!(asked.join().unwrap(), ["StopUnit", "ResetFailedUnit"]);
    let (path, asked) = fake("keep", vec![refusal]);
    assert!(stop(&at(&path), &Unit::named("mote-x.scope")).is_err());
    asked.join().unwrap();
}

#[test]
fn limits_are_told_over_the_bus_too() {
    let (path, asked) = fake("bus", vec![done, done, done, done]);
    let limits = Resources { pids_max: Some(5), ..Resources::default() };
    update(&[Address::Bus(path)], &Unit::named("mote-x.scope"), &Layout::default(), &limits).unwrap();
    assert_eq!(asked.join().unwrap(), ["Hello", "AddMatch", "Subscribe", "SetUnitProperties"]);
    update(&[], &Unit::named("x.scope"), &Layout::default(), &Resources::default()).unwrap();
}

#[test]
fn its_own_group_comes_first() {
    fn group(serial: u32) -> Vec<u8> {
        answer(2, serial, "v", |w| w.variant_of("/docker/abc"))
    }
    let (path, asked) = fake("group", vec![group]);
    let unit = Unit::new(":mote:x", "x", &[]).unwrap();
    assert_eq!(path_of(&at(&path), &unit).unwrap(), "docker/abc/system.slice/mote-x.scope");
    assert_eq!(asked.join().unwrap(), ["Get"]);
}
