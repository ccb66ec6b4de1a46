//! `linux.seccomp`: what a filter makes of a call, seen from inside.

use super::*;

fn with_rules(script: &str, rules: Value) -> Bundle {
    let mut bundle = Bundle::new(script);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules});
    let mut profile = profile;
    if !cfg!(target_arch = "x86_64") {
        profile["architectures"] = json!([]);
    }
    bundle.config["linux"]["seccomp"] = profile;
    bundle
}

#[test]
fn an_errno_is_returned() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let (code, _, err) = with_rules("mkdir /tmp/x", rules).run();
    assert_ne!(code, 0);
    assert!(err.contains("No space left on device"), "{err}");
}

#[test]
fn the_default_errno_is_eperm() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let (_, _, err) = with_rules("mkdir /tmp/x", rules).run();
    assert!(err.contains("not permitted"), "{err}");
}

#[test]
fn without_no_new_privileges_too() {
    let mut bundle = with_rules(
        "mkdir /tmp/x",
        json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]),
    );
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set("/process/user/uid", json!(65534));
    let (_, _, err) = bundle.run();
    assert!(err.contains("No space left on device"), "{err}");
}

#[test]
fn a_killed_call_kills() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": action}]);
        assert_eq!(with_rules("mkdir /tmp/x; echo $?", rules).output().trim(), "159", "{action}: SIGSYS");
    }
}

#[test]
fn arguments_are_compared() {
    // kill(2) with signal 31 and no other; busybox' own kill calls it with what it is told.
    let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
        "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": 31}]}]);
    let out = with_rules("trap '' 30 31; kill -30 $$ && echo other; kill -31 $$ 2>&1 || echo refused", rules).output();
    assert!(out.starts_with("other\n") && out.ends_with("refused\n") && out.contains("No space left"), "{out}");
}

#[test]
fn unknown_names_are_passed_over() {
    let rules =
        json!([{"names": ["no_such_call_at_all", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let (_, _, err) = with_rules("mkdir /tmp/x", rules).run();
    assert!(err.contains("No space left on device"), "{err}");
}

#[test]
fn an_allow_list_of_little_is_enough() {
    let names = "access arch_prctl brk chdir capget capset close dup dup2 dup3 epoll_create1 execve exit exit_group faccessat faccessat2 fchdir fcntl \
        fstat fstatfs futex getcwd getdents64 getpid getppid getuid geteuid getgid getegid ioctl lseek mmap mprotect munmap newfstatat open openat \
        pipe2 poll prctl prlimit64 pread64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sendmsg \
        set_robust_list set_tid_address setgid setgroups setpgid setresgid setresuid setsid setuid sigaltstack stat statfs statx tgkill umask \
        uname wait4 write writev fchown getrandom clone clone3 epoll_ctl nanosleep epoll_pwait getgroups";
    let mut bundle = Bundle::new("echo hello; mkdir /tmp/x 2>&1");
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [{"names": names.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}]});
    let (_, out, err) = bundle.run();
    assert!(out.starts_with("hello\n") && out.contains("Function not implemented"), "{out}{err}");
}

#[test]
fn nonsense_is_refused() {
    for (pointer, value) in [("defaultAction", json!("SCMP_ACT_SHRUG")), ("architectures", json!(["SCMP_ARCH_Z80"]))] {
        let mut bundle = with_rules("true", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]));
        bundle.config["linux"]["seccomp"][pointer] = value;
        assert_ne!(bundle.run().0, 0, "{pointer}");
        bundle.nothing_left();
    }
}

#[test]
fn a_listener_gets_the_descriptor_and_the_state() {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::AsRawFd;
    let mut bundle = with_rules("true", json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
    let path = bundle.dir.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    bundle.config["linux"]["seccomp"]["listenerPath"] = json!(path);
    bundle.config["linux"]["seccomp"]["listenerMetadata"] = json!("meta");
    bundle.output();
    let (stream, _) = listener.accept().expect("the runtime has connected");
    stream.set_nonblocking(true).unwrap();
    let mut buffer = vec![0u8; 65536];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let got = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
    let fds: Vec<i32> = got
        .cmsgs()
        .unwrap()
        .flat_map(|m| match m {
            ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        })
        .collect();
    let bytes = got.bytes;
    for fd in &fds {
        let _ = nix::unistd::close(*fd);
    }
    assert_eq!(fds.len(), 1);
    let said: Value = serde_json::from_slice(&buffer[..bytes]).unwrap();
    assert_eq!(
        (&said["fds"][0], &said["metadata"], &said["state"]["id"]),
        (&json!("seccompFd"), &json!("meta"), &json!(bundle.id))
    );
    assert!(said["pid"].as_i64().unwrap() > 1, "{said}");
}
