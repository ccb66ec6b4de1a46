//! One pass over a layer: every entry decided by [`super::entry`], written by [`super::tree`], noted in [`super::listing`].

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::codec::Decoder;
use super::entry::{Action, Inner, decide, xattr_allowed};
use super::hashing::{Hashing, TooLong};
use super::listing::{Line, Writer};
use super::open::Open;
use super::pax::Moment;
use super::tar::{Archive, Kind, Member, TarError};
use super::tree::{Attributes, Made, Occupant, Tree};
use crate::limits::{
    BOMB_FLOOR_BYTES, ENTRIES_MAX, INFLATE_RATIO_MAX, LAYER_BLOB_BYTES_MAX, LAYER_TAR_BYTES_MAX, LINKS_BELOW_MAX,
};
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

/// Unpacks the layer that `input` yields into the empty folder `fs`, and its listing into `list`. `what` names the layer in errors;
/// `progress` hears the count of transferred bytes now and then.
pub fn unpack<R: Read>(
    input: R,
    what: &str,
    fs: &Path,
    list: File,
    progress: &dyn Fn(u64),
    cancel: &Cancel,
) -> Result<Unpacked, Error> {
    let mut source = Hashing::new(Watched { inner: input, failure: None }, LAYER_BLOB_BYTES_MAX);
    if let Err(e) = source.fill_buf() {
        let cause = source.finish().2.failure.unwrap_or(e);
        return Err(stream_error(what, "its first bytes", cause));
    }
    let decoder = Decoder::new(source).map_err(|e| stream_error(what, "its first bytes", e))?;
    let mut job = Job {
        what,
        archive: Archive::new(Hashing::new(decoder, LAYER_TAR_BYTES_MAX)),
        tree: Tree::open(fs).map_err(|e| Error::io("open", fs, e))?,
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
    let done = job.run();
    let Job { archive, list, file_bytes, entries, open, .. } = job;
    let mut plain = archive.into_inner();
    // What lies behind the archive's end belongs to both digests.
    let done = done.and_then(|()| plain.drain().map_err(|e| stream_error(what, "the end of the archive", e)));
    let (plain_hash, _, decoder) = plain.finish();
    let mut source = decoder.into_inner();
    let done = done.and_then(|()| source.drain().map_err(|e| stream_error(what, "the end of the layer", e)));
    let (hash, blob_bytes, watched) = source.finish();
    match (done, watched.failure) {
        // Decoders wrap what failed below them; the first cause is the one to tell.
        (Err(_), Some(cause)) => return Err(stream_error(what, "reading", cause)),
        (Err(e), None) => return Err(e),
        (Ok(()), _) => {}
    }
    list.finish().map_err(|e| Error::io("write the listing of", fs, e))?;
    progress(blob_bytes);
    Ok(Unpacked { digest: hash.digest(), diff_id: plain_hash.diff_id(), blob_bytes, file_bytes, entries, open })
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

struct Job<'a, R: Read> {
    what: &'a str,
    archive: Archive<Hashing<Decoder<Hashing<Watched<R>>>>>,
    tree: Tree,
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

impl<R: Read> Job<'_, R> {
    fn run(&mut self) -> Result<(), Error> {
        let mut last = String::new();
        loop {
            let member = match self.archive.next_member() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(e) => return Err(self.tar_error(e, &last)),
            };
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(Error::refused(self.what, format!("more than {ENTRIES_MAX} entries")));
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

    fn apply(&mut self, path: &Inner, action: Action, member: &Member, attributes: &Attributes) -> Result<(), Error> {
        if action == Action::Skip {
            return Ok(());
        }
        let made = self.tree.make_parents(path).map_err(|e| self.entry_error(path, e))?;
        for Made { path: parent, fresh } in made {
            if self.open.links.contains_key(&parent) {
                return Err(self.entry_error(path, io::ErrorKind::NotADirectory.into()));
            }
            self.undescribed(parent, fresh)?;
        }
        let occupant = self.tree.occupant(path).map_err(|e| self.entry_error(path, e))?;
        match action {
            Action::Opaque => self.opaque(path, occupant),
            Action::Whiteout => self.whiteout(path, occupant),
            Action::Dir => {
                self.open.links.remove(path);
                self.make_dir(path, occupant).map_err(|e| self.entry_error(path, e))?;
                self.tree.dir_attributes(path, attributes).map_err(|e| self.entry_error(path, e))?;
                self.mtimes.push((path.clone(), attributes.mtime));
                self.open.folders.remove(path);
                self.note_dir(path, attributes)
            }
            Action::Hardlink(target) => {
                let found = self.tree.occupant(&target).map_err(|e| self.entry_error(path, e))?;
                match found {
                    Occupant::Other => {
                        self.clear(path, occupant)?;
                        self.make(path, &Action::Hardlink(target), member, attributes)
                    }
                    Occupant::Nothing => self.link_below(path, target, occupant),
                    Occupant::Dir | Occupant::Whiteout => Err(Error::refused(
                        self.what,
                        format!(
                            "entry {:?}: hard link to {:?}, which is a folder or hidden by this layer",
                            path.text(),
                            target.text()
                        ),
                    )),
                }
            }
            _ => {
                self.clear(path, occupant)?;
                self.make(path, &action, member, attributes)
            }
        }
    }

    /// A folder that exists for what is in it, until the archive describes it.
    fn undescribed(&mut self, path: Inner, fresh: bool) -> Result<(), Error> {
        self.note_dir(&path, &Attributes::plain_folder())?;
        if fresh {
            self.mtimes.push((path, Moment::default()));
        } else {
            self.open.folders.insert(path);
        }
        Ok(())
    }

    fn opaque(&mut self, path: &Inner, occupant: Occupant) -> Result<(), Error> {
        if self.open.links.contains_key(path) {
            return Err(self.entry_error(path, io::ErrorKind::NotADirectory.into()));
        }
        self.make_dir(path, occupant).map_err(|e| self.entry_error(path, e))?;
        if occupant != Occupant::Dir {
            let plain = Attributes::plain_folder();
            self.tree.dir_attributes(path, &plain).map_err(|e| self.entry_error(path, e))?;
            self.undescribed(path.clone(), occupant != Occupant::Nothing)?;
        }
        self.tree.make_opaque(path).map_err(|e| self.entry_error(path, e))
    }

    /// Hides what is below; what the same layer has there stays, whichever comes first in the archive.
    fn whiteout(&mut self, path: &Inner, occupant: Occupant) -> Result<(), Error> {
        match occupant {
            Occupant::Nothing if self.open.links.contains_key(path) => Ok(()),
            Occupant::Nothing => {
                self.tree.make_whiteout(path).map_err(|e| self.entry_error(path, e))?;
                let path = path.bytes().to_vec();
                self.note(Line::Node { path, mode: libc::S_IFCHR, uid: 0, gid: 0, device: 0 })
            }
            Occupant::Dir => self.tree.make_opaque(path).map_err(|e| self.entry_error(path, e)),
            Occupant::Whiteout | Occupant::Other => Ok(()),
        }
    }

    /// A link to what is no file of this layer stays open.
    fn link_below(&mut self, path: &Inner, target: Inner, occupant: Occupant) -> Result<(), Error> {
        if occupant != Occupant::Whiteout {
            self.clear(path, occupant)?;
        }
        if occupant == Occupant::Other {
            self.note(Line::Gone { path: path.bytes().to_vec() })?;
        }
        let target = self.open.links.get(&target).cloned().unwrap_or(target);
        if target == *path {
            return Err(Error::refused(self.what, format!("entry {:?}: hard link to itself", path.text())));
        }
        self.open.links.insert(path.clone(), target);
        if self.open.links.len() > LINKS_BELOW_MAX {
            let why = format!("entry {:?}: more than {LINKS_BELOW_MAX} hard links to layers below", path.text());
            return Err(Error::refused(self.what, why));
        }
        Ok(())
    }

    /// Makes room for something that is no folder.
    fn clear(&mut self, path: &Inner, occupant: Occupant) -> Result<(), Error> {
        self.open.links.remove(path);
        if occupant == Occupant::Dir {
            self.note(Line::Gone { path: path.bytes().to_vec() })?;
            self.open.folders.retain(|known| !below(known, path));
            self.open.links.retain(|known, _| !below(known, path));
        }
        match occupant {
            Occupant::Nothing => Ok(()),
            _ => self.tree.remove(path).map_err(|e| self.entry_error(path, e)),
        }
    }

    fn make_dir(&mut self, path: &Inner, occupant: Occupant) -> io::Result<()> {
        match occupant {
            Occupant::Dir => return Ok(()),
            Occupant::Nothing => {}
            Occupant::Whiteout | Occupant::Other => self.tree.remove(path)?,
        }
        self.tree.make_dir(path)?;
        // The same layer hid what was below and made the folder anew: both must hold.
        if occupant == Occupant::Whiteout { self.tree.make_opaque(path) } else { Ok(()) }
    }

    fn make(&mut self, path: &Inner, action: &Action, member: &Member, attributes: &Attributes) -> Result<(), Error> {
        let fail = |job: &Self, e| job.entry_error(path, e);
        let name = path.bytes().to_vec();
        let (uid, gid) = (attributes.uid, attributes.gid);
        let line = match action {
            Action::File => {
                let crc32 = self.file(path, member, attributes)?;
                Line::File { path: name, mode: libc::S_IFREG | attributes.mode, uid, gid, size: member.size, crc32 }
            }
            Action::Symlink(target) => {
                self.tree.make_symlink(path, target, attributes).map_err(|e| fail(self, e))?;
                Line::Symlink { path: name, uid, gid, target: target.clone() }
            }
            Action::Hardlink(target) => {
                self.tree.make_hardlink(path, target).map_err(|e| fail(self, e))?;
                Line::Hardlink { path: name, target: target.bytes().to_vec() }
            }
            Action::Node(kind) => {
                self.tree.make_node(path, *kind, attributes).map_err(|e| fail(self, e))?;
                let (format, device) = match *kind {
                    Kind::Char { major, minor } => (libc::S_IFCHR, nix::sys::stat::makedev(major.into(), minor.into())),
                    Kind::Block { major, minor } => {
                        (libc::S_IFBLK, nix::sys::stat::makedev(major.into(), minor.into()))
                    }
                    _ => (libc::S_IFIFO, 0),
                };
                Line::Node { path: name, mode: format | attributes.mode, uid, gid, device }
            }
            Action::Dir | Action::Whiteout | Action::Opaque | Action::Skip => return Ok(()),
        };
        self.note(line)
    }

    /// Writes a regular file, returns the checksum of its content (holes count as zeros).
    fn file(&mut self, path: &Inner, member: &Member, attributes: &Attributes) -> Result<u32, Error> {
        self.file_bytes = self.file_bytes.saturating_add(member.size);
        if self.file_bytes > LAYER_TAR_BYTES_MAX {
            return Err(Error::refused(
                self.what,
                format!("entry {:?}: more than {LAYER_TAR_BYTES_MAX} bytes of files", path.text()),
            ));
        }
        let mut file = self.tree.make_file(path).map_err(|e| self.entry_error(path, e))?;
        let whole = [(0, member.size)];
        let runs = member.runs.as_deref().unwrap_or(&whole);
        let mut crc = crc32fast::Hasher::new();
        let mut at = 0u64;
        for (offset, length) in runs {
            if *offset > at {
                crc_zeros(&mut crc, offset - at);
                file.seek(SeekFrom::Start(*offset)).map_err(|e| self.entry_error(path, e))?;
            }
            let mut left = *length;
            while left > 0 {
                let data = match self.archive.content(left) {
                    Ok(data) => data,
                    Err(e) => return Err(stream_error(self.what, &format!("entry {:?}", path.text()), e)),
                };
                let n = data.len();
                crc.update(data);
                if let Err(e) = file.write_all(data) {
                    return Err(self.entry_error(path, e));
                }
                self.archive.take(n);
                left -= n as u64;
                self.pulse()?;
            }
            at = offset.saturating_add(*length);
        }
        if member.runs.is_some() {
            crc_zeros(&mut crc, member.size.saturating_sub(at));
            file.set_len(member.size).map_err(|e| self.entry_error(path, e))?;
        }
        self.tree.finish_file(file, attributes).map_err(|e| self.entry_error(path, e))?;
        Ok(crc.finalize())
    }

    /// Once per entry and per buffer: the end if asked for, the word about progress, the eye on bombs.
    fn pulse(&mut self) -> Result<(), Error> {
        self.cancel.check()?;
        let (plain, blob) = (self.archive.get_ref().total(), self.archive.get_ref().get_ref().get_ref().total());
        if plain > BOMB_FLOOR_BYTES && plain / INFLATE_RATIO_MAX > blob {
            return Err(Error::refused(self.what, format!("decompression bomb: {blob} bytes became {plain}")));
        }
        if blob >= self.reported.saturating_add(256 << 10) {
            self.reported = blob;
            (self.progress)(blob);
        }
        Ok(())
    }

    fn note_dir(&mut self, path: &Inner, attributes: &Attributes) -> Result<(), Error> {
        let Attributes { mode, uid, gid, .. } = *attributes;
        self.note(Line::Node { path: path.bytes().to_vec(), mode: libc::S_IFDIR | mode, uid, gid, device: 0 })
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

fn below(path: &Inner, folder: &Inner) -> bool {
    path == folder || path.bytes().strip_prefix(folder.bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn crc_zeros(crc: &mut crc32fast::Hasher, mut n: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while n > 0 {
        let step = usize::try_from(n).unwrap_or(ZEROS.len()).min(ZEROS.len());
        crc.update(ZEROS.get(..step).unwrap_or_default());
        n -= step as u64;
    }
}

#[cfg(test)]
mod tests;
