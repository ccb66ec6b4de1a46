//! A terminal of the container's own: its master goes over a socket to whoever wants it, its other end is stdin, stdout, stderr and
//! /dev/console.

use super::Child;
use super::report::{Fault, at, errno, plain};
use super::rooted;
use crate::{descriptors, sys};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::Uid;
use std::os::fd::{AsFd, OwnedFd};

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// With the future root at hand (a start), or inside already (an exec).
pub(super) fn connect(child: &mut Child<'_>) -> Result<(), Fault> {
    let wanted = &child.extras.process;
    if !wanted.terminal {
        return Ok(());
    }
    let socket = child.console.ok_or_else(|| plain("process.terminal: nobody to give the terminal to"))?;
    let inside: OwnedFd = match &child.root {
        Some(root) => root.try_clone().map_err(|e| at("copy", "root")(errno(&e)))?,
        None => std::fs::File::open("/").map_err(|e| at("open", "/")(errno(&e)))?.into(),
    };
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    // Never through a link of the image: the ptmx of the container's own devpts, or what stands at /dev/ptmx without one.
    let master = rooted::open(&inside, "/dev/pts/ptmx", flags).or_else(|_| rooted::open(&inside, "/dev/ptmx", flags));
    let master = master.map_err(at("open", "/dev/ptmx"))?;
    let peer = sys::open_terminal_peer(master.as_fd()).map_err(at("open", "terminal"))?;
    #[allow(clippy::useless_conversion)] // another integer type on other architectures
    if fstatfs(&peer).map_err(at("stat", "terminal"))?.filesystem_type() != FsType(DEVPTS as _) {
        return Err(plain("open terminal: /dev/ptmx is no terminal multiplexer"));
    }
    if let Some((rows, columns)) = wanted.console_size {
        sys::set_window_size(master.as_fd(), rows, columns).map_err(at("set size of", "terminal"))?;
    }
    let user = Uid::from_raw(child.container.process.user.uid);
    nix::unistd::fchown(&peer, Some(user), None).map_err(at("chown", "terminal"))?;
    if child.root.is_some() {
        let target = rooted::make_own_file(&inside, "/dev", "console")?;
        mount(
            Some(rooted::name(&peer).as_str()),
            rooted::name(&target).as_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(at("bind", "/dev/console"))?;
    }
    // As runc's and crun's clients expect it: the descriptor, and some words.
    descriptors::send(socket, b"/dev/ptmx", &[master.as_fd()]).map_err(at("send", "terminal"))?;
    sys::take_terminal(peer.as_fd()).map_err(at("take", "terminal"))?;
    nix::unistd::dup2_stdin(&peer)
        .and_then(|()| nix::unistd::dup2_stdout(&peer))
        .and_then(|()| nix::unistd::dup2_stderr(&peer))
        .map_err(at("connect", "stdio"))
}
