//! What a client of exec, attach and port-forward sends: WebSocket frames or SPDY, in pieces. First byte: which, and how long a piece is.
#![no_main]
#![allow(dead_code)]
use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/server/stream"]
mod stream {
    pub(crate) mod spdy;
    pub(crate) mod websocket;
}
use stream::spdy::{Event, Spdy};
use stream::websocket::{Message, Reader};

/// What pieces of a conversation come to, and how it ended; the pieces' lengths must not matter.
fn websocket(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<&'static str>) {
    let (mut reader, mut heard) = (Reader::default(), Vec::new());
    for part in bytes.chunks(piece) {
        reader.receive(part);
        loop {
            match reader.next() {
                Ok(Some(message)) => heard.push(message),
                Ok(None) => break,
                Err(why) => return (heard, Some(why)),
            }
        }
    }
    (heard, None)
}

fn spdy(bytes: &[u8], piece: usize) -> (Vec<Event>, Vec<u8>, Option<&'static str>) {
    let (mut session, mut heard, mut said) = (Spdy::new(), Vec::new(), Vec::new());
    for part in bytes.chunks(piece) {
        session.receive(part);
        loop {
            match session.next(&mut said) {
                Ok(Some(event)) => heard.push(event),
                Ok(None) => break,
                Err(why) => return (heard, said, Some(why)),
            }
        }
    }
    (heard, said, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let piece = usize::from(first >> 1) + 1;
    if first & 1 == 0 {
        assert_eq!(websocket(rest, piece), websocket(rest, rest.len().max(1)));
    } else {
        assert_eq!(spdy(rest, piece), spdy(rest, rest.len().max(1)));
    }
});
