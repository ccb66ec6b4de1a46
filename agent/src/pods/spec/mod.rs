//! From a container of a pod to what the runtime starts: arguments, environment, user, limits, mounts. No IO but reading the image's
//! passwd and group files.

pub mod env;
pub mod etc;
mod security;

use mote_api::tree::{Value, at, bool_at, list_at, str_at};
use mote_images::Image;
use mote_runtime::container::{
    Cgroup, Container, DeviceRule, Log, Mount, Namespace, NamespaceKind, Process, Resources, Rootfs, Stdin, Stdio,
    Talk, defaults,
};
use mote_runtime::keeper::RunDir;
use std::path::PathBuf;

use super::dirs::Roots;
use super::model::{Pod, Wanted};
use super::qos;
use super::volumes;
use env::{Refs, Self_, expand};

/// Bytes of a log file before it is rotated.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
/// Log files kept per run, the live one included.
pub const LOG_FILES_MAX: u32 = 5;

/// Everything a container is made from.
pub struct Making<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Itself.
    pub wanted: &'a Wanted,
    /// Which run of it this is.
    pub attempt: u32,
    /// Short runs before it in a row.
    pub crashes: u32,
    /// Its image.
    pub image: &'a Image,
    /// What the pod refers to.
    pub refs: &'a Refs,
    /// What the pod may know about itself.
    pub me: &'a Self_<'a>,
    /// `<NAME>_SERVICE_HOST` and the like.
    pub services: &'a [(String, String)],
    /// Where things lie.
    pub roots: &'a Roots,
    /// The keeper's folder.
    pub run: &'a RunDir,
    /// `--cgroup-parent`.
    pub cgroup_parent: &'a str,
    /// The node's memory in bytes.
    pub node_memory_bytes: u64,
    /// First process of the container whose processes it shares (`targetContainerName`).
    pub target_pid: Option<i32>,
}

/// The keeper's name for a run of a container.
pub fn container_id(pod: &Pod, container: &str, attempt: u32) -> String {
    format!("{}-{container}-{attempt}", pod.uid)
}

/// The cgroup of a pod, relative to each hierarchy.
pub fn pod_cgroup(parent: &str, uid: &str) -> String {
    format!("{parent}/pod{uid}")
}

/// The runtime's description of the container.
///
/// # Errors
/// Why it cannot be configured, for `CreateContainerConfigError`.
pub fn build(making: &Making<'_>) -> Result<Container, String> {
    let (pod, wanted, image) = (making.pod, making.wanted, making.image);
    let spec = &wanted.spec;
    let context = security::Context { pod: &pod.object, container: spec };
    let privileged = context.privileged();
    let who = context.user(image)?;
    let declared = env::environment(spec, making.refs, making.me, making.services)?;
    let id = container_id(pod, &wanted.name, making.attempt);
    let folder = making.roots.container(&id);
    let mut mounts = defaults::mounts();
    if privileged {
        for mount in mounts.iter_mut().filter(|mount| mount.fstype == "sysfs" || mount.fstype == "cgroup") {
            mount.options.retain(|option| option != "ro");
        }
    }
    mounts.extend(etc::mounts(making.roots, pod, context.read_only_root()));
    mounts.push(termination_mount(making));
    mounts
        .extend(volumes::mounts(pod, wanted, making.roots, &|text| expand(text, &|name| env::find(&declared, name)))?);
    let capabilities = context.capabilities(privileged)?;
    let seccomp = context.seccomp(capabilities.bounding, &making.roots.data)?;
    let process = Process {
        args: arguments(spec, image, &declared)?,
        env: process_env(image, &declared, making, &who.home),
        cwd: cwd(spec, image),
        user: who.user,
        capabilities,
        no_new_privileges: context.no_new_privileges(),
        rlimits: Vec::new(),
        oom_score_adj: Some(qos::oom_score_adj(
            qos::class(&pod.object),
            qos::memory_bytes(spec, "requests").or_else(|| qos::memory_bytes(spec, "limits")),
            making.node_memory_bytes,
        )),
        seccomp,
    };
    let masked = if privileged { Vec::new() } else { defaults::masked_paths() };
    let read_only = if privileged { Vec::new() } else { defaults::readonly_paths() };
    Ok(Container {
        process,
        rootfs: Rootfs::Overlay {
            lower: image.layers.iter().rev().map(|layer| layer.path.clone()).collect(),
            upper: folder.join("upper"),
            work: folder.join("work"),
            volatile: true,
        },
        readonly: context.read_only_root(),
        namespaces: namespaces(pod, making.run, making.target_pid),
        hostname: None,
        domainname: None,
        mounts,
        masked_paths: masked,
        readonly_paths: read_only,
        devices: if privileged { security::host_devices() } else { Vec::new() },
        sysctls: Vec::new(),
        cgroup: Cgroup {
            path: format!("{}/{id}", pod_cgroup(making.cgroup_parent, pod.uid.as_str())),
            resources: resources(spec, privileged),
        },
        stdio: stdio(spec, making.roots.log(pod, &wanted.name, making.attempt)),
        rootfs_propagation: None,
        labels: labels(making),
        id,
    })
}

fn labels(making: &Making<'_>) -> Vec<(String, String)> {
    let (pod, wanted) = (making.pod, making.wanted);
    [
        (crate::keeper::LABEL_UID, pod.uid.as_str().to_owned()),
        ("pod", pod.name.clone()),
        ("namespace", pod.namespace.clone()),
        ("container", wanted.name.clone()),
        ("attempt", making.attempt.to_string()),
        ("crashes", making.crashes.to_string()),
        ("hash", wanted.hash.clone()),
        ("image", wanted.image.clone()),
        ("imageID", image_id(making.image)),
        ("grace", pod.grace.as_secs().to_string()),
        ("stop", stop_signal(&making.image.config.stop_signal).to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// `imageID` of a container status: the repository with the manifest's digest, as registries know it.
pub fn image_id(image: &Image) -> String {
    image.reference.at(image.manifest).to_string()
}

/// The number of `SIGQUIT`, `QUIT` or `3`; SIGTERM for what is none.
pub fn stop_signal(text: &str) -> i32 {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { number } else { libc::SIGTERM };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>().map_or(libc::SIGTERM, |signal| signal as i32)
}

/// `command` replaces the entrypoint and its arguments, `args` only the arguments.
fn arguments(spec: &Value, image: &Image, env: &[(String, String)]) -> Result<Vec<String>, String> {
    let words = |field: &str| -> Vec<String> {
        let lookup = |name: &str| env::find(env, name);
        list_at(spec, &[field]).iter().filter_map(Value::as_str).map(|word| expand(word, &lookup)).collect()
    };
    let (command, args) = (words("command"), words("args"));
    let mut all = if command.is_empty() { image.config.entrypoint.clone() } else { command.clone() };
    match (command.is_empty(), args.is_empty()) {
        (_, false) => all.extend(args),
        (true, true) => all.extend(image.config.cmd.iter().cloned()),
        (false, true) => {}
    }
    if all.is_empty() { Err("no command specified".into()) } else { Ok(all) }
}

fn cwd(spec: &Value, image: &Image) -> String {
    let wanted = [str_at(spec, &["workingDir"]), image.config.working_dir.as_str()];
    wanted.into_iter().find(|dir| !dir.is_empty()).unwrap_or("/").to_owned()
}

/// `stdin`, `stdinOnce` and `tty` of a container.
fn stdio(spec: &Value, path: PathBuf) -> Stdio {
    let log = Log { path, max_bytes: LOG_BYTES_MAX, max_files: LOG_FILES_MAX };
    let is = |field| bool_at(spec, &[field]) == Some(true);
    let stdin = match (is("stdin"), is("stdinOnce")) {
        (false, _) => Stdin::None,
        (true, false) => Stdin::Open,
        (true, true) => Stdin::Once,
    };
    match (stdin, is("tty")) {
        (Stdin::None, false) => Stdio::Log(log),
        (stdin, terminal) => Stdio::Talk(Talk { log, stdin, terminal }),
    }
}

fn process_env(image: &Image, declared: &[(String, String)], making: &Making<'_>, home: &str) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let host_name = etc::host_name(making.pod, making.me.node_name);
    let (path_key, path) = defaults::PATH.split_once('=').unwrap_or(("PATH", "/bin"));
    let mut first = vec![(path_key.to_owned(), path.to_owned()), ("HOSTNAME".to_owned(), host_name)];
    if bool_at(&making.wanted.spec, &["tty"]) == Some(true) {
        first.push(("TERM".into(), "xterm".into())); // as containerd does
    }
    let of_image = image.config.env.iter().map(|entry| {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        (key.to_owned(), value.to_owned())
    });
    for (key, value) in first.into_iter().chain(of_image).chain(declared.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => env.push((key, value)),
        }
    }
    if !env.iter().any(|(key, _)| key == "HOME") {
        env.push(("HOME".into(), home.to_owned()));
    }
    env.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn resources(spec: &Value, privileged: bool) -> Resources {
    let memory = qos::memory_bytes(spec, "limits");
    let quota = qos::cpu_milli(spec, "limits").map(qos::quota_us);
    let anything = DeviceRule { allow: true, kind: None, major: None, minor: None, access: "rwm".into() };
    Resources {
        memory_max: memory,
        memory_swap_max: memory,
        cpu_shares: Some(qos::shares(qos::cpu_milli(spec, "requests").or_else(|| qos::cpu_milli(spec, "limits")))),
        cpu_quota_us: quota.and_then(|quota| i64::try_from(quota).ok()),
        cpu_period_us: quota.map(|_| qos::CPU_PERIOD_US),
        devices: if privileged { vec![anything] } else { defaults::device_rules() },
        ..Resources::default()
    }
}

fn namespaces(pod: &Pod, run: &RunDir, target_pid: Option<i32>) -> Vec<Namespace> {
    let uid = pod.uid.as_str();
    let shares = sandbox_kinds(pod);
    let mut all = vec![Namespace::new(NamespaceKind::Mount), Namespace::new(NamespaceKind::Cgroup)];
    let joined = [
        (NamespaceKind::Network, "net", shares.net),
        (NamespaceKind::Ipc, "ipc", shares.ipc),
        (NamespaceKind::Uts, "uts", shares.uts),
        (NamespaceKind::Pid, "pid", shares.pid),
    ];
    for (kind, name, own) in joined {
        if own {
            all.push(Namespace::join(kind, run.namespace(uid, name)));
        } else if let (NamespaceKind::Pid, Some(pid)) = (kind, target_pid) {
            all.push(Namespace::join(kind, format!("/proc/{pid}/ns/pid")));
        } else if kind == NamespaceKind::Pid && bool_at(&pod.object, &["spec", "hostPID"]) != Some(true) {
            all.push(Namespace::new(kind));
        }
    }
    all
}

/// Which namespaces the pod has for itself.
pub fn sandbox_kinds(pod: &Pod) -> mote_runtime::keeper::protocol::Sandbox {
    let yes = |field: &str| bool_at(&pod.object, &["spec", field]) == Some(true);
    mote_runtime::keeper::protocol::Sandbox {
        id: pod.uid.as_str().to_owned(),
        hostname: String::new(),
        sysctls: list_at(&pod.object, &["spec", "securityContext", "sysctls"])
            .iter()
            .map(|sysctl| (str_at(sysctl, &["name"]).to_owned(), str_at(sysctl, &["value"]).to_owned()))
            .collect(),
        net: !pod.host_network,
        ipc: !yes("hostIPC"),
        uts: !pod.host_network,
        pid: yes("shareProcessNamespace"),
    }
}

fn termination_mount(making: &Making<'_>) -> Mount {
    let file = making.roots.termination_log(&making.pod.uid, &making.wanted.name, making.attempt);
    let wanted = str_at(&making.wanted.spec, &["terminationMessagePath"]);
    let path = if wanted.starts_with('/') { wanted } else { "/dev/termination-log" };
    Mount::bind(file.to_string_lossy(), path, false)
}

/// Whether the container's own log stands in for an empty termination message.
pub fn message_from_log(wanted: &Wanted) -> bool {
    at(&wanted.spec, &["terminationMessagePolicy"]).and_then(Value::as_str) == Some("FallbackToLogsOnError")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_reads_and_writes() {
        let talk = |stdin, terminal| {
            let log = Log { path: "/l".into(), max_bytes: LOG_BYTES_MAX, max_files: LOG_FILES_MAX };
            Stdio::Talk(Talk { log, stdin, terminal })
        };
        for (spec, wanted) in [
            (serde_json::json!({"stdin": true}), talk(Stdin::Open, false)),
            (serde_json::json!({"stdin": true, "stdinOnce": true, "tty": true}), talk(Stdin::Once, true)),
            (serde_json::json!({"tty": true}), talk(Stdin::None, true)),
        ] {
            assert_eq!(stdio(&spec, "/l".into()), wanted, "{spec}");
        }
        assert!(matches!(stdio(&serde_json::json!({"stdinOnce": true}), "/l".into()), Stdio::Log(_)));
    }

    #[test]
    fn stop_signals() {
        for (text, number) in
            [("", 15), ("SIGQUIT", 3), ("QUIT", 3), ("sigint", 2), ("9", 9), ("0", 15), ("SIGNOPE", 15), ("99", 15)]
        {
            assert_eq!(stop_signal(text), number, "{text}");
        }
    }
}
