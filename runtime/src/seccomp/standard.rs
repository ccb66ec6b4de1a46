//! The profile of a container that asks for none in particular (Kubernetes' `RuntimeDefault`): what containerd and Docker refuse, refused.
//!
//! Written as what is kept from a container, not as what it may do: a call neither named here nor by any capability is allowed, one that is
//! newer than our tables is ENOSYS, so that a C library falls back to what it used before.

use super::profile::{Action, Compare, Condition, FLAG_SPEC_ALLOW, Profile, Rule};
use super::{Compiled, SeccompError, arch, filter, instructions};
use crate::container::CapSet;

/// Refused to everybody.
const REFUSED: &str = "_sysctl add_key afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle io_uring_enter \
    io_uring_register io_uring_setup kexec_file_load kexec_load keyctl lock migrate_pages move_pages mpx multiplexer nfsservctl \
    pciconfig_iobase pciconfig_read pciconfig_write pivot_root prof profil putpmsg query_module request_key rtas security sgetmask spu_create \
    spu_run ssetmask stty subpage_prot swapcontext swapoff swapon switch_endian sys_debug_setcontext sysfs tuxcall ulimit uprobe uretprobe \
    uselib userfaultfd ustat vm86 vm86old vserver";

const SYS_CHROOT: u8 = 18;
const SYS_ADMIN: u8 = 21;

/// Allowed to who has one of the capabilities.
const GRANTED: [(&[u8], &str); 12] = [
    (&[2], "open_by_handle_at"),
    (
        &[SYS_ADMIN],
        "fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree open_tree_attr quotactl \
         quotactl_fd setdomainname sethostname setns umount umount2 unshare",
    ),
    (&[SYS_ADMIN, 39], "bpf"),
    (&[SYS_ADMIN, 38], "perf_event_open"),
    (&[SYS_ADMIN, 34], "syslog"),
    (&[22], "reboot"),
    (&[SYS_CHROOT], "chroot"),
    (&[16], "delete_module finit_module init_module"),
    (&[20], "acct"),
    (&[19], "kcmp process_madvise"),
    (&[17], "ioperm iopl"),
    (&[25], "clock_settime clock_settime64 settimeofday stime"),
];
/// CAP_SYS_NICE and CAP_SYS_TTY_CONFIG.
const GRANTED_TOO: [(u8, &str); 2] =
    [(23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"), (26, "vhangup")];

/// CLONE_NEW* but CLONE_NEWTIME, which clone(2) cannot ask for.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn names(text: &str) -> impl Iterator<Item = String> {
    text.split_ascii_whitespace().map(str::to_owned)
}

fn profile(capabilities: CapSet, family: &arch::Family) -> Profile {
    let allow = Action(0x7fff_0000);
    let refuse = Action::errno(libc::EPERM as u16);
    let absent = Action::errno(libc::ENOSYS as u16);
    let mut refused: Vec<String> = names(REFUSED).collect();
    for (any, text) in GRANTED {
        if !any.iter().any(|c| capabilities.contains(*c)) {
            refused.extend(names(text));
        }
    }
    for (capability, text) in GRANTED_TOO {
        if !capabilities.contains(capability) {
            refused.extend(names(text));
        }
    }
    let rule = |name: &str, action, compare, index, value| Rule {
        names: vec![name.to_owned()],
        action,
        conditions: vec![Condition { index, compare, value }],
    };
    let otherwise = Compare::MaskedEq(0);
    let mut rules: Vec<Rule> = PERSONALITIES.iter().map(|p| rule("personality", allow, Compare::Eq, 0, *p)).collect();
    rules.push(rule("personality", refuse, otherwise, 0, 0));
    rules.push(rule("socket", refuse, Compare::Eq, 0, AF_VSOCK));
    rules.push(rule("socket", allow, otherwise, 0, 0));
    let mut asked = vec!["socket", "personality"];
    if !capabilities.contains(SYS_ADMIN) {
        // s390's clone(2) has its first two arguments the other way round.
        let flags = u8::from(family.big_endian);
        rules.push(rule("clone", allow, Compare::MaskedEq(CLONE_NAMESPACES), flags, 0));
        rules.push(rule("clone", refuse, otherwise, 0, 0));
        // Its flags lie in memory; at the default ENOSYS a C library uses clone(2) instead.
        asked.extend(["clone", "clone3"]);
    }
    let table = arch::Calls::read(family);
    let free = table.names().filter(|n| !asked.contains(n) && !refused.iter().any(|r| r == n));
    rules.push(Rule { names: free.map(str::to_owned).collect(), action: allow, conditions: Vec::new() });
    rules.push(Rule { names: refused, action: refuse, conditions: Vec::new() });
    Profile {
        default: absent,
        arches: family.arches.iter().map(|a| a.name.to_owned()).collect(),
        rules,
        flags: FLAG_SPEC_ALLOW,
        listener: None,
        metadata: String::new(),
    }
}

/// For a container with these capabilities in its bounding set.
///
/// # Errors
/// `Architecture`, where this build has no table.
pub fn standard(capabilities: CapSet) -> Result<Compiled, SeccompError> {
    let family = arch::family().ok_or(SeccompError::Architecture)?;
    let profile = profile(capabilities, &family);
    let mut warnings = Vec::new();
    let code = instructions(&family, &profile, &mut warnings)?;
    // Names of other architectures are in the lists for their sake.
    Ok(Compiled { filter: filter(&code, &profile), warnings: Vec::new() })
}
