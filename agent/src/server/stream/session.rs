//! The streams of one exec or attach, whatever they travel by: input, its end and window sizes come in; output and a last word go
//! out. No IO: bytes in by [`Session::receive`], bytes out by the `out` of every call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::tree::{Value, i64_at, parse_json, str_at};

use super::negotiate::{Version, Wire};
use super::spdy::{Event, Spdy, StreamId};
use super::websocket::{self, Message, Reader};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// In v5: the next byte names a channel that ends.
const CLOSE: u8 = 255;
/// Names of the channels as streams of SPDY, by number.
const STREAM_TYPES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
/// Bytes of one window size.
const RESIZE_BYTES_MAX: usize = 256;

/// Which streams a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Stdin(Vec<u8>),
    StdinEnd,
    /// Columns and rows.
    Resize(u16, u16),
    /// The client is gone.
    End,
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// One exec's or attach's conversation.
pub(crate) struct Session {
    wanted: Wanted,
    version: Version,
    carrier: Carrier,
}

enum Carrier {
    Messages { reader: Reader, base64: bool },
    Streams { spdy: Box<Spdy>, ids: [Option<StreamId>; 5], resize: Vec<u8> },
}

impl Session {
    pub(crate) fn new(wire: Wire, wanted: Wanted) -> Session {
        let (version, carrier) = match wire {
            Wire::Channels { base64, version } => (version, Carrier::Messages { reader: Reader::default(), base64 }),
            Wire::Spdy(version) => (version, streams()),
            // Port-forward's; it never comes here.
            Wire::Tunnel => (Version::V4, streams()),
        };
        Session { wanted, version, carrier }
    }

    /// True once every stream that the client announced is there: before, output would have nowhere to go.
    pub(crate) fn ready(&self) -> bool {
        let Wanted { stdin, stdout, stderr, tty } = self.wanted;
        match &self.carrier {
            Carrier::Messages { .. } => true,
            Carrier::Streams { ids, .. } => {
                let [has_in, has_out, has_err, has_error, _] = ids.map(|id| id.is_some());
                has_error && (has_in || !stdin) && (has_out || !stdout) && (has_err || !stderr || tty)
            }
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        match &mut self.carrier {
            Carrier::Messages { reader, .. } => reader.receive(bytes),
            Carrier::Streams { spdy, .. } => spdy.receive(bytes),
        }
    }

    /// The next thing that came in; `None` until more bytes come.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Input>, &'static str> {
        match &mut self.carrier {
            Carrier::Messages { reader, base64 } => next_message(reader, *base64, self.wanted, out),
            Carrier::Streams { spdy, ids, resize } => next_event(spdy, ids, resize, out),
        }
    }

    /// Sends output.
    pub(crate) fn output(&self, out: &mut Vec<u8>, to: Output, bytes: &[u8]) {
        let (channel, wanted) = match to {
            Output::Stdout => (STDOUT, self.wanted.stdout),
            Output::Stderr => (STDERR, self.wanted.stderr),
        };
        if wanted && !bytes.is_empty() {
            self.send(out, channel, bytes, false);
        }
    }

    /// Says how it went, and ends the conversation.
    pub(crate) fn finish(&self, out: &mut Vec<u8>, status: &Value) {
        let success = str_at(status, &["status"]) == "Success";
        let word = match self.version {
            Version::V4 | Version::V5 => serde_json::to_vec(status).unwrap_or_default(),
            Version::V1 if success => Vec::new(),
            Version::V1 => str_at(status, &["message"]).as_bytes().to_vec(),
        };
        if !word.is_empty() {
            self.send(out, ERROR, &word, false);
        }
        match &self.carrier {
            Carrier::Messages { .. } => websocket::write_close(out, websocket::NORMAL),
            Carrier::Streams { spdy, ids, .. } => {
                for id in [STDOUT, STDERR, ERROR].iter().filter_map(|channel| ids.get(usize::from(*channel))?.as_ref())
                {
                    Spdy::data(out, *id, &[], true);
                }
                spdy.go_away(out);
            }
        }
    }

    fn send(&self, out: &mut Vec<u8>, channel: u8, bytes: &[u8], end: bool) {
        match &self.carrier {
            Carrier::Messages { base64: false, .. } => websocket::write(out, websocket::BINARY, &[&[channel], bytes]),
            Carrier::Messages { base64: true, .. } => {
                websocket::write_text(out, &[&[b'0' + channel], STANDARD.encode(bytes).as_bytes()]);
            }
            Carrier::Streams { ids, .. } => {
                if let Some(Some(id)) = ids.get(usize::from(channel)) {
                    Spdy::data(out, *id, bytes, end);
                }
            }
        }
    }
}

fn streams() -> Carrier {
    Carrier::Streams { spdy: Box::new(Spdy::new()), ids: [None; 5], resize: Vec::new() }
}

fn next_message(
    reader: &mut Reader,
    base64: bool,
    wanted: Wanted,
    out: &mut Vec<u8>,
) -> Result<Option<Input>, &'static str> {
    while let Some(message) = reader.next()? {
        let piece = match message {
            Message::Ping(payload) => {
                websocket::write_pong(out, &payload);
                continue;
            }
            Message::Close => return Ok(Some(Input::End)),
            Message::Text(text) if base64 => match text.split_first() {
                Some((digit, rest)) => {
                    let mut piece = vec![digit.wrapping_sub(b'0')];
                    STANDARD.decode_vec(rest, &mut piece).map_err(|_| "message is no base64")?;
                    piece
                }
                None => continue,
            },
            Message::Binary(bytes) | Message::Text(bytes) => bytes,
        };
        match piece.split_first() {
            // An empty piece of input ends it in no version; kubectl sends one first, to see that somebody is there.
            Some((&STDIN, bytes)) if wanted.stdin && !bytes.is_empty() => {
                return Ok(Some(Input::Stdin(bytes.to_vec())));
            }
            Some((&RESIZE, size)) => {
                if let Some(size) = window(size) {
                    return Ok(Some(size));
                }
            }
            Some((&CLOSE, [STDIN])) => return Ok(Some(Input::StdinEnd)),
            _ => {}
        }
    }
    Ok(None)
}

fn next_event(
    spdy: &mut Spdy,
    ids: &mut [Option<StreamId>; 5],
    resize: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<Option<Input>, &'static str> {
    let [stdin, stdout, stderr, error, window_sizes] = [0, 1, 2, 3, 4];
    let holds = |ids: &[Option<StreamId>; 5], slot: usize, id| ids.get(slot) == Some(&Some(id));
    while let Some(event) = spdy.next(out)? {
        match event {
            Event::Open { id, headers } => {
                let kind = headers.iter().find(|(name, _)| name == "streamtype").map_or("", |(_, value)| value);
                let slot = STREAM_TYPES.iter().position(|name| *name == kind).and_then(|slot| ids.get_mut(slot));
                match slot {
                    Some(slot @ None) => {
                        *slot = Some(id);
                        spdy.accept(out, id);
                    }
                    _ => return Err("unexpected stream"),
                }
            }
            Event::Data { id, bytes } if holds(ids, stdin, id) => return Ok(Some(Input::Stdin(bytes))),
            Event::Data { id, bytes } if holds(ids, window_sizes, id) => {
                resize.extend_from_slice(&bytes);
                if let Some(size) = window(resize) {
                    resize.clear();
                    return Ok(Some(size));
                }
                if resize.len() > RESIZE_BYTES_MAX {
                    return Err("window size too long");
                }
            }
            Event::End { id } | Event::Reset { id } if holds(ids, stdin, id) => return Ok(Some(Input::StdinEnd)),
            Event::Reset { id } if [stdout, stderr, error].iter().any(|slot| holds(ids, *slot, id)) => {
                return Ok(Some(Input::End));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// `{"Width":80,"Height":24}`; a size of nothing is none.
fn window(text: &[u8]) -> Option<Input> {
    // A stream may hold several, one to a line; the last one is what the window is now.
    let text = text.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())?;
    let value = parse_json(text, RESIZE_BYTES_MAX).ok()?.value;
    let side = |name| u16::try_from(i64_at(&value, &[name])?).ok().filter(|side| *side > 0);
    Some(Input::Resize(side("Width")?, side("Height")?))
}
