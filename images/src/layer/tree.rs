//! Writes below one folder and nowhere else. Parents are opened by openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, or, on
//! kernels before 5.6, component by component with O_NOFOLLOW; the last component is always made or removed relative to its parent's
//! descriptor and never followed.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::entry::{Inner, xattr_allowed};
use super::pax::{Moment, Xattr};
use super::tar::Kind;
use crate::sys;

/// Owner, mode, time, extended attributes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Moment,
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// What a folder gets that nobody describes (as other tools do: 0755, root).
    pub fn plain_folder() -> Attributes {
        Attributes { mode: 0o755, ..Attributes::default() }
    }
}

/// A folder that [`Tree::make_parents`] made.
#[derive(PartialEq, Eq, Debug)]
pub struct Made {
    pub path: Inner,
    /// Where the same layer had hidden what is below: it is new, whatever the layers below have.
    pub fresh: bool,
}

/// What lies at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occupant {
    Nothing,
    Dir,
    Whiteout,
    Other,
}

/// A folder that is written below.
pub struct Tree {
    root: Rc<OwnedFd>,
    resolve_beneath: bool,
    last: Option<(Inner, Rc<OwnedFd>)>,
}

const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

impl Tree {
    /// Of an existing folder.
    pub fn open(root: &Path) -> io::Result<Tree> {
        let root = nix::fcntl::open(root, FOLDER | OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(Tree { root: Rc::new(root), resolve_beneath: true, last: None })
    }

    /// From here on as on a kernel without openat2 (before 5.6).
    pub fn as_on_old_kernels(&mut self) {
        self.resolve_beneath = false;
    }

    /// Whether this file system takes names that differ in case for one. The folder must be empty, and is again afterwards.
    pub fn folds_names(&mut self) -> io::Result<bool> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        drop(openat(&*self.root, "mote-probe", flags, Mode::empty())?);
        let folds = occupant_at(self.root.as_fd(), b"MOTE-PROBE")? != Occupant::Nothing;
        unlinkat(&*self.root, "mote-probe", UnlinkatFlags::NoRemoveDir)?;
        Ok(folds)
    }

    /// A descriptor of a folder of the tree. The last one is remembered: archives come folder by folder.
    fn folder(&mut self, path: &Inner) -> io::Result<Rc<OwnedFd>> {
        if path.is_root() {
            return Ok(self.root.clone());
        }
        if let Some((known, fd)) = &self.last
            && known == path
        {
            return Ok(fd.clone());
        }
        let fd = Rc::new(self.open_folder(path)?);
        self.last = Some((path.clone(), fd.clone()));
        Ok(fd)
    }

    fn open_folder(&mut self, path: &Inner) -> io::Result<OwnedFd> {
        if self.resolve_beneath {
            let resolve =
                ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            let how = OpenHow::new().flags(FOLDER | OFlag::O_RDONLY).resolve(resolve);
            match openat2(&*self.root, path.bytes(), how) {
                // EPERM: a sandbox's seccomp filter that does not know the call
                Err(Errno::ENOSYS | Errno::EPERM) => self.resolve_beneath = false,
                done => return Ok(done?),
            }
        }
        let mut folder: Option<OwnedFd> = None;
        for part in path.bytes().split(|b| *b == b'/') {
            let parent = folder.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            folder = Some(openat(parent, part, FOLDER | OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Mode::empty())?);
        }
        folder.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// What lies at `path` now.
    pub fn occupant(&mut self, path: &Inner) -> io::Result<Occupant> {
        let (parent, name) = path.split();
        if name.is_empty() {
            return Ok(Occupant::Dir);
        }
        match self.folder(&parent) {
            Ok(parent) => Ok(occupant_at(parent.as_fd(), name)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Occupant::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Makes missing parents (0755, root) and returns those it made.
    pub fn make_parents(&mut self, path: &Inner) -> io::Result<Vec<Made>> {
        let (parent, _) = path.split();
        if self.folder(&parent).is_ok() {
            return Ok(Vec::new());
        }
        let mut made = self.make_parents(&parent)?;
        let (grand, name) = parent.split();
        let fd = self.folder(&grand)?;
        match occupant_at(fd.as_fd(), name)? {
            Occupant::Dir => {}
            Occupant::Other => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "a parent is no folder (a symbolic link or a file)",
                ));
            }
            found => {
                if found == Occupant::Whiteout {
                    unlinkat(&*fd, name, UnlinkatFlags::NoRemoveDir)?;
                }
                mkdirat(&*fd, name, Mode::from_bits_truncate(0o755))?;
                let own = self.folder(&parent)?;
                fchmod(&*own, Mode::from_bits_truncate(0o755))?;
                if found == Occupant::Whiteout {
                    set_opaque(own.as_fd())?;
                }
                made.push(Made { path: parent, fresh: found == Occupant::Whiteout });
            }
        }
        Ok(made)
    }

    /// A new, empty folder.
    pub fn make_dir(&mut self, path: &Inner) -> io::Result<()> {
        let (parent, name) = path.split();
        Ok(mkdirat(&*self.folder(&parent)?, name, Mode::from_bits_truncate(0o700))?)
    }

    /// Hides what the layers below have in this folder.
    pub fn make_opaque(&mut self, path: &Inner) -> io::Result<()> {
        set_opaque(self.folder(path)?.as_fd())
    }

    /// Whether a folder hides what the layers below have in it.
    pub fn is_opaque(&mut self, path: &Inner) -> io::Result<bool> {
        match sys::fgetxattr(self.folder(path)?.as_fd(), OPAQUE) {
            Ok(value) => Ok(value == b"y"),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Attributes of a folder; extended ones by name, without those no archive may set.
    pub fn folder_attributes(&mut self, path: &Inner) -> io::Result<Attributes> {
        attributes(self.folder(path)?.as_fd())
    }

    /// Hides one name of the layers below.
    pub fn make_whiteout(&mut self, path: &Inner) -> io::Result<()> {
        let (parent, name) = path.split();
        Ok(mknodat(&*self.folder(&parent)?, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
    }

    /// Owner, mode and attributes of a folder; its time is set when nothing more is written into it.
    pub fn dir_attributes(&mut self, path: &Inner, attributes: &Attributes) -> io::Result<()> {
        let fd = self.folder(path)?;
        apply(fd.as_fd(), attributes)
    }

    /// A folder's time; no error where the folder has been replaced by something else since.
    pub fn dir_mtime(&mut self, path: &Inner, mtime: Moment) -> io::Result<()> {
        match self.folder(path) {
            Ok(fd) => Ok(futimens(&*fd, &omit_or(mtime), &omit_or(mtime))?),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A new file, with its mode as far as the umask lets it through (no set-id bits: they wait for the owner) and no other attribute yet.
    pub fn make_file(&mut self, path: &Inner, attributes: &Attributes) -> io::Result<File> {
        let (parent, name) = path.split();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&*self.folder(&parent)?, name, flags, Mode::from_bits_truncate(attributes.mode & 0o777))?))
    }

    /// Ends a file: owner first (it clears set-id bits and capabilities), then mode, attributes, time.
    pub fn finish_file(&self, mut file: File, attributes: &Attributes) -> io::Result<()> {
        file.flush()?;
        apply(file.as_fd(), attributes)?;
        Ok(futimens(&file, &omit_or(attributes.mtime), &omit_or(attributes.mtime))?)
    }

    /// A symbolic link.
    pub fn make_symlink(&mut self, path: &Inner, target: &[u8], attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = path.split();
        let fd = self.folder(&parent)?;
        symlinkat(target, &*fd, name)?;
        finish_by_name(fd.as_fd(), name, attributes, false)
    }

    /// A device or FIFO.
    pub fn make_node(&mut self, path: &Inner, kind: Kind, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = path.split();
        let (flag, device) = match kind {
            Kind::Char { major, minor } => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
            Kind::Block { major, minor } => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
            _ => (SFlag::S_IFIFO, 0),
        };
        let fd = self.folder(&parent)?;
        mknodat(&*fd, name, flag, Mode::from_bits_truncate(0o600), device)?;
        finish_by_name(fd.as_fd(), name, attributes, true)
    }

    /// A hard link to a non-folder of this tree.
    pub fn make_hardlink(&mut self, path: &Inner, target: &Inner) -> io::Result<()> {
        let (from_parent, from_name) = target.split();
        let from = self.folder(&from_parent)?;
        let (parent, name) = path.split();
        let to = self.folder(&parent)?;
        Ok(linkat(&*from, from_name, &*to, name, LinkatFlags::empty())?)
    }

    /// Makes `path` the same file as a non-folder of another tree. A file that cannot have one more name is copied.
    pub fn adopt(&mut self, path: &Inner, from: &mut Tree, target: &Inner) -> io::Result<()> {
        let (from_parent, from_name) = target.split();
        let source = from.folder(&from_parent)?;
        let (parent, name) = path.split();
        let to = self.folder(&parent)?;
        match linkat(&*source, from_name, &*to, name, LinkatFlags::empty()) {
            Err(Errno::EMLINK | Errno::EXDEV) => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let mut source = File::from(openat(&*source, from_name, flags, Mode::empty())?);
                let attributes = attributes(source.as_fd())?;
                let mut copy = self.make_file(path, &attributes)?;
                io::copy(&mut source, &mut copy)?;
                self.finish_file(copy, &attributes)
            }
            done => Ok(done?),
        }
    }

    /// Removes what is at `path`, a folder with everything in it.
    pub fn remove(&mut self, path: &Inner) -> io::Result<()> {
        let (parent, name) = path.split();
        let fd = self.folder(&parent)?;
        match unlinkat(&*fd, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {
                self.last = None; // may be a descriptor of a folder that goes away
                remove_folder(fd.as_fd(), name)
            }
            done => Ok(done?),
        }
    }
}

fn occupant_at(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<Occupant> {
    let stat: FileStat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(Occupant::Nothing),
        done => done?,
    };
    Ok(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Occupant::Dir,
        SFlag::S_IFCHR if stat.st_rdev == 0 => Occupant::Whiteout,
        _ => Occupant::Other,
    })
}

fn set_opaque(folder: BorrowedFd<'_>) -> io::Result<()> {
    sys::fsetxattr(folder, OPAQUE, b"y")
}

fn attributes(fd: BorrowedFd<'_>) -> io::Result<Attributes> {
    let stat = nix::sys::stat::fstat(fd)?;
    let mut xattrs = Vec::new();
    for name in sys::flistxattr(fd)?.into_iter().filter(|name| xattr_allowed(name)) {
        let value = sys::fgetxattr(fd, &CString::new(name.as_slice())?)?;
        xattrs.push((name, value));
    }
    xattrs.sort();
    // The types of these fields differ by architecture.
    #[allow(clippy::unnecessary_cast)]
    let mtime = Moment { secs: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 };
    Ok(Attributes { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
}

/// Removes a folder of this tree and all below it, following nothing. Depth is bounded by the path limit.
pub fn remove_folder(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let fd = openat(parent, name, FOLDER | OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Mode::empty())?;
    let mut dir = nix::dir::Dir::from_fd(fd.try_clone()?)?;
    for entry in dir.iter() {
        let entry = entry?;
        let inner = entry.file_name().to_bytes();
        if inner == b"." || inner == b".." {
            continue;
        }
        match unlinkat(&fd, inner, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => remove_folder(fd.as_fd(), inner)?,
            done => done?,
        }
    }
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// Most things are made as they are wanted already (a look is cheap, a change goes to the journal).
fn apply(fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    let made = nix::sys::stat::fstat(fd)?;
    let is_owned = (made.st_uid, made.st_gid) == (attributes.uid, attributes.gid);
    if !is_owned {
        fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
    }
    if !is_owned || made.st_mode & 0o7777 != attributes.mode & 0o7777 {
        fchmod(fd, Mode::from_bits_truncate(attributes.mode))?;
    }
    for (name, value) in &attributes.xattrs {
        let name = CString::new(name.as_slice())?;
        tolerate(&name, sys::fsetxattr(fd, &name, value))?;
    }
    Ok(())
}

fn finish_by_name(parent: BorrowedFd<'_>, name: &[u8], attributes: &Attributes, has_mode: bool) -> io::Result<()> {
    fchownat(
        parent,
        name,
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if has_mode {
        // Made by us a moment ago in a folder nobody else writes: no link to follow.
        nix::sys::stat::fchmodat(
            parent,
            name,
            Mode::from_bits_truncate(attributes.mode),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
    }
    if !attributes.xattrs.is_empty() {
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let path = CString::new(path)?;
        for (key, value) in &attributes.xattrs {
            let key = CString::new(key.as_slice())?;
            tolerate(&key, sys::lsetxattr(&path, &key, value))?;
        }
    }
    let name = OsStr::from_bytes(name);
    Ok(utimensat(
        parent,
        name,
        &omit_or(attributes.mtime),
        &omit_or(attributes.mtime),
        UtimensatFlags::NoFollowSymlink,
    )?)
}

/// A file system without `user.*` attributes, or a kind of file that cannot carry them, is no reason to refuse an image (docker and
/// containerd do the same); a lost capability or trusted attribute is.
fn tolerate(name: &std::ffi::CStr, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e)
            if name.to_bytes().starts_with(b"user.")
                && matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) =>
        {
            Ok(())
        }
        done => done,
    }
}

fn omit_or(moment: Moment) -> TimeSpec {
    TimeSpec::new(moment.secs as libc::time_t, moment.nanos as _)
}
