//! One data folder is one instance: its lock, its names, its run folder, and the settings `mote down` needs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mote_api::tree::{Value, json, str_at};
use nix::fcntl::{Flock, FlockArg};

use crate::net::Tag;
use crate::pods::dirs::Roots;

/// Where run folders lie: a tmpfs, and short, as socket paths must be.
const RUN: &str = "/run/mote";

/// A data folder.
pub(crate) struct Instance {
    /// Canonical.
    pub(crate) data: PathBuf,
    /// `/run/mote/<tag>`
    pub(crate) run: PathBuf,
    /// Names links and tables.
    pub(crate) tag: Tag,
}

/// Holding it proves that no other mote works on the data folder.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Instance {
    /// Makes the folder (0700) if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Instance, String> {
        let fail = |what: &str, e: std::io::Error| format!("{what} {}: {e}", dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fail("make data folder", e))?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(|e| fail("set mode of", e))?;
        let data = dir.canonicalize().map_err(|e| fail("resolve", e))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, data.as_os_str().as_encoded_bytes());
        let name: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Instance { tag: Tag::of(&data), run: Path::new(RUN).join(name), data })
    }

    /// Makes the run folder (0700).
    pub(crate) fn make_run(&self) -> Result<(), String> {
        let fail = |e: std::io::Error| format!("make run folder {}: {e}", self.run.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.run).map_err(fail)
    }

    /// Where things lie.
    pub(crate) fn roots(&self) -> Roots {
        Roots { data: self.data.clone(), run: self.run.clone() }
    }

    fn lock_path(&self) -> PathBuf {
        self.data.join("mote.lock")
    }

    /// Takes the folder for this process. The error holds the pid of the one that has it (0 if unknown).
    pub(crate) fn lock(&self) -> Result<Lock, Result<i32, String>> {
        let path = self.lock_path();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| Err(format!("open {}: {e}", path.display())))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let written = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(|e| Err(format!("write {}: {e}", path.display())))?;
                Ok(Lock { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                Err(Ok(text.trim().parse().unwrap_or(0)))
            }
            Err((_, errno)) => Err(Err(format!("lock {}: {errno}", path.display()))),
        }
    }

    /// As [`Instance::lock`], in words.
    pub(crate) fn lock_or_say(&self) -> Result<Lock, String> {
        self.lock().map_err(|held| match held {
            Ok(pid) => format!("data folder {} is in use by another mote (pid {pid})", self.data.display()),
            Err(why) => why,
        })
    }

    fn settings_path(&self) -> PathBuf {
        self.data.join("agent").join("settings.json")
    }

    /// Remembers what `mote down` must know.
    pub(crate) fn remember(&self, cgroup_parent: &str) -> Result<(), String> {
        let settings = json!({"cgroupParent": cgroup_parent});
        let path = self.settings_path();
        if let Some(folder) = path.parent() {
            crate::pods::dirs::make(folder)?;
        }
        if std::fs::read(&path).ok().as_deref() == Some(settings.to_string().as_bytes()) {
            return Ok(());
        }
        crate::pods::dirs::write(&path, settings.to_string().as_bytes())
    }

    /// The cgroup parent of the last run.
    pub(crate) fn recall(&self) -> String {
        let read = std::fs::read(self.settings_path()).ok();
        let settings: Value = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        match str_at(&settings, &["cgroupParent"]) {
            "" => "mote".to_owned(),
            text => text.to_owned(),
        }
    }
}

/// Writes a secret file (0600), whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("write {}: {e}", path.display());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let next = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    std::fs::rename(&next, path).map_err(fail)
}

/// The machine's own name, as a DNS label.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.to_ascii_lowercase().replace('_', "-");
    if mote_api::meta::dns_subdomain(&name).is_ok() { name } else { "localhost".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_folder_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::open(&dir.path().join("d")).unwrap();
        let lock = instance.lock().ok().unwrap();
        assert_eq!(instance.lock().err(), Some(Ok(i32::try_from(std::process::id()).unwrap())));
        drop(lock);
        assert!(instance.lock().is_ok());
        let mode = std::fs::metadata(&instance.data).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(instance.recall(), "mote");
        instance.remember("x").unwrap();
        assert_eq!(instance.recall(), "x");
    }
}
