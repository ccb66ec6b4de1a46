//! Compression of a layer: gzip of any number of members, zstd of any number of frames, or none. What counts is what the bytes say;
//! media types lie (docker pushes gzip under tar's name and the other way round).

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::limits::{ZSTD_WINDOW_BYTES_MAX, ZSTD_WINDOW_SHARED_BYTES_MAX};

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
            Codec::Zstd => Decoder::Zstd(Box::new(Zstd::new(inner)?)),
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

/// Zstd frames one after another, by the reference decoder (measured: 3.8 times as fast as the one in Rust, for 56 KB more; it gives a
/// frame's own checksum the once-over, two sha256 cover the bytes anyway). A large window is memory: one decoder at a time has one.
pub struct Zstd<R> {
    inner: R,
    decoder: DCtx<'static>,
    /// At the beginning or behind a whole frame: the input may end here.
    between: bool,
    large: Option<Turn>,
}

/// The right to a large window; whoever holds it may take it to another thread.
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Turn {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while std::mem::replace(&mut *taken, true) {
            taken = GIVEN_BACK.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

impl<R: BufRead> Zstd<R> {
    fn new(inner: R) -> io::Result<Zstd<R>> {
        let mut decoder = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BYTES_MAX.ilog2())).map_err(zstd_error)?;
        Ok(Zstd { inner, decoder, between: true, large: None })
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let bytes = self.inner.fill_buf()?;
            if self.between {
                if bytes.is_empty() {
                    return Ok(0);
                }
                if self.large.is_none() && window(bytes).is_none_or(|window| window > ZSTD_WINDOW_SHARED_BYTES_MAX) {
                    self.large = Some(Turn::wait());
                }
            }
            let ended = bytes.is_empty();
            let mut input = InBuffer::around(bytes);
            let mut output = OutBuffer::around(&mut *out);
            let more = self.decoder.decompress_stream(&mut output, &mut input).map_err(zstd_error)?;
            let (taken, given) = (input.pos(), output.pos());
            self.inner.consume(taken);
            self.between = more == 0;
            if given > 0 {
                return Ok(given);
            }
            if ended && !self.between {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Window of the frame that begins here (RFC 8878, 3.1.1.1); 0 for a skippable one, `None` if these bytes do not tell.
fn window(frame: &[u8]) -> Option<u64> {
    if matches!(frame, [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50) {
        return Some(0);
    }
    let [_, _, _, _, descriptor, rest @ ..] = frame else { return None };
    if descriptor & 0x20 == 0 {
        let byte = *rest.first()?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // A single segment: the window is the content, whose size stands behind the dictionary's id.
    let size = rest.get([0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?..)?;
    match descriptor >> 6 {
        0 => Some(u64::from(*size.first()?)),
        1 => Some(u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256),
        2 => Some(u64::from(u32::from_le_bytes(*size.first_chunk()?))),
        _ => Some(u64::from_le_bytes(*size.first_chunk()?)),
    }
}

fn zstd_error(code: usize) -> io::Error {
    bad(&format!("zstd: {}", zstd_safe::get_error_name(code)))
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
    fn windows_are_read_off_a_frame() {
        let frame = |rest: &[u8]| window(&[&[0x28, 0xb5, 0x2f, 0xfd], rest].concat());
        for (rest, want) in [
            (&[0u8, 0x58][..], Some(2 << 20)),
            (&[0, 0x59], Some((2 << 20) + (256 << 10))),
            (&[0x04, 0x88], Some(128 << 20)),
            (&[0xa0, 1, 2, 3, 4], Some(0x0403_0201)),
            (&[0x20, 9], Some(9)),
            (&[0x63, 7, 7, 7, 7, 1, 0], Some(257)),
            (&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0], Some(1 << 32)),
            (&[0xe0, 0, 0], None),
            (&[0], None),
            (&[], None),
        ] {
            assert_eq!(frame(rest), want, "{rest:x?}");
        }
        assert_eq!(window(&[0x5f, 0x2a, 0x4d, 0x18]), Some(0));
    }

    #[test]
    fn windows_beyond_the_limit_are_refused_and_large_ones_take_turns() {
        let with_window = |descriptor: u8, bytes: &[u8]| {
            let mut frame = zstd(bytes);
            frame[5] = descriptor;
            frame
        };
        assert_eq!(inflate(&with_window(0x88, b"128 MiB")).unwrap(), b"128 MiB");
        assert!(
            inflate(&with_window(0x89, b"144 MiB")).unwrap_err().to_string().contains("Frame requires too much memory")
        );
        let (small, large) = (with_window(0x60, &[1; 5000]), with_window(0x61, &[2; 5000]));
        let mut first = Decoder::new(&large[..]).unwrap();
        first.read_exact(&mut [0; 10]).unwrap();
        assert!(*TAKEN.lock().unwrap());
        assert_eq!(inflate(&small).unwrap(), [1; 5000]); // does not wait
        drop(first);
        let both = [small, large].concat();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(inflate(&both).unwrap().len(), 10_000));
            }
        });
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
