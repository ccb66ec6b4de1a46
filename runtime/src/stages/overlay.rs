//! Layers as one file system: by descriptor and one layer a call where the kernel can, else by mount(2) and one page of text.

use super::report::{Fault, at, errno, plain};
use super::rooted;
use crate::sys;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options.
const MOUNT_DATA_BYTES_MAX: usize = 4095;
/// fsconfig(2) takes strings of 255 bytes.
const FSCONFIG_BYTES_MAX: usize = 255;

pub(super) struct Overlay<'a> {
    /// Top first.
    pub(super) lower: &'a [PathBuf],
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
    /// No fsync reaches the disk.
    pub(super) volatile: bool,
}

impl Overlay<'_> {
    /// Over the folder `target`; the descriptor of its top.
    pub(super) fn mount(&self, target: &Path) -> Result<OwnedFd, Fault> {
        match self.mount_by_fd(target) {
            Ok(root) => return Ok(root),
            // No lowerdir+ (before 6.5), no new mount API (before 5.2, emulators), or a long path.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENAMETOOLONG | Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(self.explain(e)),
        }
        self.mount_by_text(target)?;
        rooted::open_outside(target).map_err(at("open rootfs", target.display()))
    }

    fn explain(&self, e: Errno) -> Fault {
        let missing = self.lower.iter().map(PathBuf::as_path).chain([self.upper, self.work]).find(|p| !p.is_dir());
        match missing {
            Some(path) => at("mount overlay: layer", path.display())(Errno::ENOENT),
            None => at("mount overlay on", self.upper.display())(e),
        }
    }

    fn mount_by_fd(&self, target: &Path) -> Result<OwnedFd, Errno> {
        if self.volatile {
            return Err(Errno::EINVAL); // a flag, which this call cannot set: mount(2) does
        }
        let text = |p: &Path| match p.as_os_str().as_bytes() {
            bytes if bytes.len() > FSCONFIG_BYTES_MAX => Err(Errno::ENAMETOOLONG),
            bytes => CString::new(bytes).map_err(|_| Errno::EINVAL),
        };
        let mut settings: Vec<(&CStr, CString)> = vec![(c"source", c"overlay".to_owned())];
        for layer in self.lower {
            settings.push((c"lowerdir+", text(layer)?));
        }
        settings.push((c"upperdir", text(self.upper)?));
        settings.push((c"workdir", text(self.work)?));
        let tree = sys::new_mount(c"overlay", &settings)?;
        let place = rooted::open_outside(target)?;
        sys::attach_mount(tree.as_fd(), place.as_fd())?;
        Ok(tree)
    }

    /// All layers in one page of text; from inside their common parent when the full paths do not fit.
    fn mount_by_text(&self, target: &Path) -> Result<(), Fault> {
        let full = self.text(Path::new(""));
        if full.len() <= MOUNT_DATA_BYTES_MAX {
            return mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(full.as_bytes()))
                .map_err(|e| self.explain(e));
        }
        let parent = common_parent(self.lower);
        let short = self.text(&parent);
        if short.len() > MOUNT_DATA_BYTES_MAX {
            return Err(plain(format!(
                "mount overlay: {} layers do not fit one page of options on this kernel",
                self.lower.len()
            )));
        }
        std::env::set_current_dir(&parent).map_err(|e| at("enter", parent.display())(errno(&e)))?;
        mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(short.as_bytes()))
            .map_err(|e| self.explain(e))
    }

    fn text(&self, parent: &Path) -> String {
        let lower: Vec<String> = self.lower.iter().map(|p| escape(p.strip_prefix(parent).unwrap_or(p), true)).collect();
        let volatile = if self.volatile { ",volatile" } else { "" };
        format!(
            "lowerdir={},upperdir={},workdir={}{volatile}",
            lower.join(":"),
            escape(self.upper, false),
            escape(self.work, false)
        )
    }
}

fn escape(path: &Path, colon: bool) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if c == '\\' || c == ',' || (colon && c == ':') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn common_parent(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths.first().and_then(|p| p.parent()).unwrap_or(Path::new("/")).to_owned();
    while !paths.iter().all(|p| p.starts_with(&common)) && common.pop() {}
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_options() {
        let lower = [PathBuf::from("/s/l/a:b"), PathBuf::from("/s/l/c,d"), PathBuf::from("/s/l/e")];
        let overlay = Overlay { lower: &lower, upper: Path::new("/u:1"), work: Path::new("/w"), volatile: true };
        assert_eq!(
            overlay.text(Path::new("")),
            "lowerdir=/s/l/a\\:b:/s/l/c\\,d:/s/l/e,upperdir=/u:1,workdir=/w,volatile"
        );
        assert_eq!(common_parent(&lower), Path::new("/s/l"));
        assert_eq!(common_parent(&["/a/b".into(), "/c".into()]), Path::new("/"));
        let overlay = Overlay { volatile: false, ..overlay };
        assert!(overlay.text(Path::new("/s/l")).starts_with("lowerdir=a\\:b:c"));
    }
}
