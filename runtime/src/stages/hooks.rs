//! Programs the caller wants run along a container's life: state on stdin, a time limit, and their words in the error.

use super::Child;
use super::report::{self, Fault, at, errno, plain};
use crate::container::extras::Hook;
use crate::sys::{self, Cloned};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// What is kept of a failed hook's output, in bytes.
const OUTPUT_BYTES_MAX: u64 = 1024;

/// Runs `hooks` in order until one fails.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &str) -> Result<(), String> {
    for (place, hook) in hooks.iter().enumerate() {
        run(hook, state.as_bytes()).map_err(|e| format!("error running {kind} hook #{place}: {e}"))?;
    }
    Ok(())
}

/// Runs one program to its end. Only single-threaded programs may call.
pub(crate) fn run(hook: &Hook, stdin: &[u8]) -> Result<(), String> {
    let name = hook.path.display();
    let told = |e: std::io::Error| format!("{name}: {e}");
    let memory = || memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(std::io::Error::from);
    let (mut input, mut output) = (memory().map_err(told)?, memory().map_err(told)?);
    input.write_all(stdin).and_then(|()| input.rewind()).map_err(told)?;
    let text = |s: &[u8]| CString::new(s).map_err(|_| format!("{name}: a NUL byte in path, argument or variable"));
    let path = text(hook.path.as_os_str().as_bytes())?;
    let mut args = hook.args.iter().map(|a| text(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = hook.env.iter().map(|v| text(v.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    match sys::clone3(0, None).map_err(|e| format!("{name}: {e}"))? {
        Cloned::Child => {
            sys::signal_mask_clear();
            let _ = nix::unistd::dup2_stdin(&input)
                .and_then(|()| nix::unistd::dup2_stdout(&output))
                .and_then(|()| nix::unistd::dup2_stderr(&output));
            sys::close_on_exec_from(3);
            let Err(e) = nix::unistd::execve(&path, &args, &env);
            let _ = write!(output, "exec: {}", report::cause(e)); // read by the parent
            sys::exit_now(127)
        }
        Cloned::Parent { pid, pidfd } => {
            let in_time = ends_within(&pidfd, hook.timeout_s);
            if !in_time {
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL); // it may just have ended
            }
            let status = waitpid(Pid::from_raw(pid), None);
            if !in_time {
                return Err(format!("{name}: timed out after {} s", hook.timeout_s.unwrap_or(0)));
            }
            let mut said = String::new();
            let _ = output.rewind().and_then(|()| (&output).take(OUTPUT_BYTES_MAX).read_to_string(&mut said));
            match status {
                Ok(WaitStatus::Exited(_, 0)) => Ok(()),
                Ok(WaitStatus::Exited(_, code)) => Err(format!("{name}: exit status {code}: {}", said.trim())),
                Ok(WaitStatus::Signaled(_, signal, _)) => Err(format!("{name}: killed by {signal}: {}", said.trim())),
                _ => Err(format!("{name}: its end cannot be read")),
            }
        }
    }
}

fn ends_within(pidfd: &impl AsFd, seconds: Option<u32>) -> bool {
    let until = seconds.map(|s| Instant::now() + Duration::from_secs(s.into()));
    loop {
        let left = until.map_or(60_000, |u| u.saturating_duration_since(Instant::now()).as_millis().min(60_000));
        let left = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(count) if count > 0 => return true,
            _ if until.is_some_and(|u| Instant::now() >= u) => return false,
            _ => {}
        }
    }
}

/// What a hook reads: the state of the specification. `base` is its text up to status and pid.
pub(crate) fn state(base: &str, status: &str, pid: i32) -> String {
    format!("{{{base},\"status\":\"{status}\",\"pid\":{pid}}}")
}

/// The child's stage: the runtime's own hooks and links first, then those that run in the container's namespaces.
pub(super) fn create(child: &mut Child<'_>) -> Result<(), Fault> {
    if let Some(answer) = child.answer.take() {
        report::write_record(&mut child.report, report::HOOKS, b"");
        let mut byte = [0u8; 1];
        match File::from(answer).read(&mut byte) {
            Ok(1) => {}
            Ok(_) => return Err(plain("hooks: the runtime gave up")),
            Err(e) => return Err(at("wait for", "hooks")(errno(&e))),
        }
    }
    let hooks = &child.extras.hooks.create_container;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state(child.state, "creating", nix::unistd::getpid().as_raw());
    run_all("createContainer", hooks, &state).map_err(plain)
}

/// Right before the program, where it would be.
pub(super) fn start(child: &Child<'_>) -> Result<(), Fault> {
    let hooks = &child.extras.hooks.start_container;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state(child.state, "created", nix::unistd::getpid().as_raw());
    run_all("startContainer", hooks, &state).map_err(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout_s: Option<u32>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec!["A=b".into()],
            timeout_s,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_its_environment() {
        run(&sh("read x; [ \"$x\" = state ] && [ $A = b ]", None), b"state\n").unwrap();
    }

    #[test]
    fn failures_carry_the_hooks_words() {
        let error = run(&sh("echo broken >&2; exit 3", None), b"").unwrap_err();
        assert!(error.contains("exit status 3: broken"), "{error}");
        let error = run(&Hook { path: "/no/such".into(), ..Hook::default() }, b"").unwrap_err();
        assert!(error.contains("/no/such") && error.contains("no such file"), "{error}");
    }

    #[test]
    fn time_runs_out() {
        let before = Instant::now();
        let error = run_all("prestart", &[sh("exec sleep 60", Some(1))], "").unwrap_err();
        assert!(error.contains("prestart hook #0") && error.contains("timed out"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(30));
    }
}
