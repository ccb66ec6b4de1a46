//! Layers: decompression and tar of any bytes, where each entry would be written, extension records, access control lists.
//! Nothing is written below a layer's folder: this is the pure half.
#![no_main]
use std::io::{BufRead, BufReader, Read};

use libfuzzer_sys::fuzz_target;
use mote_images::layer::codec::Decoder;
use mote_images::layer::{acl, entry, pax, tar::Archive};

fn inside(path: &[u8]) {
    let fine = |part: &[u8]| part != b".." && part != b"." && !part.contains(&0);
    assert!(path.is_empty() || path.split(|b| *b == b'/').all(|part| !part.is_empty() && fine(part)), "{path:?}");
}

fn read(bytes: impl BufRead) {
    let mut archive = Archive::new(bytes);
    for _ in 0..1000 {
        let Ok(Some(member)) = archive.next_member() else { return };
        if let Some(runs) = &member.runs {
            let mut at = 0;
            for (offset, length) in runs {
                assert!(*offset >= at && offset + length <= member.size, "{runs:?}");
                at = offset + length;
            }
        }
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
    let _ = pax::Extensions::default().read(bytes);
    if let Ok(Some(value)) = acl::attribute(bytes) {
        assert!(value.len() >= 12 && (value.len() - 4) % 8 == 0);
    }
});
