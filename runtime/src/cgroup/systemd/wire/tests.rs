use super::*;

const STOP: Method<'_> =
    Method { destination: "d.e", path: "/p", interface: "i.f", member: "StopUnit", signature: "ss" };

fn stop() -> Vec<u8> {
    let mut body = Writer::default();
    body.text("a.scope");
    body.text("replace");
    call(7, &STOP, body)
}

/// By hand from the specification.
#[test]
fn a_call_is_laid_out_as_specified() {
    let mut expected = b"l\x01\x00\x01\x1c\0\0\0\x07\0\0\0\x45\0\0\0".to_vec();
    expected.extend_from_slice(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0");
    expected.extend_from_slice(b"\x03\x01s\0\x08\0\0\0StopUnit\0\0\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0");
    expected.extend_from_slice(b"\x08\x01g\0\x02ss\0");
    let fields = expected.len() - 16;
    expected[12] = fields as u8;
    expected.resize(expected.len().next_multiple_of(8), 0);
    expected.extend_from_slice(b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0");
    let length = b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0".len();
    expected[4] = length as u8;
    assert_eq!(stop(), expected);
}

#[test]
fn what_is_written_is_read() {
    let bytes = stop();
    let (message, used) = message(&bytes).unwrap().unwrap();
    assert_eq!((message.kind, message.member.as_str(), used), (Kind::Call, "StopUnit", bytes.len()));
    let mut body = message.body();
    assert_eq!((body.text(), body.text(), body.text()), (Ok("a.scope"), Ok("replace"), Err(Malformed("cut off"))));
}

#[test]
fn properties_are_aligned() {
    let mut w = Writer::default();
    w.properties(&[("A", Value::Bool(true)), ("B", Value::U64(9)), ("C", Value::U32s(vec![5]))]);
    let expected: &[u8] = b"\x40\0\0\0\0\0\0\0\
        \x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0\
        \x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\
        \x01\0\0\0C\0\x02au\0\0\0\x04\0\0\0\x05\0\0\0";
    let mut expected = expected.to_vec();
    expected[0] = (expected.len() - 8) as u8;
    assert_eq!(w.bytes, expected);
}

/// A reply of a big-endian peer.
#[test]
fn either_byte_order_is_read() {
    let bytes = b"B\x02\0\x01\0\0\0\x08\0\0\0\x03\0\0\0\x08\x05\x01u\0\0\0\0\x07\0\0\0\x02/j\0\0";
    let (message, used) = message(&bytes[..31 + 1]).unwrap().unwrap();
    assert_eq!((message.kind, message.reply_to, used), (Kind::Return, Some(7), 32));
    assert_eq!(message.body().text(), Ok("/j"));
}

#[test]
fn every_cut_waits_and_every_lie_is_told() {
    let bytes = stop();
    for cut in 0..bytes.len() {
        assert_eq!(message(&bytes[..cut]), Ok(None), "{cut}");
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        message(&bytes)
    };
    assert_eq!(changed(0, b'x'), Err(Malformed("byte order")));
    assert_eq!(changed(1, 9), Err(Malformed("type")));
    assert_eq!(changed(6, 0xff), Err(Malformed("too large")));
    assert_eq!(changed(17, 0xff), Err(Malformed("cut off")));
    assert_eq!(changed(18, b'v'), Err(Malformed("header field of an unknown type")));
    assert_eq!(changed(26, 7), Err(Malformed("text without its end")));
}

#[test]
fn nobody_is_believed_without_looking() {
    let mut seed = 1u32;
    for _ in 0..20_000 {
        let mut bytes = stop();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % bytes.len();
            bytes[at] = seed as u8;
        }
        if let Ok(Some((message, _))) = message(&bytes) {
            let mut body = message.body();
            let _ = (body.text(), body.variant_text(), body.u32());
        }
    }
}

#[test]
fn who_one_is() {
    assert_eq!(greeting(0), b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
    assert_eq!(greeting(1000), b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n");
}

impl Writer {
    pub(crate) fn variant_of(&mut self, text: &str) {
        self.variant(&Value::Text(text.into()));
    }
}

/// What a peer would say: 2 = a return whose signature is `word`, 3 = an error of that name.
pub(crate) fn answer(kind: u8, reply_to: u32, word: &str, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    body(&mut w);
    let mut message = Writer { bytes: vec![b'l', kind, 0, 1] };
    message.u32(w.bytes.len() as u32);
    message.u32(1);
    message.array(8, |m| {
        m.bytes.extend_from_slice(b"\x05\x01u\0");
        m.u32(reply_to);
        m.align(8);
        m.bytes.push(if kind == 3 { ERROR_NAME } else { SIGNATURE });
        m.signature(if kind == 3 { "s" } else { "g" });
        if kind == 3 { m.text(word) } else { m.signature(word) }
    });
    message.align(8);
    message.bytes.extend(w.bytes);
    message.bytes
}

/// The end of a job.
pub(crate) fn signal(job: &str, unit: &str, result: &str) -> Vec<u8> {
    let mut w = Writer::default();
    w.u32(1);
    [job, unit, result].iter().for_each(|part| w.text(part));
    let mut message = Writer { bytes: vec![b'l', 4, 1, 1] };
    message.u32(w.bytes.len() as u32);
    message.u32(9);
    message.array(8, |m| {
        m.bytes.extend_from_slice(&[MEMBER, 1, b's', 0]);
        m.text("JobRemoved");
    });
    message.align(8);
    message.bytes.extend(w.bytes);
    message.bytes
}
