//! Waiting for changes in a folder without looking again and again.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Changes in one folder.
pub(crate) struct Watch(AsyncFd<Source>);

impl Watch {
    /// Of files made, written, moved and removed right in `folder`.
    ///
    /// # Errors
    /// When the folder does not exist, or the user's limit of watches is reached.
    pub(crate) fn new(folder: &Path) -> std::io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let what = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(folder, what)?;
        // `register`, its successor, is unsafe; what it wants holds here: `Inotify` owns the descriptor as long as the registration lives.
        #[allow(deprecated)]
        Ok(Watch(AsyncFd::new(Source(inotify))?))
    }

    /// Returns when something has changed since the last call (several changes may count as one).
    pub(crate) async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            let any = ready.get_inner().0.read_events().is_ok_and(|events| !events.is_empty());
            ready.clear_ready();
            if any {
                return;
            }
        }
    }
}
