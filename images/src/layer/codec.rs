//! Compression of a layer: gzip of any number of members, zstd of any number of frames, or none. What counts is what the bytes say;
//! media types lie (docker pushes gzip under tar's name and the other way round).

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::limits::ZSTD_WINDOW_BYTES_MAX;

/// How a layer is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    Plain,
    Gzip,
    Zstd,
}

impl Codec {
    /// By the first bytes (RFC 1952, RFC 8878; a zstd stream may begin with a skippable frame).
    pub fn of(head: &[u8]) -> Codec {
        match head {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Codec::Zstd,
            _ => Codec::Plain,
        }
    }
}

/// Inflates `R`.
pub enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<Zstd<R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes and chooses.
    pub fn new(mut inner: R) -> io::Result<Decoder<R>> {
        Ok(match Codec::of(inner.fill_buf()?) {
            Codec::Plain => Decoder::Plain(inner),
            Codec::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(inner))),
            Codec::Zstd => Decoder::Zstd(Box::new(Zstd::new(inner))),
        })
    }

    /// What is below.
    pub fn get_ref(&self) -> &R {
        match self {
            Decoder::Plain(inner) => inner,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => &decoder.inner,
        }
    }

    /// Ends decoding, gives the reader below back.
    pub fn into_inner(self) -> R {
        match self {
            Decoder::Plain(inner) => inner,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.inner,
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(inner) => inner.read(out),
            Decoder::Gzip(decoder) => decoder.read(out),
            Decoder::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// Zstd frames one after another; the window is reused. The frames' own checksums are not looked at: two sha256 cover the bytes.
pub struct Zstd<R> {
    inner: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(inner: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        Zstd { inner, decoder, within: false }
    }

    /// Steps over skippable frames; false at the end of the input.
    fn at_frame(&mut self) -> io::Result<bool> {
        loop {
            match self.inner.fill_buf()?.first() {
                None => return Ok(false),
                Some(low) if low & 0xf0 == 0x50 => {}
                Some(_) => return Ok(true),
            }
            let mut header = [0u8; 8];
            self.inner.read_exact(&mut header)?;
            let [_, 0x2a, 0x4d, 0x18, a, b, c, d] = header else {
                return Err(bad("not a zstd frame"));
            };
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            if io::copy(&mut (&mut self.inner).take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                if !self.at_frame()? {
                    return Ok(0);
                }
                self.decoder.init(&mut self.inner).map_err(|e| bad(&e.to_string()))?;
                self.within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.inner, step).map_err(|e| bad(&e.to_string()))?;
            }
            let n = self.decoder.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            self.within = false;
        }
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// One zstd frame of raw blocks, as the format describes it (RFC 8878, 3.1.1): no encoder needed.
    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        let mut chunks = bytes.chunks(1000).peekable();
        if bytes.is_empty() {
            frame.extend_from_slice(&[1, 0, 0]);
        }
        while let Some(chunk) = chunks.next() {
            let header = (chunk.len() as u32) << 3 | u32::from(chunks.peek().is_none());
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.extend_from_slice(chunk);
        }
        frame
    }

    #[test]
    fn every_member_and_frame_counts() {
        let (a, b) = (vec![7u8; 5000], b"second".to_vec());
        let both = [a.clone(), b.clone()].concat();
        assert_eq!(inflate(&both).unwrap(), both);
        assert_eq!(inflate(&[gzip(&a), gzip(&b)].concat()).unwrap(), both);
        assert_eq!(inflate(&[zstd(&a), zstd(&b)].concat()).unwrap(), both);
        let skip = [0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(inflate(&[&skip[..], &zstd(&a), &skip, &zstd(b""), &zstd(&b)].concat()).unwrap(), both);
        assert_eq!(inflate(b"").unwrap(), b"");
    }

    #[test]
    fn cut_or_garbled_streams_are_errors() {
        for whole in [gzip(&[1; 9000]), zstd(&[1; 9000])] {
            for cut in 5..whole.len() {
                assert!(inflate(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
            }
            assert!(inflate(&[whole, b"garbage".to_vec()].concat()).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(kind in 0..3usize, tail in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let head: &[u8] = [&[0x1f, 0x8b, 8][..], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]][kind];
            let _ = inflate(&[head, &tail].concat());
        }
    }
}
