//! The shared namespaces of a pod, held by bind mounts of /proc/PID/ns files: no pause process.

use super::protocol::{Failure, FailureKind, Sandbox};
use super::record::start_time;
use super::rundir::RunDir;
use crate::container::valid_id;
use crate::stages::report::{self, Fault, Heard, at, errno, plain};
use crate::stages::{sysctl_path, write_sysctl};
use crate::sys::{self, Cloned};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// File name, clone flag, whether a sandbox asks for it.
type Kind = (&'static str, CloneFlags, fn(&Sandbox) -> bool);

const KINDS: [Kind; 4] = [
    ("net", CloneFlags::CLONE_NEWNET, |s| s.net),
    ("ipc", CloneFlags::CLONE_NEWIPC, |s| s.ipc),
    ("uts", CloneFlags::CLONE_NEWUTS, |s| s.uts),
    ("pid", CloneFlags::CLONE_NEWPID, |s| s.pid),
];
/// Holds `PID START_TIME` of the shared PID namespace's init.
const INIT: &str = "init";
/// Written last: a sandbox without it is half-made and made anew.
const READY: &str = "ready";

pub(crate) fn create(dir: &RunDir, sandbox: &Sandbox) -> Result<(), Failure> {
    if !valid_id(&sandbox.id) {
        return Err(Failure::new(FailureKind::Invalid, format!("sandbox id {:?}: invalid", sandbox.id)));
    }
    let folder = dir.sandbox(&sandbox.id);
    if folder.join(READY).exists() {
        return Ok(());
    }
    let result = make_folder(dir, sandbox, &folder).and_then(|()| make(&folder, sandbox));
    if result.is_err() {
        remove(dir, &sandbox.id);
    }
    result.map_err(|fault| fault.failure("sandbox"))
}

/// Empty: what is there without [`READY`] is half of one that a dead keeper was making.
fn make_folder(dir: &RunDir, sandbox: &Sandbox, folder: &Path) -> Result<(), Fault> {
    let mut made = std::fs::create_dir(folder);
    if made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
        remove(dir, &sandbox.id);
        made = std::fs::create_dir(folder);
    }
    made.map_err(|e| at("make folder", folder.display())(errno(&e)))
}

fn make(folder: &Path, sandbox: &Sandbox) -> Result<(), Fault> {
    let wanted = || KINDS.iter().filter(|(_, _, wanted)| wanted(sandbox));
    let flags = wanted().fold(CloneFlags::empty(), |all, (_, flag, _)| all | *flag);
    if sandbox.pid {
        make_with_init(folder, sandbox, flags)?;
    } else if !flags.is_empty() {
        let away = Away::go(flags)?;
        set_up(sandbox)?;
        for (name, ..) in wanted() {
            bind(folder, name, &format!("{OWN}/{name}"))?;
        }
        drop(away);
    }
    std::fs::write(folder.join(READY), "").map_err(|e| at("write", folder.display())(errno(&e)))
}

/// The calling thread's.
const OWN: &str = "/proc/thread-self/ns";

/// This thread in new namespaces, until dropped. A process of their own would be one clone, one death and four wake-ups more.
struct Away(Vec<(File, CloneFlags)>);

impl Away {
    fn go(flags: CloneFlags) -> Result<Self, Fault> {
        let mut home = Vec::with_capacity(KINDS.len());
        for (name, flag, _) in KINDS.iter().filter(|(_, flag, _)| flags.contains(*flag)) {
            let path = format!("{OWN}/{name}");
            home.push((File::open(&path).map_err(|e| at("open", &path)(errno(&e)))?, *flag));
        }
        unshare(flags).map_err(at("make", "namespaces"))?;
        Ok(Self(home))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        for (file, flag) in &self.0 {
            if let Err(e) = setns(file, *flag) {
                // Nobody may go on in a pod's network. The guard, who has not moved, makes another worker, and nothing is lost.
                complain!("leave the namespaces of a sandbox: {e}");
                sys::exit_now(1)
            }
        }
    }
}

/// A shared PID namespace lives as long as its first process.
fn make_with_init(folder: &Path, sandbox: &Sandbox, flags: CloneFlags) -> Result<(), Fault> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(at("make", "pipe"))?;
    match sys::clone3(flags.bits() as u32 as u64, None).map_err(at("clone", "sandbox"))? {
        Cloned::Child => {
            drop(read);
            run_init(sandbox, write.into())
        }
        Cloned::Parent { pid, pidfd } => {
            drop(write);
            let bound = bind_all(folder, sandbox, pid, read.into());
            if bound.is_err() {
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL); // it waits for just that
                let _ = waitpid(Pid::from_raw(pid), None); // reaped here, or by the loop
            }
            bound
        }
    }
}

fn bind(folder: &Path, name: &str, source: &str) -> Result<(), Fault> {
    let target = folder.join(name);
    File::create(&target).map_err(|e| at("make file", target.display())(errno(&e)))?;
    mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at("bind", target.display()))
}

fn bind_all(folder: &Path, sandbox: &Sandbox, pid: i32, mut report: File) -> Result<(), Fault> {
    let mut heard = Heard::default();
    let mut buffer = [0u8; 512];
    while !heard.ready && heard.failure.is_none() {
        match report.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => heard.push(buffer.get(..count).unwrap_or_default()),
        }
    }
    if !heard.ready {
        return Err(plain(heard.failure.map_or("sandbox process died".to_owned(), |f| f.message)));
    }
    for (name, ..) in KINDS.iter().filter(|(_, _, wanted)| wanted(sandbox)) {
        bind(folder, name, &format!("/proc/{pid}/ns/{name}"))?;
    }
    let text = format!("{pid} {}", start_time(pid).unwrap_or_default());
    std::fs::write(folder.join(INIT), text).map_err(|e| at("write", folder.display())(errno(&e)))
}

/// The child: sets the namespaces up, says so, and stays.
fn run_init(sandbox: &Sandbox, mut report: File) -> ! {
    sys::signal_mask_clear();
    if let Err(fault) = set_up(sandbox) {
        report::write_failure(&mut report, &fault.failure("sandbox"));
        sys::exit_now(1)
    }
    report::write_record(&mut report, report::READY, b"");
    drop(report);
    reap_for_ever()
}

fn set_up(sandbox: &Sandbox) -> Result<(), Fault> {
    if sandbox.uts && !sandbox.hostname.is_empty() {
        nix::unistd::sethostname(&sandbox.hostname).map_err(at("set hostname", &sandbox.hostname))?;
    }
    if sandbox.net {
        sys::loopback_up().map_err(at("bring up", "lo"))?;
    }
    for (key, value) in &sandbox.sysctls {
        let path = sysctl_path(key).ok_or_else(|| plain(format!("set sysctl {key}: not a sysctl name")))?;
        let file: OwnedFd =
            File::options().write(true).open(path).map_err(|e| at("set sysctl", key)(errno(&e)))?.into();
        write_sysctl(file, value).map_err(at("set sysctl", format_args!("{key} = {value}")))?;
    }
    Ok(())
}

/// PID 1 of a shared PID namespace: reaps, ends at SIGTERM (the kernel then ends the rest).
fn reap_for_ever() -> ! {
    let _ = nix::sys::prctl::set_name(c"mote-init");
    let _ = nix::unistd::setsid();
    sys::close_from(0);
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGTERM);
    let _ = set.thread_block();
    loop {
        if let Ok(Signal::SIGTERM) = set.wait() {
            sys::exit_now(0)
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status.pid().is_none() {
                break;
            }
        }
    }
}

/// Idempotent; what is not there is not missed.
pub(crate) fn remove(dir: &RunDir, id: &str) {
    if !valid_id(id) {
        return;
    }
    let folder = dir.sandbox(id);
    let _ = std::fs::remove_file(folder.join(READY));
    if let Ok(text) = std::fs::read_to_string(folder.join(INIT)) {
        let mut numbers = text.split(' ');
        let pid = numbers.next().and_then(|n| n.parse::<i32>().ok()).filter(|p| *p > 1);
        let born = numbers.next().and_then(|n| n.parse::<u64>().ok());
        if let Some(pid) = pid.filter(|p| start_time(*p) == born && born.is_some()) {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for (name, ..) in KINDS {
        let file = folder.join(name);
        while umount2(&file, MntFlags::MNT_DETACH) == Ok(()) {}
        let _ = std::fs::remove_file(&file);
    }
    let _ = std::fs::remove_file(folder.join(INIT));
    if let Err(e) = nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, &folder, nix::unistd::UnlinkatFlags::RemoveDir)
        && e != Errno::ENOENT
    {
        complain!("remove sandbox {}: {e}", folder.display());
    }
}

pub(crate) fn list(dir: &RunDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.sandboxes()).into_iter().flatten().flatten();
    let ready = entries.filter(|e| e.path().join(READY).exists());
    ready.filter_map(|e| e.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Vec<std::path::PathBuf> {
        KINDS.iter().map(|(name, ..)| std::fs::read_link(format!("{OWN}/{name}")).unwrap()).collect()
    }

    /// Needs root, as its maker does.
    #[test]
    fn the_maker_comes_home_whatever_happens() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        std::fs::create_dir_all(run.sandboxes()).unwrap();
        let home = here();
        let wanted = Sandbox { id: "p".into(), hostname: "inside".into(), net: true, uts: true, ..Sandbox::default() };
        create(&run, &wanted).unwrap();
        assert_eq!(here(), home);
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "inside");
        let uts = File::open(run.namespace("p", "uts")).unwrap();
        std::thread::spawn(move || {
            setns(&uts, CloneFlags::CLONE_NEWUTS).unwrap();
            assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "inside");
        })
        .join()
        .unwrap();
        assert!(!run.namespace("p", "ipc").exists(), "not asked for");
        create(&run, &wanted).unwrap(); // found again

        let sysctls = vec![("net.no.such".to_owned(), "1".to_owned())];
        let failure = create(&run, &Sandbox { id: "q".into(), sysctls, net: true, ..Sandbox::default() }).unwrap_err();
        assert!(failure.message.contains("net.no.such"), "{}", failure.message);
        assert_eq!(here(), home);

        // Half of one, as a keeper leaves it that died over it.
        std::fs::remove_file(run.sandbox("p").join(READY)).unwrap();
        create(&run, &wanted).unwrap();
        assert_eq!(list(&run), ["p"], "and nothing of the one that failed");
        remove(&run, "p");
        assert!(!run.sandbox("p").exists() && !run.sandbox("q").exists());
    }
}
