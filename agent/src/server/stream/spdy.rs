//! SPDY/3.1 frames as a server reads and writes them, as far as Kubernetes uses them: streams that the client opens with headers, data
//! both ways, resets, pings. No IO, no flow control (the library every kubectl is built with has none either).
//!
//! Source: the SPDY protocol draft 3.1, section 2. All numbers are big-endian.

mod headers;

use headers::Headers;

/// Bytes of one frame that a client may send.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of data in one frame that we send.
const DATA_BYTES: usize = 32 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// Refusal of a stream, as a status of RST_STREAM.
pub(crate) const REFUSED: u32 = 3;

/// A stream's number; odd, the client's choice.
pub(crate) type StreamId = u32;

/// What a client did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It opened a stream. Names are lower case.
    Open {
        id: StreamId,
        headers: Vec<(String, String)>,
    },
    Data {
        id: StreamId,
        bytes: Vec<u8>,
    },
    /// It sends no more on that stream.
    End {
        id: StreamId,
    },
    Reset {
        id: StreamId,
    },
    /// It opens no more streams.
    GoAway,
}

/// One connection's end.
pub(crate) struct Spdy {
    input: Vec<u8>,
    headers: Headers,
    /// The second half of a frame that says two things (data and end).
    pending: Option<Event>,
    last: StreamId,
}

struct Frame {
    /// A stream's number, or a control frame's version and type.
    word: u32,
    flags: u8,
    payload: Vec<u8>,
}

impl Spdy {
    pub(crate) fn new() -> Spdy {
        Spdy { input: Vec::new(), headers: Headers::new(), pending: None, last: 0 }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next thing the client did; `None` until more bytes come. Answers to pings go to `out`.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Event>, &'static str> {
        if let Some(event) = self.pending.take() {
            return Ok(Some(event));
        }
        while let Some(Frame { word, flags, payload }) = self.frame()? {
            if word & 0x8000_0000 == 0 {
                let end = Event::End { id: word };
                if payload.is_empty() && flags & FIN != 0 {
                    return Ok(Some(end));
                }
                self.pending = (flags & FIN != 0).then_some(end);
                return Ok(Some(Event::Data { id: word, bytes: payload }));
            }
            if word >> 16 != 0x8003 {
                return Err("not SPDY version 3");
            }
            // The low half is the type of a control frame.
            match (word & 0xffff) as u16 {
                SYN_STREAM => return self.opened(flags, &payload).map(Some),
                RST_STREAM => return Ok(Some(Event::Reset { id: number(&payload)? })),
                PING => control(out, PING, 0, &[&payload]),
                GOAWAY => return Ok(Some(Event::GoAway)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<Frame>, &'static str> {
        let Some((&[a, b, c, d, flags, x, y, z], rest)) = self.input.split_first_chunk::<8>() else { return Ok(None) };
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err("frame too long");
        }
        let Some(payload) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.input.drain(..8 + length);
        Ok(Some(Frame { word: u32::from_be_bytes([a, b, c, d]), flags, payload }))
    }

    fn opened(&mut self, flags: u8, payload: &[u8]) -> Result<Event, &'static str> {
        let id = number(payload)?;
        if id % 2 == 0 || id <= self.last {
            return Err("stream number out of order");
        }
        self.last = id;
        // Associated stream and priority mean nothing here.
        let block = payload.get(10..).ok_or("frame too short")?;
        let headers = self.headers.read(block)?;
        self.pending = (flags & FIN != 0).then_some(Event::End { id });
        Ok(Event::Open { id, headers })
    }

    /// Takes a stream on: nobody writes to it before.
    pub(crate) fn accept(&mut self, out: &mut Vec<u8>, id: StreamId) {
        let block = self.headers.write_none();
        control(out, SYN_REPLY, 0, &[&id.to_be_bytes(), &block]);
    }

    /// Sends bytes on a stream; `end`: they are the last.
    pub(crate) fn data(out: &mut Vec<u8>, id: StreamId, bytes: &[u8], end: bool) {
        let mut pieces = bytes.chunks(DATA_BYTES).peekable();
        if pieces.peek().is_none() {
            frame(out, id, if end { FIN } else { 0 }, &[]);
        }
        while let Some(piece) = pieces.next() {
            frame(out, id, if end && pieces.peek().is_none() { FIN } else { 0 }, &[piece]);
        }
    }

    /// Ends a stream both ways at once.
    pub(crate) fn reset(out: &mut Vec<u8>, id: StreamId, status: u32) {
        control(out, RST_STREAM, 0, &[&id.to_be_bytes(), &status.to_be_bytes()]);
    }

    /// Says that this connection ends.
    pub(crate) fn go_away(&self, out: &mut Vec<u8>) {
        control(out, GOAWAY, 0, &[&self.last.to_be_bytes(), &0u32.to_be_bytes()]);
    }
}

fn number(payload: &[u8]) -> Result<u32, &'static str> {
    let (first, _) = payload.split_first_chunk::<4>().ok_or("frame too short")?;
    Ok(u32::from_be_bytes(*first) & 0x7fff_ffff)
}

fn control(out: &mut Vec<u8>, kind: u16, flags: u8, parts: &[&[u8]]) {
    frame(out, 0x8003_0000 | u32::from(kind), flags, parts);
}

fn frame(out: &mut Vec<u8>, word: u32, flags: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // Flags and a length of 24 bits share a word; parts are at most `DATA_BYTES` and a header block.
    let second = u32::from(flags) << 24 | u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
    out.extend_from_slice(&word.to_be_bytes());
    out.extend_from_slice(&second.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::headers::block;
    use super::*;

    fn events(bytes: &[u8], step: usize) -> Result<(Vec<Event>, Vec<u8>), &'static str> {
        let (mut spdy, mut seen, mut out) = (Spdy::new(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            spdy.receive(piece);
            while let Some(event) = spdy.next(&mut out)? {
                seen.push(event);
            }
        }
        Ok((seen, out))
    }

    fn open(writer: &mut flate2::Compress, id: u32, flags: u8, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        control(&mut out, SYN_STREAM, flags, &[&id.to_be_bytes(), &[0; 6], &block(writer, pairs)]);
        out
    }

    #[test]
    fn a_conversation() {
        let mut writer = headers::compressor();
        let mut bytes = open(&mut writer, 1, 0, &[("streamType", "error"), ("port", "80")]);
        bytes.extend(open(&mut writer, 3, FIN, &[("streamtype", "data"), ("port", "80")]));
        frame(&mut bytes, 1, 0, &[b"abc"]);
        frame(&mut bytes, 1, FIN, &[b"d"]);
        frame(&mut bytes, 1, FIN, &[]);
        control(&mut bytes, PING, 0, &[&9u32.to_be_bytes()]);
        control(&mut bytes, 4, 0, &[&[0; 12]]);
        control(&mut bytes, RST_STREAM, 0, &[&3u32.to_be_bytes(), &5u32.to_be_bytes()]);
        control(&mut bytes, GOAWAY, 0, &[&[0; 8]]);
        let pairs = |kind: &str| vec![("streamtype".to_owned(), kind.to_owned()), ("port".into(), "80".into())];
        let expected = [
            Event::Open { id: 1, headers: pairs("error") },
            Event::Open { id: 3, headers: pairs("data") },
            Event::End { id: 3 },
            Event::Data { id: 1, bytes: b"abc".to_vec() },
            Event::Data { id: 1, bytes: b"d".to_vec() },
            Event::End { id: 1 },
            Event::End { id: 1 },
            Event::Reset { id: 3 },
            Event::GoAway,
        ];
        for step in [1, 5, 1 << 20] {
            let (seen, out) = events(&bytes, step).unwrap();
            assert_eq!(seen, expected, "in steps of {step}");
            assert_eq!(out, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9], "the ping comes back");
        }
    }

    #[test]
    fn data_is_cut_and_ended_once() {
        let mut out = Vec::new();
        Spdy::data(&mut out, 5, &vec![1; DATA_BYTES + 1], true);
        let mut spdy = Spdy::new();
        spdy.receive(&out);
        let none = &mut Vec::new();
        assert!(matches!(spdy.next(none), Ok(Some(Event::Data { id: 5, bytes })) if bytes.len() == DATA_BYTES));
        assert!(matches!(spdy.next(none), Ok(Some(Event::Data { id: 5, bytes })) if bytes.len() == 1));
        assert_eq!(spdy.next(none), Ok(Some(Event::End { id: 5 })));
        assert_eq!(spdy.next(none), Ok(None));
        let mut out = Vec::new();
        Spdy::data(&mut out, 5, &[], true);
        assert_eq!(out, [0, 0, 0, 5, 1, 0, 0, 0]);
    }

    #[test]
    fn rules_broken() {
        let mut writer = headers::compressor();
        let even = open(&mut writer, 2, 0, &[]);
        let mut writer = headers::compressor();
        let again = [open(&mut writer, 1, 0, &[]), open(&mut writer, 1, 0, &[])].concat();
        let mut short = Vec::new();
        control(&mut short, SYN_STREAM, 0, &[&1u32.to_be_bytes()]);
        let mut no_zlib = Vec::new();
        control(&mut no_zlib, SYN_STREAM, 0, &[&1u32.to_be_bytes(), &[0; 6], &[0xff; 20]]);
        let cases: [(&str, Vec<u8>); 6] = [
            ("stream number out of order", even),
            ("stream number out of order", again),
            ("frame too short", short),
            ("headers do not inflate", no_zlib),
            ("not SPDY version 3", vec![0x80, 2, 0, 1, 0, 0, 0, 0]),
            ("frame too long", vec![0, 0, 0, 1, 0, 0xff, 0xff, 0xff]),
        ];
        for (why, bytes) in cases {
            assert_eq!(events(&bytes, 1 << 20).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = events(&bytes, 13);
        }
    }
}
