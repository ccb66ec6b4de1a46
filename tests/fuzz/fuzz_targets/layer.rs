//! Layers: decompression and tar of any bytes, and where each entry would be written. Nothing is: this is the pure half.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_images::layer::codec::Decoder;
use mote_images::layer::{entry, tar::Archive};
use std::io::{BufRead, BufReader, Read};

fn inside(path: &[u8]) {
    let fine = |part: &[u8]| part != b".." && part != b"." && !part.contains(&0);
    assert!(path.is_empty() || path.split(|b| *b == b'/').all(|part| !part.is_empty() && fine(part)), "{path:?}");
}

fn read(bytes: impl BufRead) {
    let mut archive = Archive::new(bytes);
    for _ in 0..1000 {
        let Ok(Some(member)) = archive.next_member() else { return };
        if let Ok((path, action)) = entry::decide(&member) {
            inside(path.bytes());
            if let entry::Action::Hardlink(target) = action {
                inside(target.bytes());
            }
        }
        let Ok(content) = archive.content(4096) else { return };
        let len = content.len();
        archive.take(len / 2);
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Ok(decoder) = Decoder::new(bytes) {
        read(BufReader::new(decoder.take(1 << 20)));
    }
});
