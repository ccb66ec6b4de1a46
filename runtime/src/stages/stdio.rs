//! What a program reads and writes: FIFOs in the container's run folder, made by the parent, whose ends the child takes.

use super::report::{Fault, at, errno};
use super::{Child, Launch, Parent};
use crate::container::{Stdin, Stdio, Talk};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, mkfifo};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Names of the FIFOs in a container's run folder.
pub(crate) const OUT: &str = "out";
pub(crate) const ERR: &str = "err";
/// What clients write to the program, as long as anybody may come; and until the first has gone.
pub(crate) const IN: &str = "in";
pub(crate) const IN_ONCE: &str = "in-once";
/// Where a held start waits, and where it reports afterwards.
pub(crate) const GO: &str = "go";
pub(crate) const RESULT: &str = "result";

fn fifos(launch: &Launch<'_>) -> Vec<PathBuf> {
    let names: &[&str] = match (&launch.container.stdio, launch.hold) {
        (Stdio::Log(_) | Stdio::Talk(_), true) => &[OUT, ERR, GO, RESULT],
        (Stdio::Log(_) | Stdio::Talk(_), false) => &[OUT, ERR],
        (_, true) => &[GO, RESULT],
        _ => &[],
    };
    names.iter().map(|n| launch.scratch.join(n)).collect()
}

pub(super) fn make(parent: &mut Parent<'_>) -> Result<(), Fault> {
    for fifo in fifos(parent.launch) {
        match mkfifo(&fifo, Mode::from_bits_truncate(0o600)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(at("make fifo", fifo.display())(e)),
        }
    }
    Ok(())
}

pub(super) fn remove(launch: &Launch<'_>) {
    for fifo in fifos(launch) {
        let _ = std::fs::remove_file(fifo); // never made, or gone
    }
}

/// Read-write: the FIFO then never shows an end of file, and nobody waits for us to open it.
fn open_both(path: &Path) -> Result<File, Fault> {
    File::options().read(true).write(true).open(path).map_err(|e| at("open", path.display())(errno(&e)))
}

pub(super) fn open_hold(scratch: &Path) -> Result<(File, File), Fault> {
    Ok((open_both(&scratch.join(GO))?, open_both(&scratch.join(RESULT))?))
}

pub(super) fn connect(child: &mut Child<'_>) -> Result<(), Fault> {
    let null = child.null.as_fd();
    match &child.container.stdio {
        Stdio::Inherit => Ok(()),
        Stdio::Null => wire([null; 3]),
        // Its output comes by the terminal's master.
        Stdio::Talk(Talk { terminal: true, .. }) => Ok(()),
        Stdio::Talk(Talk { stdin: Stdin::Open, .. }) => connect_fifos(child, Some(IN)),
        Stdio::Talk(Talk { stdin: Stdin::Once, .. }) => connect_fifos(child, Some(IN_ONCE)),
        Stdio::Log(_) | Stdio::Talk(_) => connect_fifos(child, None),
    }
}

/// Nobody waits here: the keeper has both ends open. Our end of `input` only reads, so that it can end.
fn connect_fifos(child: &Child<'_>, input: Option<&str>) -> Result<(), Fault> {
    let input = input.map(|name| child.scratch.join(name));
    let input = input.map(|path| File::open(&path).map_err(|e| at("open", path.display())(errno(&e)))).transpose()?;
    let (out, err) = (open_both(&child.scratch.join(OUT))?, open_both(&child.scratch.join(ERR))?);
    let user = &child.container.process.user;
    for fifo in [Some(&out), Some(&err), input.as_ref()].into_iter().flatten() {
        // So that the program may open /dev/stdout anew, as web servers do with their logs.
        fchown(fifo, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
            .map_err(at("chown", "stdio fifo"))?;
    }
    let input = input.as_ref().map_or(child.null.as_fd(), AsFd::as_fd);
    wire([input, out.as_fd(), err.as_fd()])
}

/// Makes them stdin, stdout and stderr.
pub(super) fn wire([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> Result<(), Fault> {
    dup2_stdin(stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .map_err(at("connect", "stdio"))
}
