//! Pod Security standards: `baseline` and `restricted` by labels of the namespace, enforced, warned of, or noted for audit (upstream's PodSecurity
//! admission: its checks in its order, with its messages).

mod checks;

use mote_api::field;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, at};

const LABEL: &str = "pod-security.kubernetes.io/";
/// Pods looked at when a namespace's level changes.
const EXISTING_MAX: usize = 3000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }
    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// `restricted:latest`; a level that cannot be read is the strictest, as upstream's.
fn wanted(namespace: &Value, mode: &str) -> Option<(Level, String)> {
    let text = meta::label(namespace, &format!("{LABEL}{mode}"));
    if text.is_empty() {
        return None;
    }
    let level = Level::parse(text).unwrap_or(Level::Restricted);
    let version = match meta::label(namespace, &format!("{LABEL}{mode}-version")) {
        "" => "latest",
        version => version,
    };
    (level != Level::Privileged).then(|| (level, format!("\"{}:{version}\"", level.name())))
}

/// What is wrong with a pod's spec and annotations: `reason (detail), ...`; "" for nothing.
fn violations(level: Level, pod: &Value) -> String {
    let mut out = Vec::new();
    for (reason, details) in checks::run(level == Level::Restricted, pod) {
        out.push(if details.is_empty() { reason } else { format!("{reason} ({details})") });
    }
    out.join(", ")
}

/// The pod that an object is, or makes.
fn template(kind: &Kind, object: &Value) -> Option<Value> {
    let path: &[&str] = match (&*kind.group, &*kind.kind) {
        ("", "Pod") => return Some(object.clone()),
        ("", "PodTemplate") => &["template"],
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => &["spec", "template"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    at(object, path).cloned()
}

/// Whether a kind is looked at at all.
pub(crate) fn concerns(kind: &Kind) -> bool {
    matches!(&*kind.group, "" | "apps" | "batch")
        && matches!(
            &*kind.kind,
            "Pod"
                | "PodTemplate"
                | "ReplicationController"
                | "Deployment"
                | "ReplicaSet"
                | "StatefulSet"
                | "DaemonSet"
                | "Job"
                | "CronJob"
        )
}

/// Whether a namespace asks for anything.
pub(crate) fn asked(namespace: &Value) -> bool {
    meta::labels(namespace).keys().any(|k| k.starts_with(LABEL))
}

/// Whether the object may be made in the namespace; adds to `warnings`.
pub(crate) fn check(kind: &Kind, namespace: &Value, object: &Value, warnings: &mut Vec<String>) -> Result<(), Status> {
    let Some(pod) = template(kind, object) else { return Ok(()) };
    if kind.is("", "Pod")
        && let Some((level, words)) = wanted(namespace, "enforce")
    {
        let found = violations(level, &pod);
        if !found.is_empty() {
            let why = format!("violates PodSecurity {words}: {found}");
            return Err(Status::forbidden(kind, meta::name(object), &why));
        }
    }
    if let Some((level, words)) = wanted(namespace, "warn") {
        let found = violations(level, &pod);
        if !found.is_empty() {
            warnings.push(format!("would violate PodSecurity {words}: {found}"));
        }
    }
    if let Some((level, words)) = wanted(namespace, "audit") {
        let found = violations(level, &pod);
        if !found.is_empty() {
            log::info!(
                "audit: {} {:?} in {} would violate PodSecurity {words}: {found}",
                kind.kind,
                meta::name(object),
                meta::name(namespace)
            );
        }
    }
    Ok(())
}

/// Labels of a namespace that say no level or no version.
pub(crate) fn check_labels(kind: &Kind, namespace: &Value) -> Result<(), Status> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("{LABEL}{mode}");
        let level = meta::label(namespace, &key);
        if !level.is_empty() && Level::parse(level).is_none() {
            let why = "must be one of privileged, baseline, restricted";
            errors.push(field::Error::invalid_str(format!("metadata.labels[{key}]"), level, why));
        }
        let key = format!("{key}-version");
        let version = meta::label(namespace, &key);
        let minor = version.strip_prefix("v1.").is_some_and(|n| n.parse::<u16>().is_ok());
        if !version.is_empty() && version != "latest" && !minor {
            let why = "must be \"latest\" or \"v1.x\"";
            errors.push(field::Error::invalid_str(format!("metadata.labels[{key}]"), version, why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(kind, meta::name(namespace), &errors)) }
}

/// Whether a change of a namespace makes its pods be looked at anew.
pub(crate) fn is_stricter(old: &Value, new: &Value) -> bool {
    let level = |o| wanted(o, "enforce").map(|w| w.1);
    level(new).is_some() && level(old) != level(new)
}

/// What to tell who makes a namespace stricter than its pods.
pub(crate) fn existing(namespace: &Value, pods: &[Value]) -> Vec<String> {
    let Some((level, words)) = wanted(namespace, "enforce") else { return Vec::new() };
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for pod in pods.iter().take(EXISTING_MAX) {
        let wrong = violations(level, pod);
        if wrong.is_empty() {
            continue;
        }
        match found.iter_mut().find(|(w, _)| *w == wrong) {
            Some((_, names)) => names.push(meta::name(pod)),
            None => found.push((wrong, vec![meta::name(pod)])),
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let head = format!(
        "existing pods in namespace {:?} violate the new PodSecurity enforce level {words}",
        meta::name(namespace)
    );
    let line = |(wrong, names): &(String, Vec<&str>)| match names.as_slice() {
        [one] => format!("{one}: {wrong}"),
        [first, _] => format!("{first} (and 1 other pod): {wrong}"),
        [first, rest @ ..] => format!("{first} (and {} other pods): {wrong}", rest.len()),
        [] => String::new(),
    };
    std::iter::once(head).chain(found.iter().map(line)).collect()
}
