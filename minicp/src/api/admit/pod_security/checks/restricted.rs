//! The checks that `restricted` adds to `baseline`.

use mote_api::tree::{Value, bool_at, i64_at, list_at, str_at};

use super::{Found, Pod, adding, found, must_not, plural, quoted, unconfined};

const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

pub(super) fn escalation(pod: &Pod<'_>) -> Option<Found> {
    let names = pod.those(|s| bool_at(s, &["allowPrivilegeEscalation"]) != Some(false));
    let details = format!("{} must set securityContext.allowPrivilegeEscalation=false", plural("container", &names));
    if names.is_empty() || pod.windows() { None } else { found("allowPrivilegeEscalation != false", details) }
}

pub(super) fn capabilities_kept(pod: &Pod<'_>) -> Option<Found> {
    if pod.windows() {
        return None;
    }
    let keeping = pod.those(|s| !list_at(s, &["capabilities", "drop"]).iter().any(|c| c == "ALL"));
    let (names, what) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut out = Vec::new();
    if !keeping.is_empty() {
        out.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", plural("container", &keeping)));
    }
    if !names.is_empty() {
        out.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            plural("container", &names),
            quoted(&what)
        ));
    }
    if out.is_empty() { None } else { found("unrestricted capabilities", out.join("; ")) }
}

pub(super) fn volume_types(pod: &Pod<'_>) -> Option<Found> {
    let (mut names, mut types): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for volume in list_at(pod.spec, &["volumes"]) {
        let ty = volume
            .as_object()
            .into_iter()
            .flatten()
            .find(|(k, v)| *k != "name" && !v.is_null())
            .map(|(k, _)| k.as_str());
        if let Some(ty) = ty.filter(|t| !VOLUMES.contains(t)) {
            names.push(str_at(volume, &["name"]));
            types.push(ty);
        }
    }
    types.sort_unstable();
    types.dedup();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let details = format!("{} {uses} restricted {}", plural("volume", &names), plural("volume type", &types));
    if names.is_empty() { None } else { found("restricted volume types", details) }
}

pub(super) fn non_root(pod: &Pod<'_>) -> Option<Found> {
    let of = |s: &Value| bool_at(s, &["runAsNonRoot"]);
    let wrong = pod.those(|s| of(s) == Some(false));
    let mut out = Vec::new();
    if of(pod.security) == Some(false) {
        out.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !wrong.is_empty() {
        out.push(format!("{} must not set securityContext.runAsNonRoot=false", plural("container", &wrong)));
    }
    if out.is_empty() && of(pod.security) != Some(true) {
        let silent = pod.those(|s| of(s).is_none());
        if !silent.is_empty() {
            out.push(format!("pod or {} must set securityContext.runAsNonRoot=true", plural("container", &silent)));
        }
    }
    if out.is_empty() { None } else { found("runAsNonRoot != true", out.join("; ")) }
}

pub(super) fn user_zero(pod: &Pod<'_>) -> Option<Found> {
    let zero = |s: &Value| i64_at(s, &["runAsUser"]) == Some(0);
    found("runAsUser=0", must_not(zero(pod.security), &pod.those(zero), "runAsUser=0")?)
}

pub(super) fn seccomp_set(pod: &Pod<'_>) -> Option<Found> {
    if pod.windows() {
        return None;
    }
    let of = |s: &Value| !str_at(s, &["seccompProfile", "type"]).is_empty();
    let what = "securityContext.seccompProfile.type to \"Unconfined\"";
    let mut out: Vec<String> = must_not(unconfined(pod.security), &pod.those(unconfined), what).into_iter().collect();
    if out.is_empty() && !of(pod.security) {
        let silent = pod.those(|s| !of(s));
        if !silent.is_empty() {
            let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            out.push(format!("pod or {} {what}", plural("container", &silent)));
        }
    }
    if out.is_empty() { None } else { found("seccompProfile", out.join("; ")) }
}
