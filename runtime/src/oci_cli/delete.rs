//! `delete`: the end of a container, also of one that was never finished.

use super::args::Args;
use super::run;
use super::state::{PAUSED, State, Status, described, poststop, remove_folder};
use crate::cgroup::{self, Layout};
use crate::sys;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `--force` waits for a killed container.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) fn delete(args: &Args, id: &str) -> Result<u8, String> {
    let force = args.flag("force");
    let state = match State::read(args, id) {
        Ok(state) => state,
        Err(_) if force => return remove_half_made(args, id),
        Err(e) => return Err(e),
    };
    match state.status() {
        Status::Running | Status::Paused if !force => {
            return Err(format!("cannot delete container {id} that is not stopped: running"));
        }
        Status::Stopped => {}
        _ => {
            if state.folder.join(PAUSED).exists() {
                let _ = cgroup::freeze(&Layout::discover(), state.cgroup(), false); // it is about to die anyway
            }
            if let Ok(pidfd) = sys::pidfd_open(state.pid()) {
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let until = Instant::now() + KILL_WAIT_MAX;
            while state.status() != Status::Stopped && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let (all, text) = (state.hooks(), state.hook_state());
    state.group().remove(&Layout::discover(), &state.folder)?;
    poststop(&all, &text);
    Ok(0)
}

/// What a creator that was killed has left. The description was there before anything else was made, so whatever was made is named in it.
fn remove_half_made(args: &Args, id: &str) -> Result<u8, String> {
    let (folder, layout) = (args.root().join(id), Layout::discover());
    let Ok(mut bundle) = described(&folder, Path::new("/"), id) else {
        return remove_folder(&folder).map(|()| 0); // not even that
    };
    let unit = run::unit(args, id, &mut bundle)?;
    if unit.is_none() && !run::has_group(&bundle, &layout) {
        bundle.container.cgroup.path.clear();
    }
    run::group_of(&bundle, unit.as_ref()).remove(&layout, &folder).map(|()| 0)
}
