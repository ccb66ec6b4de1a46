//! One pass over a layer: every entry decided by [`super::entry`], applied by [`apply`], written by [`super::tree`], noted in
//! [`super::listing`].

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ahead::{self, Ahead};
use super::codec::Decoder;
use super::entry::{Inner, decide, xattr_allowed};
use super::hashing::{Hashing, TooLong};
use super::listing::{Line, Writer};
use super::open::Open;
use super::pax::Moment;
use super::tar::{Archive, TarError};
use super::tree::{Attributes, Tree};
use crate::digest::Hasher;
use crate::limits::{BOMB_FLOOR_BYTES, ENTRIES_MAX, INFLATE_RATIO_MAX, LAYER_BLOB_BYTES_MAX, LAYER_TAR_BYTES_MAX};
use crate::{Cancel, DiffId, Digest, Error};

/// What a layer turned out to be. The caller compares the digests with what was promised before the folder is used.
pub struct Unpacked {
    pub digest: Digest,
    pub diff_id: DiffId,
    /// Bytes as transferred.
    pub blob_bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    pub entries: u64,
    /// What only the layers below can answer.
    pub open: Open,
}

/// What bounds a layer, and how its folder is written: the limits of this crate, but for tests.
struct Bounds {
    entries: u64,
    bomb_floor_bytes: u64,
    /// Use openat2; else as on a kernel before 5.6.
    openat2: bool,
    /// Whether the file system takes several names for one; `None`: a probe tells.
    folds: Option<bool>,
}

const BOUNDS: Bounds = Bounds { entries: ENTRIES_MAX, bomb_floor_bytes: BOMB_FLOOR_BYTES, openat2: true, folds: None };

/// Where a layer goes, and who is told meanwhile.
pub struct Onto<'a> {
    /// Names the layer in errors.
    pub what: &'a str,
    /// An empty folder, for the files.
    pub fs: &'a Path,
    /// Empty, for the listing.
    pub list: File,
    /// Hears the count of transferred bytes now and then.
    pub progress: &'a dyn Fn(u64),
    pub cancel: &'a Cancel,
}

/// Unpacks the layer that `input` yields.
pub fn unpack<R: Read + Send>(input: R, onto: Onto<'_>) -> Result<Unpacked, Error> {
    unpack_within(&BOUNDS, input, onto)
}

fn unpack_within<R: Read + Send>(bounds: &Bounds, input: R, onto: Onto<'_>) -> Result<Unpacked, Error> {
    let Onto { what, fs, list, progress, cancel } = onto;
    let mut source = Hashing::new(Watched { inner: input, failure: None }, LAYER_BLOB_BYTES_MAX);
    if let Err(e) = source.fill_buf() {
        let cause = source.finish().2.failure.unwrap_or(e);
        return Err(stream_error(what, "its first bytes", cause));
    }
    let decoder = Decoder::new(source).map_err(|e| stream_error(what, "its first bytes", e))?;
    let mut tree = Tree::open(fs).map_err(|e| Error::io("open", fs, e))?;
    if !bounds.openat2 {
        tree.as_on_old_kernels();
    }
    let folds = bounds.folds.map_or_else(|| tree.folds_names(), Ok).map_err(|e| Error::io("write", fs, e))?;
    let (supply, mut archive) = ahead::line(LAYER_TAR_BYTES_MAX);
    // The archive of a layer that is not compressed is hashed on its way in.
    let tally = (!matches!(decoder, Decoder::Plain(_))).then(|| archive.tallied());
    let taken = AtomicU64::new(0);
    let mut job = Job {
        bounds,
        what,
        archive: Archive::new(archive),
        taken: &taken,
        tree,
        names: folds.then(HashSet::new),
        fs,
        list: Writer::new(list).map_err(|e| Error::io("write the listing of", fs, e))?,
        progress,
        reported: 0,
        cancel,
        mtimes: Vec::new(),
        open: Open { folders: [Inner::default()].into(), ..Open::default() },
        file_bytes: 0,
        entries: 0,
    };
    let thread = std::thread::Builder::new;
    std::thread::scope(|scope| {
        let no_thread = |e| Error::io("start a thread for", fs, e);
        let below = thread().spawn_scoped(scope, || supply.run(decoder, &taken)).map_err(no_thread)?;
        let tally = tally.map(|tally| thread().spawn_scoped(scope, || tally.run())).transpose().map_err(no_thread)?;
        // What lies behind the archive's end belongs to both digests.
        let done = job.run().and_then(|()| job.drain());
        let Job { archive, list, file_bytes, entries, open, .. } = job;
        let mut is_broken = archive.into_inner().finish();
        let (source, tail) = below.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let plain_hash = tally.map(|tally| tally.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        is_broken |= tail.is_err();
        let done = done.and_then(|()| tail.map_err(|e| stream_error(what, "the end of the layer", e)));
        let (hash, blob_bytes, watched) = source.finish();
        match (done, watched.failure) {
            // Decoders wrap what failed below them; the first cause is the one to tell.
            (Err(_), Some(cause)) if is_broken => return Err(stream_error(what, "reading", cause)),
            (Err(e), _) => return Err(e),
            (Ok(()), _) => {}
        }
        list.finish().map_err(|e| Error::io("write the listing of", fs, e))?;
        progress(blob_bytes);
        let digest = hash.map(Hasher::digest).ok_or_else(|| Error::corrupt(what, "was not hashed"))?;
        let diff_id = plain_hash.map_or_else(|| DiffId::of_plain(digest), Hasher::diff_id);
        Ok(Unpacked { digest, diff_id, blob_bytes, file_bytes, entries, open })
    })
}

/// Remembers what went wrong below the decoders.
struct Watched<R> {
    inner: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out).map_err(|e| {
            let kind = e.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failure = Some(e);
            }
            kind.into()
        })
    }
}

/// An IO error of the stream: our own error inside is taken out again, the rest means damaged bytes.
fn stream_error(what: &str, place: &str, e: io::Error) -> Error {
    if let Some(TooLong(max)) = e.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Error::refused(what, format!("{place}: more than {max} bytes"));
    }
    match e.downcast::<Error>() {
        Ok(own) => own,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Error::corrupt(what, format!("{place}: the stream ends too early"))
        }
        Err(e) => Error::corrupt(what, format!("{place}: {e}")),
    }
}

struct Job<'a> {
    bounds: &'a Bounds,
    what: &'a str,
    archive: Archive<Ahead>,
    /// Compressed bytes that were read so far.
    taken: &'a AtomicU64,
    tree: Tree,
    /// Every path made so far, on a file system that folds names: what else is found there is another name's.
    names: Option<HashSet<Inner>>,
    fs: &'a Path,
    list: Writer,
    progress: &'a dyn Fn(u64),
    reported: u64,
    cancel: &'a Cancel,
    mtimes: Vec<(Inner, Moment)>,
    open: Open,
    file_bytes: u64,
    entries: u64,
}

impl Job<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let mut last = String::new();
        loop {
            self.skip_content(&last)?;
            let member = match self.archive.next_member() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(e) => return Err(self.tar_error(e, &last)),
            };
            self.entries += 1;
            if self.entries > self.bounds.entries {
                let why = format!(
                    "entry {:?}: more than {} entries",
                    String::from_utf8_lossy(&member.path),
                    self.bounds.entries
                );
                return Err(Error::refused(self.what, why));
            }
            self.pulse()?;
            let refuse = |why: &str| {
                Error::refused(self.what, format!("entry {:?}: {why}", String::from_utf8_lossy(&member.path)))
            };
            let (path, action) = decide(&member).map_err(refuse)?;
            let (Ok(uid), Ok(gid)) = (u32::try_from(member.uid), u32::try_from(member.gid)) else {
                return Err(refuse("owner does not fit in 32 bits"));
            };
            last = path.text();
            let attributes = Attributes {
                mode: member.mode,
                uid,
                gid,
                mtime: member.mtime,
                xattrs: member.xattrs.iter().filter(|(name, _)| xattr_allowed(name)).cloned().collect(),
            };
            self.apply(&path, action, &member, &attributes)?;
        }
        self.finish_dirs()
    }

    /// What is left of the current entry, looked at for bombs on the way.
    fn skip_content(&mut self, last: &str) -> Result<(), Error> {
        loop {
            let n = match self.archive.content(u64::MAX) {
                Ok(data) => data.len(),
                Err(e) => return Err(self.tar_error(e.into(), last)),
            };
            if n == 0 {
                return Ok(());
            }
            self.archive.take(n);
            self.pulse()?;
        }
    }

    /// The bytes behind the archive's end.
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            let plain = self.archive.get_mut();
            let n = plain.fill_buf().map_err(|e| stream_error(self.what, "the end of the archive", e))?.len();
            if n == 0 {
                return Ok(());
            }
            plain.consume(n);
            self.pulse()?;
        }
    }

    fn finish_dirs(&mut self) -> Result<(), Error> {
        for (path, mtime) in std::mem::take(&mut self.mtimes) {
            self.tree.dir_mtime(&path, mtime).map_err(|e| self.entry_error(&path, e))?;
        }
        for path in &self.open.folders {
            self.tree
                .dir_mtime(path, Moment::default())
                .map_err(|e| Error::io("set the time of", self.fs.join(path.text()), e))?;
        }
        Ok(())
    }

    /// Once per entry and per buffer: the end if asked for, the word about progress, the eye on bombs.
    fn pulse(&mut self) -> Result<(), Error> {
        self.cancel.check()?;
        let (plain, blob) = (self.archive.get_ref().total(), self.taken.load(Ordering::Relaxed));
        if plain > self.bounds.bomb_floor_bytes && plain / INFLATE_RATIO_MAX > blob {
            return Err(Error::refused(self.what, format!("decompression bomb: {blob} bytes became {plain}")));
        }
        if blob >= self.reported.saturating_add(256 << 10) {
            self.reported = blob;
            (self.progress)(blob);
        }
        Ok(())
    }

    fn note(&mut self, line: Line) -> Result<(), Error> {
        self.list.line(&line).map_err(|e| Error::io("write the listing of", self.fs, e))
    }

    /// An entry could not be written: symbolic links and files in the place of parents are the archive's fault, the rest the system's.
    fn entry_error(&self, path: &Inner, e: io::Error) -> Error {
        match (e.kind(), e.raw_os_error()) {
            (io::ErrorKind::NotADirectory, _) | (_, Some(libc::ELOOP | libc::EXDEV)) => Error::refused(
                self.what,
                format!("entry {:?}: a parent is no folder (a symbolic link or a file)", path.text()),
            ),
            (_, Some(libc::ENOSPC | libc::EDQUOT)) => {
                Error::DiskFull { what: format!("{}: entry {:?}", self.what, path.text()) }
            }
            _ => Error::io("write", self.fs.join(path.text()), e),
        }
    }

    fn tar_error(&self, e: TarError, last: &str) -> Error {
        let after = if last.is_empty() { "at the first entry".to_owned() } else { format!("after entry {last:?}") };
        match e {
            TarError::Read(e) => stream_error(self.what, &after, e),
            TarError::Damaged(why) => Error::corrupt(self.what, format!("{after}: {why}")),
            TarError::Refused(why) => Error::refused(self.what, format!("{after}: {why}")),
        }
    }
}

mod apply;
#[cfg(test)]
mod tests;
