//! WebSocket frames as a server reads and writes them (RFC 6455, sections 1.3, 5). No IO.
//!
//! Messages may come in pieces; a client masks everything it sends, a server nothing. What breaks the rules ends the connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of one message, all its frames together.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a ping, pong or close (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// RFC 6455, section 1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Normal end, as a close code.
pub(crate) const NORMAL: u16 = 1000;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Close,
}

/// Frames of a client, put together to messages.
#[derive(Default)]
pub(crate) struct Reader {
    input: Vec<u8>,
    /// A message of which the last frame is still to come: its kind and what is there.
    partial: Option<(u8, Vec<u8>)>,
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Reader {
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes come.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, &'static str> {
        while let Some(frame) = self.frame()? {
            match (frame.opcode, self.partial.take()) {
                (PING, partial) => {
                    self.partial = partial;
                    return Ok(Some(Message::Ping(frame.payload)));
                }
                (PONG, partial) => self.partial = partial,
                (CLOSE, _) => return Ok(Some(Message::Close)),
                (kind @ (TEXT | BINARY), None) if frame.last => return Ok(Some(message(kind, frame.payload))),
                (kind @ (TEXT | BINARY), None) => self.partial = Some((kind, frame.payload)),
                (CONTINUATION, Some((kind, mut whole))) => {
                    if whole.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
                        return Err("message too long");
                    }
                    whole.extend_from_slice(&frame.payload);
                    if frame.last {
                        return Ok(Some(message(kind, whole)));
                    }
                    self.partial = Some((kind, whole));
                }
                _ => return Err("frame out of order"),
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<Frame>, &'static str> {
        let Some((&[first, second], rest)) = self.input.split_first_chunk::<2>() else { return Ok(None) };
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err("extension bits set, none was agreed");
        }
        if second & 0x80 == 0 {
            return Err("frame of a client without mask");
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let control = opcode & 8 != 0;
        if length > if control { CONTROL_BYTES_MAX } else { MESSAGE_BYTES_MAX } {
            return Err("frame too long");
        }
        if control && !last {
            return Err("control frame in pieces");
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some(masked) = rest.get(..length) else { return Ok(None) };
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let used = self.input.len() - rest.len() + length;
        self.input.drain(..used);
        Ok(Some(Frame { last, opcode, payload }))
    }
}

fn message(kind: u8, payload: Vec<u8>) -> Message {
    if kind == TEXT { Message::Text(payload) } else { Message::Binary(payload) }
}

/// Appends one whole message of a server.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a message of text.
pub(crate) fn write_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    write(out, TEXT, parts);
}

/// Appends the answer to a ping.
pub(crate) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, PONG, &[payload]);
}

/// Appends the end of the conversation.
pub(crate) fn write_close(out: &mut Vec<u8>, code: u16) {
    write(out, CLOSE, &[&code.to_be_bytes()]);
}

/// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key`. SHA-1 here is a greeting, not a protection.
pub(crate) fn accept_key(key: &str) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, first & 0x0f, &[payload]);
        let head = out.len() - payload.len();
        let mask = [1, 2, 3, 4];
        let body: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k).collect();
        out.truncate(head);
        out[0] = first;
        out[1] |= 0x80;
        out.extend(mask);
        out.extend(body);
        out
    }

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Message>, &'static str> {
        let (mut reader, mut out) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(step) {
            reader.receive(piece);
            while let Some(message) = reader.next()? {
                out.push(message);
            }
        }
        Ok(out)
    }

    #[test]
    fn greeting_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn pieces_pings_between_and_the_end() {
        let mut bytes = client(TEXT, b"Hel");
        bytes.extend(client(0x80 | PING, b"?"));
        bytes.extend(client(0x80 | CONTINUATION, b"lo"));
        bytes.extend(client(0x80 | PONG, b""));
        bytes.extend(client(0x80 | BINARY, &[7; 300]));
        bytes.extend(client(0x80 | BINARY, &[8; 70_000]));
        bytes.extend(client(0x80 | CLOSE, &1000u16.to_be_bytes()));
        let expected = [
            Message::Ping(b"?".to_vec()),
            Message::Text(b"Hello".to_vec()),
            Message::Binary(vec![7; 300]),
            Message::Binary(vec![8; 70_000]),
            Message::Close,
        ];
        for step in [1, 7, 4096, 1 << 20] {
            assert_eq!(all(&bytes, step).unwrap(), expected, "in steps of {step}");
        }
    }

    #[test]
    fn rules_broken() {
        let mut unmasked = Vec::new();
        write(&mut unmasked, BINARY, &[b"x"]);
        let mut long = vec![0x80 | BINARY, 0x80 | 127];
        long.extend((MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes());
        let many: Vec<u8> = std::iter::once(client(BINARY, &[0; 1000]))
            .chain((0..2000).map(|_| client(CONTINUATION, &[0; 1000])))
            .flatten()
            .collect();
        let cases: [(&str, Vec<u8>); 7] = [
            ("frame of a client without mask", unmasked),
            ("extension bits set, none was agreed", client(0xc0 | BINARY, b"")),
            ("frame too long", long),
            ("frame too long", client(0x80 | PING, &[0; 126])),
            ("control frame in pieces", client(PING, b"")),
            ("frame out of order", client(0x80 | CONTINUATION, b"")),
            ("message too long", many),
        ];
        for (why, bytes) in cases {
            assert_eq!(all(&bytes, 1 << 20).unwrap_err(), why);
        }
        let mut twice = client(TEXT, b"a");
        twice.extend(client(0x80 | TEXT, b"b"));
        assert_eq!(all(&twice, 1 << 20).unwrap_err(), "frame out of order");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = all(&bytes, 13);
        }
    }
}
