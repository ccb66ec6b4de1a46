//! Where things lie below the keeper's folder.

use std::path::{Path, PathBuf};

/// `/run/mote/<tag>`: a tmpfs, so it is gone after a reboot, as the processes are.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn socket(&self) -> PathBuf {
        self.0.join(super::SOCKET)
    }
    /// Held with flock by the one keeper of this folder.
    pub fn lock(&self) -> PathBuf {
        self.0.join("keeper.lock")
    }
    /// Pid of the one who answers, as text.
    pub fn pid(&self) -> PathBuf {
        self.0.join("keeper.pid")
    }
    /// Path of the binary a SIGHUP makes the keeper become.
    pub fn upgrade(&self) -> PathBuf {
        self.0.join("upgrade")
    }
    pub fn sandboxes(&self) -> PathBuf {
        self.0.join("sandbox")
    }
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }
    /// `kind` is `net`, `ipc`, `uts` or `pid`: a bind mount of the namespace, to be joined or given to `setns`.
    pub fn namespace(&self, sandbox: &str, kind: &str) -> PathBuf {
        self.sandbox(sandbox).join(kind)
    }
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
}
