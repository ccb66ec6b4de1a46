//! What an unpacked layer consists of, written beside it while it is unpacked, so that damage can be found without a network.
//!
//! File `list`: the magic line, then records `u16 length (little-endian), postcard bytes of [Line]`, then a zero length and the
//! CRC-32 of all record bytes (little-endian). Later lines about a path replace earlier ones.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};

/// First bytes of the file; a new version gets a new line.
pub const MAGIC: &[u8] = b"mote layer list 1\n";
const LINE_BYTES_MAX: usize = 2 * crate::limits::PATH_BYTES_MAX + 64;

/// One path of a layer. Mode includes the file type as `st_mode` does.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
pub enum Line {
    /// A regular file.
    File {
        path: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        crc32: u32,
    },
    /// Folder, device, FIFO, whiteout.
    Node {
        path: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
        device: u64,
    },
    Symlink {
        path: Vec<u8>,
        uid: u32,
        gid: u32,
        target: Vec<u8>,
    },
    Hardlink {
        path: Vec<u8>,
        target: Vec<u8>,
    },
    /// An earlier path and everything below it is gone again.
    Gone {
        path: Vec<u8>,
    },
}

impl Line {
    /// Which path the line is about.
    pub fn path(&self) -> &[u8] {
        match self {
            Line::File { path, .. }
            | Line::Node { path, .. }
            | Line::Symlink { path, .. }
            | Line::Hardlink { path, .. }
            | Line::Gone { path } => path,
        }
    }
}

/// Writes a listing.
pub struct Writer {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
    scratch: Vec<u8>,
}

impl Writer {
    /// Begins the file.
    pub fn new(file: File) -> io::Result<Writer> {
        let mut out = BufWriter::with_capacity(16 << 10, file);
        out.write_all(MAGIC)?;
        Ok(Writer { out, crc: crc32fast::Hasher::new(), scratch: Vec::with_capacity(256) })
    }

    /// One more line.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        self.scratch.clear();
        self.scratch = postcard::to_extend(line, std::mem::take(&mut self.scratch)).map_err(io::Error::other)?;
        let length = u16::try_from(self.scratch.len()).map_err(io::Error::other)?;
        self.crc.update(&self.scratch);
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&self.scratch)
    }

    /// Ends the file; without this it is never taken for whole.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0, 0])?;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.flush()
    }
}

/// Reads a listing and calls `each` for every line, in order. An error means the listing itself is damaged.
pub fn read(file: File, mut each: impl FnMut(Line)) -> io::Result<()> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut input = BufReader::with_capacity(16 << 10, file);
    let mut magic = [0u8; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(bad("not a layer list of version 1"));
    }
    let mut crc = crc32fast::Hasher::new();
    let mut record = Vec::new();
    loop {
        let mut length = [0u8; 2];
        input.read_exact(&mut length)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length == 0 {
            break;
        }
        if length > LINE_BYTES_MAX {
            return Err(bad("line is too long"));
        }
        record.resize(length, 0);
        input.read_exact(&mut record)?;
        crc.update(&record);
        each(postcard::from_bytes(&record).map_err(|_| bad("line cannot be decoded"))?);
    }
    let mut sum = [0u8; 4];
    input.read_exact(&mut sum)?;
    if u32::from_le_bytes(sum) != crc.finalize() || !input.fill_buf()?.is_empty() {
        return Err(bad("checksum does not match"));
    }
    Ok(())
}
