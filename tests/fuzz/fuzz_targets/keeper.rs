//! Frames between agent and keeper, in both directions, however they are cut.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_runtime::keeper::protocol::{Call, Decoder, Message, encode};

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, rest)) = bytes.split_first() else { return };
    let (mut whole, mut pieces, mut messages) = (Decoder::default(), Decoder::default(), Decoder::default());
    whole.push(rest);
    messages.push(rest);
    for piece in rest.chunks(usize::from(*cut) + 1) {
        pieces.push(piece);
    }
    while let Ok(Some(call)) = whole.next_frame::<Call>() {
        let bytes = encode(&call).unwrap_or_else(|e| panic!("{e}"));
        let again =
            pieces.next_frame::<Call>().ok().flatten().map(|call| encode(&call).unwrap_or_else(|e| panic!("{e}")));
        assert_eq!(Some(bytes), again);
    }
    while let Ok(Some(_)) = messages.next_frame::<Message>() {}
});
