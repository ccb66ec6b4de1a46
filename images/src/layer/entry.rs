//! What a tar entry means for a layer's folder. Pure: every refusal and every choice about names is made here, none while writing.
//!
//! Whiteouts as the OCI image specification writes them ("layer.md"): `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` hides
//! everything below in its folder. Other `.wh..wh.*` names are aufs' own bookkeeping and mean nothing.

use super::tar::{Kind, Member};
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// A path below the layer's root: no empty component, no `.`, no `..`, no NUL; within the limits. The root itself is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Inner(Vec<u8>);

impl Inner {
    /// Checks and normalises.
    pub fn new(raw: &[u8]) -> Result<Inner, &'static str> {
        if raw.len() > PATH_BYTES_MAX {
            return Err("path is longer than 4096 bytes");
        }
        if raw.contains(&0) {
            return Err("path contains a NUL byte");
        }
        let mut path = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err("path leads upwards"),
                _ if part.len() > NAME_BYTES_MAX => return Err("name is longer than 255 bytes"),
                _ => {}
            }
            depth += 1;
            if depth > PATH_DEPTH_MAX {
                return Err("path is deeper than 256 folders");
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        if raw.first() == Some(&b'/') && !path.is_empty() {
            return Err("path is absolute");
        }
        Ok(Inner(path))
    }

    /// The bytes, components joined by single slashes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is it the layer's root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder and the name in it.
    pub fn split(&self) -> (Inner, &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => {
                (Inner(self.0.get(..at).unwrap_or_default().to_vec()), self.0.get(at + 1..).unwrap_or_default())
            }
            None => (Inner::default(), &self.0),
        }
    }

    /// A checked name below this folder.
    pub fn join(&self, name: &[u8]) -> Inner {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Inner(path)
    }

    /// For messages.
    pub fn text(&self) -> String {
        if self.is_root() { "/".to_owned() } else { String::from_utf8_lossy(&self.0).into_owned() }
    }
}

/// What to do for an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Dir,
    File,
    Symlink(Vec<u8>),
    Hardlink(Inner),
    /// Character and block devices and FIFOs.
    Node(Kind),
    /// Hide this path of the layers below.
    Whiteout,
    /// Hide everything below in this folder.
    Opaque,
    /// Bookkeeping of another storage driver.
    Skip,
}

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Path and action of an entry, or why it is refused.
pub fn decide(member: &Member) -> Result<(Inner, Action), &'static str> {
    let path = Inner::new(&member.path)?;
    let parents_and_name: Vec<&[u8]> = path.bytes().split(|b| *b == b'/').collect();
    if let Some((name, parents)) = parents_and_name.split_last() {
        if parents.iter().any(|part| part.starts_with(META)) {
            return Ok((path, Action::Skip));
        }
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err("path leads through a whiteout");
        }
        let (folder, _) = path.split();
        if *name == OPAQUE {
            return Ok((folder, Action::Opaque));
        }
        if name.starts_with(META) {
            return Ok((path, Action::Skip));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return match hidden {
                b"" | b"." | b".." => Err("whiteout hides no name"),
                _ => Ok((folder.join(hidden), Action::Whiteout)),
            };
        }
    }
    let action = match member.kind {
        Kind::Dir => Action::Dir,
        _ if path.is_root() => return Err("the layer's root must be a folder"),
        Kind::File => Action::File,
        Kind::Symlink => match member.link.len() {
            0 => return Err("symbolic link without a target"),
            1..PATH_BYTES_MAX if !member.link.contains(&0) => Action::Symlink(member.link.clone()),
            _ => return Err("symbolic link target is too long or contains a NUL byte"),
        },
        Kind::Hardlink => {
            let target =
                Inner::new(&member.link).map_err(|_| "hard link target is empty, absolute or leads upwards")?;
            if target.is_root() || target == path {
                return Err("hard link to itself or to the root");
            }
            Action::Hardlink(target)
        }
        // 0/0 is overlayfs' own whiteout: an archive must not smuggle one in under a plain name.
        Kind::Char { major: 0, minor: 0 } => return Err("character device 0/0 is reserved"),
        Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => Action::Node(member.kind),
    };
    Ok((path, action))
}

/// Extended attributes an archive may set. Overlayfs' own would redirect or hide files; labels of the building machine's policy do not
/// belong on this one (umoci, docker and containerd leave the same out).
pub fn xattr_allowed(name: &[u8]) -> bool {
    let banned = [
        &b"trusted.overlay."[..],
        b"user.overlay.",
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"system.nfs4_acl",
    ];
    !banned.iter().any(|prefix| name.starts_with(prefix)) && name.len() <= NAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::pax::Moment;

    fn member(kind: Kind, path: &str, link: &str) -> Member {
        Member {
            kind,
            path: path.into(),
            link: link.into(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Moment::default(),
            xattrs: vec![],
            size: 0,
            runs: None,
        }
    }

    fn inner(path: &str) -> Inner {
        Inner::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn names_and_whiteouts() {
        use Action::*;
        let table = [
            (Kind::Dir, "./", "", "", Dir),
            (Kind::Dir, "/", "", "", Dir),
            (Kind::Dir, "a/./b//", "", "a/b", Dir),
            (Kind::File, "./a", "", "a", File),
            (Kind::File, "a/.wh.b", "", "a/b", Whiteout),
            (Kind::File, ".wh.b", "", "b", Whiteout),
            (Kind::File, "a/.wh..wh..opq", "", "a", Opaque),
            (Kind::File, ".wh..wh..opq", "", "", Opaque),
            (Kind::Dir, ".wh..wh.plnk", "", ".wh..wh.plnk", Skip),
            (Kind::File, ".wh..wh.plnk/1.2", "", ".wh..wh.plnk/1.2", Skip),
            (Kind::File, "a.wh.b", "", "a.wh.b", File),
            (Kind::Symlink, "l", "../../etc", "l", Symlink(b"../../etc".to_vec())),
            (Kind::Hardlink, "h", "./a/b", "h", Hardlink(inner("a/b"))),
            (Kind::Fifo, "f", "", "f", Node(Kind::Fifo)),
        ];
        for (kind, path, link, want, action) in table {
            assert_eq!(decide(&member(kind, path, link)), Ok((inner(want), action)), "{path}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(256);
        let deep = "d/".repeat(257);
        for (kind, path, link) in [
            (Kind::File, "../a", ""),
            (Kind::File, "a/../b", ""),
            (Kind::Dir, "..", ""),
            (Kind::File, "/etc/passwd", ""),
            (Kind::File, "a\0b", ""),
            (Kind::File, &long, ""),
            (Kind::File, &deep, ""),
            (Kind::File, "", ""),
            (Kind::Symlink, ".", "x"),
            (Kind::File, ".wh.", ""),
            (Kind::File, ".wh..", ""),
            (Kind::File, ".wh...", ""),
            (Kind::File, ".wh.a/b", ""),
            (Kind::Symlink, "s", ""),
            (Kind::Hardlink, "h", ""),
            (Kind::Hardlink, "h", "/etc/shadow"),
            (Kind::Hardlink, "h", "../h"),
            (Kind::Hardlink, "h", "./h"),
            (Kind::Char { major: 0, minor: 0 }, "c", ""),
        ] {
            assert!(decide(&member(kind, path, link)).is_err(), "{path:?} -> {link:?}");
        }
        assert!(Inner::new(&[b'x'; 5000]).is_err());
    }

    #[test]
    fn foreign_attributes_are_left_out() {
        for (name, allowed) in [
            ("user.x", true),
            ("security.capability", true),
            ("trusted.overlay.opaque", false),
            ("user.overlay.redirect", false),
            ("security.selinux", false),
        ] {
            assert_eq!(xattr_allowed(name.as_bytes()), allowed, "{name}");
        }
    }
}
