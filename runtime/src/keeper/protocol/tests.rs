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
