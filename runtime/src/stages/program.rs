//! The last stages: limits, user, capabilities, seccomp, and the program itself.

use super::Child;
use super::report::{self, Fault, at, errno, plain};
use super::rooted;
use crate::container::{Seccomp, SeccompFilter};
use crate::{identity, sys};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Gid, Uid};
use serde_json::{Value, json};
use std::ffi::CString;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

/// What execve takes.
pub(super) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

pub(super) fn rlimits(child: &mut Child<'_>) -> Result<(), Fault> {
    for limit in &child.container.process.rlimits {
        match sys::set_rlimit(limit.kind, limit.soft, limit.hard) {
            Ok(()) => {}
            Err(Errno::EPERM) => {
                let (_, most) = sys::get_rlimit(limit.kind).map_err(at("read rlimit", limit.kind))?;
                sys::set_rlimit(limit.kind, limit.soft.min(most), limit.hard.min(most))
                    .map_err(at("set rlimit", limit.kind))?;
                child.warn(&format!(
                    "rlimit {}: {} is above this host's hard limit {most} and raising that is not permitted (no CAP_SYS_RESOURCE)",
                    limit.kind, limit.hard
                ));
            }
            Err(e) => return Err(at("set rlimit", limit.kind)(e)),
        }
    }
    Ok(())
}

/// Made if missing, as every engine does; checked to lie inside (CVE-2024-21626).
pub(super) fn cwd(child: &mut Child<'_>) -> Result<(), Fault> {
    let cwd = &child.container.process.cwd;
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(plain(format!("working directory {cwd}: must be absolute")));
    }
    match nix::unistd::chdir(cwd) {
        Err(Errno::ENOENT) => {
            let root: OwnedFd = std::fs::File::open("/").map_err(|e| at("open", "/")(errno(&e)))?.into();
            rooted::make_dir(&root, cwd)?;
            nix::unistd::chdir(cwd).map_err(at("enter working directory", cwd))?;
        }
        result => result.map_err(at("enter working directory", cwd))?,
    }
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(plain(format!("working directory {cwd}: lies outside the container"))),
    }
}

pub(super) fn identity(child: &mut Child<'_>) -> Result<(), Fault> {
    let process = &child.container.process;
    let user = &process.user;
    let denied = |what: &'static str| at(what, format_args!("{}:{}", user.uid, user.gid).to_string());
    if !process.no_new_privileges {
        seccomp(child)?; // needs CAP_SYS_ADMIN, so before it goes
    }
    let lacking =
        identity::drop_bounding(process.capabilities.bounding).map_err(|e| plain(format!("drop capabilities: {e}")))?;
    nix::sys::prctl::set_keepcaps(true).map_err(at("keep", "capabilities"))?;
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    match nix::unistd::setgroups(&groups) {
        // A user who mapped himself alone has no say over groups.
        Err(Errno::EPERM) if groups.is_empty() => {}
        result => result.map_err(denied("set groups of"))?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    nix::unistd::setresgid(gid, gid, gid).map_err(denied("set group"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(denied("set user"))?;
    nix::sys::prctl::set_keepcaps(false).map_err(at("keep", "capabilities"))?;
    identity::set(&process.capabilities).map_err(|e| plain(format!("set capabilities: {e}")))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(user.umask.unwrap_or(0o022)));
    if process.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(at("set", "no_new_privs"))?;
    }
    if lacking {
        child.warn("capabilities: some that were asked for are not the starter's to give");
    }
    Ok(())
}

/// The socket that waits for the filter's listener, and what it is told; opened while host paths still mean the host's.
pub(super) struct Listener {
    socket: UnixStream,
    message: Vec<u8>,
}

pub(super) fn connect_listener(child: &mut Child<'_>) -> Result<(), Fault> {
    let Seccomp::Filter(SeccompFilter { listener: Some(listener), .. }) = &child.container.process.seccomp else {
        return Ok(());
    };
    let connect = |e: std::io::Error| at("connect seccomp listener", listener.path.display())(errno(&e));
    let socket = UnixStream::connect(&listener.path).map_err(connect)?;
    // The host's /proc still: our pid as the host counts it.
    let pid = std::fs::read_link("/proc/self").ok().and_then(|p| p.to_str()?.parse::<i64>().ok());
    let mut state: Value = serde_json::from_str(&listener.state).unwrap_or_else(|_| json!({}));
    if let Some(state) = state.as_object_mut() {
        state.insert("pid".into(), json!(pid));
    }
    let message = json!({
        "ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": pid, "metadata": listener.metadata, "state": state,
    });
    child.listener = Some(Listener { socket, message: message.to_string().into_bytes() });
    Ok(())
}

fn seccomp(child: &mut Child<'_>) -> Result<(), Fault> {
    let Seccomp::Filter(filter) = &child.container.process.seccomp else { return Ok(()) };
    let fd = sys::load_seccomp(&filter.program, filter.flags).map_err(at("load", "seccomp filter"))?;
    if let (Some(fd), Some(Listener { socket, message })) = (fd, child.listener.take()) {
        let fds = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&message)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(at("hand over", "seccomp listener"))?;
    }
    Ok(())
}

/// PATH search by the container's own environment, user and root, before anyone is told that the container is created.
pub(super) fn find(child: &mut Child<'_>) -> Result<(), Fault> {
    let process = &child.container.process;
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = if name.contains('/') {
        usable(name).map_err(at("exec", name))?;
        name.to_owned()
    } else {
        search(name, &process.env)?
    };
    refuse_ourselves(&path, child.own)?;
    let mut env = process.env.clone();
    if !env.iter().any(|v| v.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(process.user.uid)));
    }
    let text = |s: &String| CString::new(s.as_str()).map_err(|_| plain("exec: argument or variable with a NUL byte"));
    child.program = Some(Program {
        path: text(&path)?,
        args: process.args.iter().map(text).collect::<Result<_, _>>()?,
        env: env.iter().map(text).collect::<Result<_, _>>()?,
    });
    Ok(())
}

/// Device and inode of what we are, by the host's /proc.
pub(super) static OWN_EXECUTABLE: LazyLock<Option<(u64, u64)>> =
    LazyLock::new(|| std::fs::metadata("/proc/self/exe").ok().map(|m| (m.dev(), m.ino())));

/// `/proc/self/exe` as the program, or as the interpreter of a script, would put the host's runtime into the container, which could then write
/// to its file (CVE-2019-5736).
fn refuse_ourselves(program: &str, own: Option<(u64, u64)>) -> Result<(), Fault> {
    /// As deep as the kernel follows (BINPRM_MAX_RECURSION is 4), and as much as it reads of a first line.
    const INTERPRETERS_MAX: usize = 6;
    const LINE_BYTES_MAX: u64 = 256;
    let mut path = program.to_owned();
    for _ in 0..INTERPRETERS_MAX {
        let mut options = std::fs::File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        // Executable and not readable: no script, so one look at what it is will do.
        let Ok(meta) = std::fs::metadata(&path) else { return Ok(()) };
        if own == Some((meta.dev(), meta.ino())) {
            return Err(plain(format!("exec {program}: is the runtime itself")));
        }
        let mut line = Vec::new();
        if !meta.is_file() || options.open(&path).and_then(|f| f.take(LINE_BYTES_MAX).read_to_end(&mut line)).is_err() {
            return Ok(());
        }
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let Some(rest) = line.strip_prefix(b"#!") else { return Ok(()) };
        let words = String::from_utf8_lossy(rest).into_owned();
        let Some(interpreter) = words.split_ascii_whitespace().next() else { return Ok(()) };
        path = interpreter.to_owned();
    }
    Ok(())
}

/// By the container's own /etc/passwd, read as what it is: the image's bytes, or a pipe that never ends.
fn home(uid: u32) -> String {
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_NONBLOCK | libc::O_NOCTTY);
    let mut text = String::new();
    if let Ok(file) = options.open("/etc/passwd") {
        let _ = file.take(crate::user::FILE_BYTES_MAX as u64).read_to_string(&mut text); // no text, no home
    }
    crate::user::resolve(&uid.to_string(), &text, "").map_or_else(|_| "/".to_owned(), |found| found.home)
}

fn usable(path: &str) -> Result<(), Errno> {
    let meta = std::fs::metadata(path).map_err(|e| errno(&e))?;
    if meta.is_dir() {
        return Err(Errno::EISDIR);
    }
    nix::unistd::access(path, AccessFlags::X_OK)
}

fn search(name: &str, env: &[String]) -> Result<String, Fault> {
    let path = env
        .iter()
        .rev()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{name}");
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = Some(candidate),
            Err(_) => {}
        }
    }
    match denied {
        Some(path) => Err(at("exec", path)(Errno::EACCES)),
        None => {
            Err(Fault { what: format!("exec {name}: executable file not found in $PATH"), errno: Errno::UnknownErrno })
        }
    }
}

pub(super) fn exec(child: &mut Child<'_>) -> Result<(), Fault> {
    let program = child.program.take().ok_or_else(|| plain("exec: no program"))?;
    if let Some((mut go, result)) = child.hold.take() {
        report::write_record(&mut child.report, report::READY, b"");
        // From here on `start` listens; the creator may be gone.
        child.report = result;
        let mut byte = [0u8; 1];
        go.read_exact(&mut byte).map_err(|e| at("wait for", "start")(errno(&e)))?;
    }
    super::hooks::start(child)?;
    super::scheduling::apply(&child.labels)?;
    if child.container.process.no_new_privileges {
        seccomp(child)?; // as late as can be: a profile need not allow what we did before
    }
    report::write_record(&mut child.report, report::EXEC, b"");
    let Err(e) = nix::unistd::execve(&program.path, &program.args, &program.env);
    Err(at("exec", program.path.to_string_lossy())(e))
}
