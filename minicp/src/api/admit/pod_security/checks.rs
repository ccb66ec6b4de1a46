//! The checks themselves: those of `baseline` here, what `restricted` adds in its own file. Pure.

mod restricted;
#[cfg(test)]
mod tests;

use mote_api::tree::{Value, at, bool_at, i64_at, list_at, map_at, str_at};

/// (what is wrong, details)
type Found = (String, String);

/// Capabilities that `baseline` lets containers add.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// A pod, seen as the checks do.
struct Pod<'a> {
    whole: &'a Value,
    spec: &'a Value,
    security: &'a Value,
    containers: Vec<(&'a str, &'a Value)>,
}

static NULL: Value = Value::Null;

fn security(of: &Value) -> &Value {
    at(of, &["securityContext"]).unwrap_or(&NULL)
}

/// `"a", "b"`
fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|n| format!("{:?}", n.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`
fn plural<T: AsRef<str>>(word: &str, names: &[T]) -> String {
    format!("{word}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

impl<'a> Pod<'a> {
    fn new(whole: &'a Value) -> Pod<'a> {
        let spec = whole.get("spec").unwrap_or(&NULL);
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let containers = lists.iter().flat_map(|l| list_at(spec, &[l])).map(|c| (str_at(c, &["name"]), c)).collect();
        Pod { whole, spec, security: security(spec), containers }
    }
    /// Names of containers whose securityContext is so.
    fn those(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|(_, c)| is(security(c))).map(|(n, _)| *n).collect()
    }
    fn windows(&self) -> bool {
        str_at(self.spec, &["os", "name"]) == "windows"
    }
}

fn found(reason: &str, details: String) -> Option<Found> {
    Some((reason.into(), details))
}

/// Everything wrong, in upstream's order: the baseline checks by their ids, then the restricted ones, which replace two of them.
pub(super) fn run(is_restricted: bool, pod: &Value) -> Vec<Found> {
    let pod = Pod::new(pod);
    let mut all = vec![app_armor(&pod)];
    if !is_restricted {
        all.push(capabilities_added(&pod));
    }
    all.extend([
        host_namespaces(&pod),
        host_paths(&pod),
        host_ports(&pod),
        host_probes(&pod),
        privileged(&pod),
        proc_mount(&pod),
        selinux(&pod),
    ]);
    if !is_restricted {
        all.push(seccomp_unconfined(&pod));
    }
    all.extend([sysctls(&pod), windows_host(&pod)]);
    if is_restricted {
        all.extend([
            restricted::escalation(&pod),
            restricted::capabilities_kept(&pod),
            restricted::volume_types(&pod),
            restricted::non_root(&pod),
            restricted::user_zero(&pod),
            restricted::seccomp_set(&pod),
        ]);
    }
    all.into_iter().flatten().collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<Found> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad = |s: &Value| !matches!(str_at(s, &["appArmorProfile", "type"]), "" | "RuntimeDefault" | "Localhost");
    let mut out = Vec::new();
    if bad(pod.security) {
        out.push(format!(
            "pod must not set AppArmor profile type to {:?}",
            str_at(pod.security, &["appArmorProfile", "type"])
        ));
    }
    let names = pod.those(bad);
    if !names.is_empty() {
        out.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", plural("container", &names)));
    }
    for (key, value) in map_at(pod.whole, &["metadata", "annotations"]).into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let good = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        if key.starts_with(PREFIX) && !good {
            out.push(format!("{key}={value:?}"));
        }
    }
    let s = if out.len() == 1 { "" } else { "s" };
    (!out.is_empty()).then(|| (format!("forbidden AppArmor profile{s}"), out.join(", ")))
}

/// Containers that add capabilities beyond `allowed`, and those capabilities.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut names, mut what): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (name, container) in &pod.containers {
        let added = list_at(security(container), &["capabilities", "add"]).iter().filter_map(Value::as_str);
        let bad: Vec<&str> = added.filter(|c| !allowed.contains(c)).collect();
        if !bad.is_empty() {
            names.push(name);
            what.extend(bad);
        }
    }
    what.sort_unstable();
    what.dedup();
    (names, what)
}

fn capabilities_added(pod: &Pod<'_>) -> Option<Found> {
    let (names, what) = adding(pod, &CAPABILITIES);
    let details = format!(
        "{} must not include {} in securityContext.capabilities.add",
        plural("container", &names),
        quoted(&what)
    );
    if names.is_empty() { None } else { found("non-default capabilities", details) }
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Found> {
    let set = |f: &&str| bool_at(pod.spec, &[f]) == Some(true);
    let all: Vec<String> =
        ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|f| set(f)).map(|f| format!("{f}=true")).collect();
    if all.is_empty() { None } else { found("host namespaces", all.join(", ")) }
}

fn host_paths(pod: &Pod<'_>) -> Option<Found> {
    let volumes = list_at(pod.spec, &["volumes"]).iter().filter(|v| v.get("hostPath").is_some_and(|h| !h.is_null()));
    let names: Vec<&str> = volumes.map(|v| str_at(v, &["name"])).collect();
    if names.is_empty() { None } else { found("hostPath volumes", plural("volume", &names)) }
}

fn host_ports(pod: &Pod<'_>) -> Option<Found> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for (name, container) in &pod.containers {
        let own = list_at(container, &["ports"]).iter().filter_map(|p| i64_at(p, &["hostPort"])).filter(|p| *p != 0);
        let own: Vec<i64> = own.collect();
        if !own.is_empty() {
            names.push(*name);
            ports.extend(own);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    let list = ports.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let (uses, s) = (if names.len() == 1 { "uses" } else { "use" }, if ports.len() == 1 { "" } else { "s" });
    if names.is_empty() {
        None
    } else {
        found("hostPort", format!("{} {uses} hostPort{s} {list}", plural("container", &names)))
    }
}

fn host_probes(pod: &Pod<'_>) -> Option<Found> {
    let (mut names, mut hosts): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (name, container) in &pod.containers {
        let probes: [&[&str]; 5] = [
            &["livenessProbe"],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let of = |path: &&[&str], how: &str| at(container, path).map_or("", |p| str_at(p, &[how, "host"]));
        let own: Vec<&str> =
            probes.iter().flat_map(|p| [of(p, "httpGet"), of(p, "tcpSocket")]).filter(|h| !h.is_empty()).collect();
        if !own.is_empty() {
            names.push(name);
            hosts.extend(own);
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    let (uses, s) = (if names.len() == 1 { "uses" } else { "use" }, if hosts.len() == 1 { "" } else { "s" });
    let details = format!("{} {uses} probe or lifecycle host{s} {}", plural("container", &names), quoted(&hosts));
    if names.is_empty() { None } else { found("probe or lifecycle host", details) }
}

fn privileged(pod: &Pod<'_>) -> Option<Found> {
    let names = pod.those(|s| bool_at(s, &["privileged"]) == Some(true));
    let details = format!("{} must not set securityContext.privileged=true", plural("container", &names));
    if names.is_empty() { None } else { found("privileged", details) }
}

fn proc_mount(pod: &Pod<'_>) -> Option<Found> {
    let bad = |s: &Value| !matches!(str_at(s, &["procMount"]), "" | "Default");
    // In a user namespace of its own there is nothing to unmask.
    if bool_at(pod.spec, &["hostUsers"]) == Some(false) {
        return None;
    }
    let names = pod.those(bad);
    let details = format!("{} must not set securityContext.procMount to \"Unmasked\"", plural("container", &names));
    if names.is_empty() { None } else { found("procMount", details) }
}

fn selinux(pod: &Pod<'_>) -> Option<Found> {
    let (mut setters, mut types, mut user, mut role) = (Vec::new(), Vec::new(), false, false);
    let mut look = |who: Option<&str>, context: &Value| {
        let of = |f| str_at(context, &["seLinuxOptions", f]).to_owned();
        let bad_type = !SELINUX_TYPES.contains(&of("type").as_str());
        if bad_type {
            types.push(of("type"));
        }
        let bad = bad_type || !of("user").is_empty() || !of("role").is_empty();
        user |= !of("user").is_empty();
        role |= !of("role").is_empty();
        if bad {
            setters.push(who.map(str::to_owned));
        }
    };
    look(None, pod.security);
    for (name, container) in &pod.containers {
        look(Some(name), security(container));
    }
    if setters.is_empty() {
        return None;
    }
    let named: Vec<&String> = setters.iter().flatten().collect();
    let mut who = Vec::new();
    if setters.iter().any(Option::is_none) {
        who.push("pod".to_owned());
    }
    if !named.is_empty() {
        who.push(plural("container", &named));
    }
    types.sort_unstable();
    types.dedup();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(plural("type", &types));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let details = format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; "));
    found("seLinuxOptions", details)
}

fn unconfined(s: &Value) -> bool {
    !matches!(str_at(s, &["seccompProfile", "type"]), "" | "RuntimeDefault" | "Localhost")
}

/// What pod and containers must not set, and how upstream words it.
fn must_not(pod: bool, names: &[&str], what: &str) -> Option<String> {
    let mut who = Vec::new();
    if pod {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(plural("container", names));
    }
    (!who.is_empty()).then(|| format!("{} must not set {what}", who.join(" and ")))
}

fn seccomp_unconfined(pod: &Pod<'_>) -> Option<Found> {
    let what = "securityContext.seccompProfile.type to \"Unconfined\"";
    found("seccompProfile", must_not(unconfined(pod.security), &pod.those(unconfined), what)?)
}

fn sysctls(pod: &Pod<'_>) -> Option<Found> {
    let names = list_at(pod.security, &["sysctls"]).iter().map(|s| str_at(s, &["name"]));
    let bad: Vec<&str> = names.filter(|n| !SYSCTLS.contains(n)).collect();
    if bad.is_empty() { None } else { found("forbidden sysctls", bad.join(", ")) }
}

fn windows_host(pod: &Pod<'_>) -> Option<Found> {
    let bad = |s: &Value| bool_at(s, &["windowsOptions", "hostProcess"]) == Some(true);
    found(
        "hostProcess",
        must_not(bad(pod.security), &pod.those(bad), "securityContext.windowsOptions.hostProcess=true")?,
    )
}
