//! One entry: what lies at its path gives way, it is made, and noted in the listing.

use std::io::{self, Seek, SeekFrom, Write};

use super::{Job, stream_error};
use crate::Error;
use crate::layer::entry::{Action, Inner};
use crate::layer::listing::Line;
use crate::layer::pax::Moment;
use crate::layer::tar::{Kind, Member};
use crate::layer::tree::{Attributes, Made, Occupant};
use crate::limits::{LAYER_TAR_BYTES_MAX, LINKS_BELOW_MAX};

impl Job<'_> {
    pub(super) fn apply(
        &mut self,
        path: &Inner,
        action: Action,
        member: &Member,
        attributes: &Attributes,
    ) -> Result<(), Error> {
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
        self.refuse_folded(path, occupant)?;
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

    /// On a file system that takes several names for one, a path is this archive's own all the way down, or the entry is refused.
    fn refuse_folded(&mut self, path: &Inner, occupant: Occupant) -> Result<(), Error> {
        let Some(names) = &mut self.names else { return Ok(()) };
        let mut folded = occupant != Occupant::Nothing && !path.is_root() && !names.contains(path);
        let mut parent = path.split().0;
        while !parent.is_root() {
            folded |= !names.contains(&parent);
            parent = parent.split().0;
        }
        names.insert(path.clone());
        if folded {
            let why = format!("entry {:?}: this file system takes its name for that of another entry", path.text());
            return Err(Error::refused(self.what, why));
        }
        Ok(())
    }

    /// A folder that exists for what is in it, until the archive describes it.
    fn undescribed(&mut self, path: Inner, fresh: bool) -> Result<(), Error> {
        self.note_dir(&path, &Attributes::plain_folder())?;
        if let Some(names) = &mut self.names {
            names.insert(path.clone());
        }
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
        let mut file = self.tree.make_file(path, attributes).map_err(|e| self.entry_error(path, e))?;
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

    fn note_dir(&mut self, path: &Inner, attributes: &Attributes) -> Result<(), Error> {
        let Attributes { mode, uid, gid, .. } = *attributes;
        self.note(Line::Node { path: path.bytes().to_vec(), mode: libc::S_IFDIR | mode, uid, gid, device: 0 })
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
