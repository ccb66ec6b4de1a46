//! Header blocks of SPDY/3: pairs of length-prefixed names and values, all blocks of one direction in one zlib stream with a dictionary
//! that both sides know (SPDY protocol draft 3.1, section 2.6.10).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Bytes of one block, inflated.
const BLOCK_BYTES_MAX: usize = 16 << 10;
/// Pairs of one block.
const PAIRS_MAX: usize = 64;

/// The dictionary's words, each of which stands in it behind its length …
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
     authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 \
     content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since \
     last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer \
     transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200\u{a0}OK version HTTP/1.1 url public \
     set-cookie keep-alive origin";
/// … and what follows them as it is.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative \
     Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server \
     Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, \
     Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
     text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        // One of them has a space of its own.
        let word = word.replace('\u{a0}', " ");
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

/// The state of both directions.
pub(super) struct Headers {
    inflate: Decompress,
    deflate: Compress,
}

impl Headers {
    pub(super) fn new() -> Headers {
        Headers { inflate: Decompress::new(true), deflate: compressor() }
    }

    /// Reads a client's block. Names in lower case.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
        pairs(&self.inflated(block)?)
    }

    fn inflated(&mut self, mut block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::with_capacity(BLOCK_BYTES_MAX);
        let mut stuck = false;
        loop {
            let before = self.inflate.total_in();
            let done = self.inflate.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let used = usize::try_from(self.inflate.total_in() - before).unwrap_or(block.len());
            block = block.get(used..).unwrap_or_default();
            match done {
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                // No step forward: either the output is full or the stream has ended before its block.
                Ok(_) if out.len() == out.capacity() || used == 0 => return Err("headers too long"),
                Ok(_) => {}
                // The stream's head asks for the dictionary, once.
                Err(error) if error.needs_dictionary().is_some() && !stuck => {
                    stuck = true;
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| "headers do not inflate")?;
                }
                Err(_) => return Err("headers do not inflate"),
            }
        }
    }

    /// A block without pairs.
    pub(super) fn write_none(&mut self) -> Vec<u8> {
        deflated(&mut self.deflate, &0u32.to_be_bytes())
    }
}

/// A compressor as each side has one.
pub(super) fn compressor() -> Compress {
    let mut deflate = Compress::new(Compression::fast(), true);
    // Cannot fail before the first byte.
    let _ = deflate.set_dictionary(&dictionary());
    deflate
}

fn deflated(deflate: &mut Compress, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 256);
    let before = deflate.total_in();
    loop {
        let used = usize::try_from(deflate.total_in() - before).unwrap_or(bytes.len());
        let rest = bytes.get(used..).unwrap_or_default();
        if deflate.compress_vec(rest, &mut out, FlushCompress::Sync).is_err() || out.len() < out.capacity() {
            return out;
        }
        out.reserve(256);
    }
}

fn pairs(block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let (count, mut rest) = take_number(block)?;
    if count > PAIRS_MAX {
        return Err("too many headers");
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let name;
        (name, rest) = take_text(rest)?;
        let value;
        (value, rest) = take_text(rest)?;
        out.push((name.to_ascii_lowercase(), value));
    }
    Ok(out)
}

fn take_number(bytes: &[u8]) -> Result<(usize, &[u8]), &'static str> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or("headers too short")?;
    Ok((u32::from_be_bytes(*number) as usize, rest))
}

fn take_text(bytes: &[u8]) -> Result<(String, &[u8]), &'static str> {
    let (length, rest) = take_number(bytes)?;
    let (text, rest) = rest.split_at_checked(length).ok_or("headers too short")?;
    Ok((String::from_utf8_lossy(text).into_owned(), rest))
}

/// A client's block, for tests.
#[cfg(test)]
pub(super) fn block(deflate: &mut Compress, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut plain = (pairs.len() as u32).to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend((text.len() as u32).to_be_bytes());
        plain.extend(text.as_bytes());
    }
    deflated(deflate, &plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1950's checksum, by which a zlib stream names its dictionary.
    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        assert_eq!((dictionary().len(), adler32(&dictionary())), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let mut client = compressor();
        let mut server = Headers::new();
        for round in 0..50 {
            let value = format!("value {round}").repeat(round);
            let read = server.read(&block(&mut client, &[("StreamType", "error"), ("x", &value)])).unwrap();
            assert_eq!(read, [("streamtype".to_owned(), "error".to_owned()), ("x".into(), value)]);
        }
    }

    #[test]
    fn limits() {
        let long = "x".repeat(BLOCK_BYTES_MAX + 1);
        assert_eq!(Headers::new().read(&block(&mut compressor(), &[("a", &long)])).unwrap_err(), "headers too long");
        let many = vec![("a", "b"); PAIRS_MAX + 1];
        assert_eq!(Headers::new().read(&block(&mut compressor(), &many)).unwrap_err(), "too many headers");
        assert_eq!(pairs(&[0, 0, 0, 1, 0, 0, 0, 9, 1]).unwrap_err(), "headers too short");
    }
}
