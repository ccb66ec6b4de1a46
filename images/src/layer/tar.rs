//! The sequence of entries of a tar archive: ustar, PAX, GNU, V7. Headers are decoded by the `tar` crate; the walk over them is ours
//! because that crate's iterator reads PAX headers of any size into memory, knows no PAX sparse files and cuts records at newlines.
//!
//! Global PAX headers (`g`) are skipped, as Go's tools do. An archive ends at its first zero block or at its end.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

use super::pax::{Extensions, Moment, Xattr};
use crate::limits::{EXTENSION_BYTES_MAX, EXTENSIONS_PER_ENTRY_MAX, SPARSE_SEGMENTS_MAX};

const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// One entry; its content follows in the reader.
#[derive(Debug)]
pub struct Member {
    pub kind: Kind,
    pub path: Vec<u8>,
    /// Target of links.
    pub link: Vec<u8>,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: Moment,
    pub xattrs: Vec<Xattr>,
    /// Bytes of the file on disk.
    pub size: u64,
    /// For a sparse file: offset and length of each data run; the rest is holes.
    pub runs: Option<Vec<(u64, u64)>>,
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes below failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The archive is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Beyond a limit or not supported.
    #[error("{0}")]
    Refused(String),
}

fn damaged<T>(why: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Damaged(why.into()))
}

/// Reads entries one after another.
pub struct Archive<R> {
    inner: R,
    /// Bytes of content of the current entry not yet taken.
    content: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// From the first header on.
    pub fn new(inner: R) -> Archive<R> {
        Archive { inner, content: 0, padding: 0 }
    }

    /// What is below.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// What is below, to read on where the archive ended.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The reader below, which stands behind the last thing read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was left of the one before is skipped. `None` at the end.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.skip(self.content.saturating_add(self.padding))?;
        (self.content, self.padding) = (0, 0);
        let mut ext = Extensions::default();
        let (mut long_path, mut long_link) = (None, None);
        for extensions in 0.. {
            if extensions > EXTENSIONS_PER_ENTRY_MAX {
                return Err(TarError::Refused(format!(
                    "more than {EXTENSIONS_PER_ENTRY_MAX} extension headers before one entry"
                )));
            }
            let Some(header) = self.header()? else {
                return if extensions == 0 { Ok(None) } else { damaged("archive ends after an extension header") };
            };
            match header.entry_type() {
                EntryType::XHeader => {
                    let data = self.extension(&header, "PAX header")?;
                    ext.read(&data).map_err(TarError::Damaged)?;
                }
                EntryType::XGlobalHeader => drop(self.extension(&header, "PAX global header")?),
                EntryType::GNULongName => long_path = Some(self.extension(&header, "long name")?),
                EntryType::GNULongLink => long_link = Some(self.extension(&header, "long link name")?),
                _ => return self.member(&header, ext, long_path, long_link).map(Some),
            }
        }
        damaged("too many extension headers")
    }

    /// Up to `max` bytes of the current entry's content; empty at its end. Take them with [`Archive::take`].
    pub fn content(&mut self, max: u64) -> io::Result<&[u8]> {
        if self.content == 0 || max == 0 {
            return Ok(&[]);
        }
        let data = self.inner.fill_buf()?;
        if data.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends within a file"));
        }
        let n = usize::try_from(self.content.min(max)).unwrap_or(usize::MAX).min(data.len());
        Ok(data.get(..n).unwrap_or_default())
    }

    /// The first `n` bytes of what [`Archive::content`] showed are done with.
    pub fn take(&mut self, n: usize) {
        self.inner.consume(n);
        self.content = self.content.saturating_sub(n as u64);
    }

    fn skip(&mut self, mut n: u64) -> Result<(), TarError> {
        while n > 0 {
            let have = self.inner.fill_buf()?.len();
            if have == 0 {
                return damaged("archive ends within an entry");
            }
            let step = usize::try_from(n).unwrap_or(usize::MAX).min(have);
            self.inner.consume(step);
            n -= step as u64;
        }
        Ok(())
    }

    fn block(&mut self, block: &mut [u8; 512]) -> Result<bool, TarError> {
        if self.inner.fill_buf()?.is_empty() {
            return Ok(false);
        }
        match self.inner.read_exact(block) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => damaged("archive ends within a header"),
            done => Ok(done.map(|()| true)?),
        }
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? || header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return damaged("header checksum does not match");
        }
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header, what: &str) -> Result<Vec<u8>, TarError> {
        let size = header.entry_size().or_else(|_| damaged(format!("{what} has no valid size")))?;
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::Refused(format!(
                "{what} of {size} bytes, at most {EXTENSION_BYTES_MAX} are allowed"
            )));
        }
        let mut data = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut data)?;
        if data.len() as u64 != size {
            return damaged(format!("archive ends within a {what}"));
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    fn member(
        &mut self,
        header: &Header,
        ext: Extensions,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, TarError> {
        let mut path = ext.path.or_else(|| long_path.map(to_nul)).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = ext
            .link
            .or_else(|| long_link.map(to_nul))
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let name = || String::from_utf8_lossy(&path).into_owned();
        let field = |what: &str, value: io::Result<u64>| {
            value.or_else(|_| damaged(format!("{}: invalid {what} in header", name())))
        };
        let stored = match ext.size {
            Some(size) => size,
            None => field("size", header.entry_size())?,
        };
        let device = || -> Result<(u32, u32), TarError> {
            match (header.device_major(), header.device_minor()) {
                (Ok(major), Ok(minor)) => Ok((major.unwrap_or(0), minor.unwrap_or(0))),
                _ => damaged(format!("{}: invalid device number in header", name())),
            }
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Dir,
            EntryType::Regular if path.ends_with(b"/") => Kind::Dir, // V7 had no type for folders
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::Hardlink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(major, minor)| Kind::Char { major, minor })?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block { major, minor })?,
            other => {
                return Err(TarError::Refused(format!(
                    "{}: entry type {:?} is not supported",
                    name(),
                    char::from(other.as_byte())
                )));
            }
        };
        let mode = header.mode().or_else(|_| damaged(format!("{}: invalid mode in header", name())))? & 0o7777;
        let uid = ext.uid.map_or_else(|| field("uid", header.uid()), Ok)?;
        let gid = ext.gid.map_or_else(|| field("gid", header.gid()), Ok)?;
        // A base-256 field before 1970 is two's complement in the 64 bits the crate returns.
        let mtime = match ext.mtime {
            Some(moment) => moment,
            None => Moment { secs: field("mtime", header.mtime())? as i64, nanos: 0 },
        };
        let has_content = kind == Kind::File;
        // Links and folders carry no content, whatever their size says (POSIX; GNU tar writes the target's size for hard links in old formats).
        self.content = if has_content { stored } else { 0 };
        self.padding = if has_content { padding(stored) } else { 0 };
        if matches!(kind, Kind::Dir) && stored > 0 {
            (self.content, self.padding) = (stored, padding(stored));
        }
        let mut size = if has_content { stored } else { 0 };
        let mut runs = None;
        if header.entry_type() == EntryType::GNUSparse {
            let numbers = self.old_gnu_map(header)?;
            size = header
                .as_gnu()
                .and_then(|gnu| gnu.real_size().ok())
                .map_or_else(|| damaged("sparse file without its real size"), Ok)?;
            runs = Some(checked_runs(&numbers, size, self.content)?);
        } else if has_content
            && (ext.sparse.major > 0 || !ext.sparse.numbers.is_empty() || ext.sparse.real_size.is_some())
        {
            let real = ext.sparse.real_size.map_or_else(|| damaged("sparse file without its real size"), Ok)?;
            let numbers = if ext.sparse.major > 0 { self.leading_map()? } else { ext.sparse.numbers };
            size = real;
            runs = Some(checked_runs(&numbers, size, self.content)?);
            path = ext.sparse.name.unwrap_or(path);
        }
        Ok(Member { kind, path, link, mode, uid, gid, mtime, xattrs: ext.xattrs, size, runs })
    }

    /// Map of an old GNU sparse file: four runs in the header, more in extension blocks behind it.
    fn old_gnu_map(&mut self, header: &Header) -> Result<Vec<u64>, TarError> {
        let Some(gnu) = header.as_gnu() else { return damaged("sparse entry without a GNU header") };
        let mut numbers = Vec::new();
        let mut add = |run: &tar::GnuSparseHeader| -> Result<(), TarError> {
            if run.is_empty() {
                return Ok(());
            }
            let (Ok(offset), Ok(length)) = (run.offset(), run.length()) else { return damaged("invalid sparse map") };
            if numbers.len() >= 2 * SPARSE_SEGMENTS_MAX {
                return Err(TarError::Refused(format!("more than {SPARSE_SEGMENTS_MAX} sparse segments")));
            }
            numbers.extend([offset, length]);
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            let bytes: &mut [u8; 512] = block.as_mut_bytes();
            let ended = self.inner.read_exact(bytes).is_err();
            if ended {
                return damaged("archive ends within a sparse map");
            }
            block.sparse.iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        Ok(numbers)
    }

    /// Map of a PAX 1.0 sparse file: decimal lines at the head of the content, padded to a block.
    fn leading_map(&mut self) -> Result<Vec<u64>, TarError> {
        let mut taken = 0u64;
        let mut count = None;
        let mut numbers = Vec::new();
        while count.is_none_or(|count| (numbers.len() as u64) < 2 * count) {
            let mut line = Vec::new();
            let read =
                (&mut self.inner).take(self.content.saturating_sub(taken).min(24)).read_until(b'\n', &mut line)?;
            taken += read as u64;
            let number = line.strip_suffix(b"\n").and_then(super::pax::decimal);
            match (number, count) {
                (None, _) => return damaged("invalid sparse map"),
                (Some(number), None) if number > SPARSE_SEGMENTS_MAX as u64 => {
                    return Err(TarError::Refused(format!("more than {SPARSE_SEGMENTS_MAX} sparse segments")));
                }
                (Some(number), None) => count = Some(number),
                (Some(number), Some(_)) => numbers.push(number),
            }
        }
        let whole = taken.saturating_add(padding(taken));
        if whole > self.content {
            return damaged("sparse map is longer than the file");
        }
        self.skip(whole - taken)?;
        self.content -= whole;
        Ok(numbers)
    }
}

/// Runs in order, within the file, and as long in all as what is stored.
fn checked_runs(numbers: &[u64], size: u64, stored: u64) -> Result<Vec<(u64, u64)>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return damaged("odd sparse map");
    }
    let (mut at, mut total) = (0u64, 0u64);
    let mut runs = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        let &[offset, length] = pair else { return damaged("odd sparse map") };
        let Some(end) = offset.checked_add(length).filter(|end| offset >= at && *end <= size) else {
            return damaged("sparse runs overlap or leave the file");
        };
        (at, total) = (end, total.saturating_add(length));
        runs.push((offset, length));
    }
    if total == stored { Ok(runs) } else { damaged("sparse map does not match the stored size") }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

fn to_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}
