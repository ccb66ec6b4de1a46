//! Mount options in the words of the OCI specification and mount(8) -> flags.

use nix::mount::MsFlags;

pub(crate) struct Options {
    pub(crate) flags: MsFlags,
    /// What the image has at the place is copied into the new file system.
    pub(crate) copy_up: bool,
    /// In order; applied after the mount stands.
    pub(crate) propagation: Vec<MsFlags>,
    /// mount_setattr(2), recursive.
    pub(crate) recursive_set: u64,
    pub(crate) recursive_clear: u64,
    /// What the file system itself understands, comma-separated.
    pub(crate) data: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flags: MsFlags::empty(),
            copy_up: false,
            propagation: Vec::new(),
            recursive_set: 0,
            recursive_clear: 0,
            data: String::new(),
        }
    }
}

/// Name, flag, whether the word clears it.
const FLAGS: [(&str, MsFlags, bool); 24] = [
    ("ro", MsFlags::MS_RDONLY, false),
    ("rw", MsFlags::MS_RDONLY, true),
    ("nosuid", MsFlags::MS_NOSUID, false),
    ("suid", MsFlags::MS_NOSUID, true),
    ("nodev", MsFlags::MS_NODEV, false),
    ("dev", MsFlags::MS_NODEV, true),
    ("noexec", MsFlags::MS_NOEXEC, false),
    ("exec", MsFlags::MS_NOEXEC, true),
    ("sync", MsFlags::MS_SYNCHRONOUS, false),
    ("async", MsFlags::MS_SYNCHRONOUS, true),
    ("dirsync", MsFlags::MS_DIRSYNC, false),
    ("mand", MsFlags::MS_MANDLOCK, false),
    ("nomand", MsFlags::MS_MANDLOCK, true),
    ("noatime", MsFlags::MS_NOATIME, false),
    ("atime", MsFlags::MS_NOATIME, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, false),
    ("diratime", MsFlags::MS_NODIRATIME, true),
    ("relatime", MsFlags::MS_RELATIME, false),
    ("norelatime", MsFlags::MS_RELATIME, true),
    ("strictatime", MsFlags::MS_STRICTATIME, false),
    ("nostrictatime", MsFlags::MS_STRICTATIME, true),
    ("silent", MsFlags::MS_SILENT, false),
    ("iversion", MsFlags::MS_I_VERSION, false),
    ("lazytime", MsFlags::MS_LAZYTIME, false),
];

const PROPAGATION: [(&str, MsFlags); 4] = [
    ("private", MsFlags::MS_PRIVATE),
    ("slave", MsFlags::MS_SLAVE),
    ("shared", MsFlags::MS_SHARED),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// MOUNT_ATTR_* of linux/mount.h, for the words with an `r` before them.
const RECURSIVE: [(&str, u64, bool); 10] = [
    ("rro", 1, false),
    ("rrw", 1, true),
    ("rnosuid", 2, false),
    ("rsuid", 2, true),
    ("rnodev", 4, false),
    ("rdev", 4, true),
    ("rnoexec", 8, false),
    ("rexec", 8, true),
    ("rnosymfollow", 0x20_0000, false),
    ("rsymfollow", 0x20_0000, true),
];

pub(crate) fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words.iter().map(String::as_str) {
        if let Some((_, flag, clear)) = FLAGS.iter().find(|(n, ..)| *n == word) {
            options.flags.set(*flag, !clear);
        } else if let Some(flag) = propagation(word) {
            options.propagation.push(flag);
        } else if let Some((_, bit, clear)) = RECURSIVE.iter().find(|(n, ..)| *n == word) {
            let (set, unset) = if *clear { (0, *bit) } else { (*bit, 0) };
            options.recursive_set = (options.recursive_set | set) & !unset;
            options.recursive_clear = (options.recursive_clear | unset) & !set;
        } else if word == "bind" || word == "rbind" {
            options.flags.set(MsFlags::MS_REC, word == "rbind");
        } else if word == "tmpcopyup" {
            options.copy_up = true;
        } else if !matches!(word, "" | "defaults" | "idmap" | "ridmap") {
            if !options.data.is_empty() {
                options.data.push(',');
            }
            options.data.push_str(word);
        }
    }
    options
}

/// Every word with a meaning of its own, for `features`.
pub(crate) fn known() -> Vec<String> {
    let plain = FLAGS.iter().map(|(n, ..)| *n).chain(RECURSIVE.iter().map(|(n, ..)| *n));
    let mut words: Vec<String> =
        plain.chain(["bind", "rbind", "defaults", "idmap", "ridmap", "tmpcopyup"]).map(str::to_owned).collect();
    words.extend(PROPAGATION.iter().flat_map(|(n, _)| [(*n).to_owned(), format!("r{n}")]));
    words.sort();
    words
}

/// `rslave` -> MS_SLAVE | MS_REC.
pub(crate) fn propagation(word: &str) -> Option<MsFlags> {
    let find = |w: &str| PROPAGATION.iter().find(|(n, _)| *n == w).map(|(_, f)| *f);
    find(word).or_else(|| word.strip_prefix('r').and_then(find).map(|f| f | MsFlags::MS_REC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags() {
        let words = |w: &str| parse(&w.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let o = words("rbind ro rw nosuid nodev rslave rro size=1m mode=755");
        assert!(!o.copy_up && words("tmpcopyup").copy_up);
        assert_eq!(o.flags, MsFlags::MS_REC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "the last word wins");
        assert_eq!(o.propagation, [MsFlags::MS_SLAVE | MsFlags::MS_REC]);
        assert_eq!((o.recursive_set, o.recursive_clear), (1, 0));
        assert_eq!(o.data, "size=1m,mode=755");
        let o = words("rro rrw bind");
        assert_eq!((o.recursive_set, o.recursive_clear, o.flags), (0, 1, MsFlags::empty()));
        assert_eq!(propagation("private"), Some(MsFlags::MS_PRIVATE));
        assert_eq!(propagation("rnothing"), None);
    }
}
