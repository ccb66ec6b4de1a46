//! Rules of containers.

use std::collections::HashSet;

use super::host_network;
use crate::field::{Error, Path};
use crate::meta;
use crate::quantity::Quantity;
use crate::tree::{Value, at, bool_at, i64_at, json, list_at, map_at, str_at};
use crate::validate::{Check, port_name};

const HANDLERS: &[&str] = &["exec", "grpc", "httpGet", "tcpSocket"];
const HOOKS: &[&str] = &["exec", "httpGet", "sleep", "tcpSocket"];

pub(super) fn containers(check: &mut Check, spec: &Value, path: Path<'_>) {
    if list_at(spec, &["containers"]).is_empty() {
        check.required(path.f("containers"), "");
    }
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, c) in list_at(spec, &[list]).iter().enumerate() {
            let all = path.f(list);
            let here = all.i(i);
            let name = str_at(c, &["name"]);
            check.required_name(here.f("name"), name, meta::dns_label);
            if !name.is_empty() && !names.insert(name) {
                check.add(Error::duplicate(here.f("name"), &json!(name)));
            }
            container(check, spec, c, here);
            ports(check, spec, c, here.f("ports"), if list == "containers" { Some(&mut host_ports) } else { None });
            if list == "initContainers" && str_at(c, &["restartPolicy"]) != "Always" {
                for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                    if c.get(field).is_some() {
                        check.forbidden(
                            here.f(field),
                            "may not be set for init containers without restartPolicy=Always",
                        );
                    }
                }
            }
            if list == "ephemeralContainers" {
                for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                    if c.get(field).is_some() {
                        check.forbidden(here.f(field), "cannot be set for an Ephemeral Container");
                    }
                }
            }
        }
    }
}

fn container(check: &mut Check, spec: &Value, c: &Value, here: Path<'_>) {
    let image = str_at(c, &["image"]);
    if image.is_empty() {
        check.required(here.f("image"), "");
    } else if image.trim() != image {
        check.invalid(here.f("image"), Some(&json!(image)), "must not have leading or trailing whitespace");
    }
    check.one_of(here.f("imagePullPolicy"), str_at(c, &["imagePullPolicy"]), &["Always", "IfNotPresent", "Never"]);
    check.one_of(
        here.f("terminationMessagePolicy"),
        str_at(c, &["terminationMessagePolicy"]),
        &["FallbackToLogsOnError", "File"],
    );
    env(check, c, here);
    mounts(check, spec, c, here.f("volumeMounts"));
    resources(check, c, here.f("resources"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = c.get(name) {
            probe(check, p, here.f(name), name != "readinessProbe");
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(h) = at(c, &["lifecycle", hook]) {
            let lifecycle = here.f("lifecycle");
            handler(check, h, lifecycle.f(hook), HOOKS);
        }
    }
    security(check, c, here.f("securityContext"));
}

fn ports<'a>(
    check: &mut Check,
    spec: &Value,
    c: &'a Value,
    here: Path<'_>,
    mut host_ports: Option<&mut HashSet<(i64, &'a str, &'a str)>>,
) {
    let mut names = HashSet::new();
    for (i, port) in list_at(c, &["ports"]).iter().enumerate() {
        let one = here.i(i);
        let (name, protocol) = (str_at(port, &["name"]), str_at(port, &["protocol"]));
        if !name.is_empty() {
            check.name(one.f("name"), name, port_name);
            if !names.insert(name) {
                check.add(Error::duplicate(one.f("name"), &json!(name)));
            }
        }
        if i64_at(port, &["containerPort"]).unwrap_or(0) == 0 {
            check.required(one.f("containerPort"), "");
        } else {
            check.port(one.f("containerPort"), port.get("containerPort"));
        }
        check.one_of(one.f("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        let host_port = i64_at(port, &["hostPort"]).unwrap_or(0);
        if host_port != 0 {
            check.port(one.f("hostPort"), port.get("hostPort"));
            if host_network(spec) && Some(host_port) != i64_at(port, &["containerPort"]) {
                check.invalid(
                    one.f("containerPort"),
                    port.get("containerPort"),
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
            if let Some(seen) = host_ports.as_deref_mut()
                && !seen.insert((host_port, protocol, str_at(port, &["hostIP"])))
            {
                check.add(Error::duplicate(
                    one.f("hostPort"),
                    &json!(format!("{protocol}/{}/{host_port}", str_at(port, &["hostIP"]))),
                ));
            }
        }
    }
}

fn env(check: &mut Check, c: &Value, here: Path<'_>) {
    let printable = |text: &str| {
        if text.contains('=') || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(
                "a valid environment variable name must consist only of printable ASCII characters other than '='"
                    .to_string(),
            );
        }
        Ok(())
    };
    for (i, e) in list_at(c, &["env"]).iter().enumerate() {
        let all = here.f("env");
        let one = all.i(i);
        check.required_name(one.f("name"), str_at(e, &["name"]), printable);
        let Some(from) = e.get("valueFrom").and_then(Value::as_object) else { continue };
        let from_at = one.f("valueFrom");
        if !str_at(e, &["value"]).is_empty() {
            check.invalid(from_at, Some(&json!("")), "may not be specified when `value` is not empty");
        }
        match from.len() {
            0 => check.invalid(from_at, Some(&json!("")), "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
            1 => {}
            _ => check.invalid(from_at, Some(&json!("")), "may not have more than one field specified at a time"),
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if from.contains_key(source) && str_at(e, &["valueFrom", source, "key"]).is_empty() {
                check.required(from_at.f(source).f("key"), "");
            }
        }
        if from.contains_key("fieldRef") && str_at(e, &["valueFrom", "fieldRef", "fieldPath"]).is_empty() {
            check.required(from_at.f("fieldRef").f("fieldPath"), "");
        }
        if from.contains_key("resourceFieldRef") && str_at(e, &["valueFrom", "resourceFieldRef", "resource"]).is_empty()
        {
            check.required(from_at.f("resourceFieldRef").f("resource"), "");
        }
    }
}

fn mounts(check: &mut Check, spec: &Value, c: &Value, here: Path<'_>) {
    let mut paths = HashSet::new();
    for (i, mount) in list_at(c, &["volumeMounts"]).iter().enumerate() {
        let one = here.i(i);
        let (name, path) = (str_at(mount, &["name"]), str_at(mount, &["mountPath"]));
        if name.is_empty() {
            check.required(one.f("name"), "");
        } else if !list_at(spec, &["volumes"]).iter().any(|v| str_at(v, &["name"]) == name) {
            check.add(Error::not_found(one.f("name"), name));
        }
        if path.is_empty() {
            check.required(one.f("mountPath"), "");
        } else if !paths.insert(path) {
            check.invalid(one.f("mountPath"), Some(&json!(path)), "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = str_at(mount, &[field]);
            if sub.starts_with('/') {
                check.invalid(one.f(field), Some(&json!(sub)), "must be a relative path");
            } else if sub.split('/').any(|p| p == "..") {
                check.invalid(one.f(field), Some(&json!(sub)), "must not contain '..'");
            }
        }
        if !str_at(mount, &["subPath"]).is_empty() && !str_at(mount, &["subPathExpr"]).is_empty() {
            check.invalid(
                one.f("subPathExpr"),
                mount.get("subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
    }
}

fn resources(check: &mut Check, c: &Value, here: Path<'_>) {
    for list in ["limits", "requests"] {
        for (resource, amount) in map_at(c, &["resources", list]).into_iter().flatten() {
            let all = here.f(list);
            let known = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || resource.starts_with("hugepages-")
                || resource.contains('/');
            if !known {
                check.invalid(all.k(resource), Some(&json!(resource)), "must be a standard resource for containers");
            }
            if Quantity::of(amount).is_some_and(Quantity::is_negative) {
                check.invalid(all.k(resource), Some(amount), "must be greater than or equal to 0");
            }
        }
    }
    for (resource, request) in map_at(c, &["resources", "requests"]).into_iter().flatten() {
        let Some(limit) = at(c, &["resources", "limits", resource]) else { continue };
        if let (Some(r), Some(l)) = (Quantity::of(request), Quantity::of(limit))
            && r > l
        {
            check.invalid(
                here.f("requests"),
                Some(request),
                &format!("must be less than or equal to {resource} limit of {l}"),
            );
        }
    }
}

fn handler(check: &mut Check, h: &Value, here: Path<'_>, kinds: &[&str]) {
    let mut given = kinds.iter().filter(|k| h.get(**k).is_some());
    if given.next().is_none() {
        check.required(here, "must specify a handler type");
    }
    for extra in given {
        check.forbidden(here.f(extra), "may not specify more than 1 handler type");
    }
    if h.get("exec").is_some() && list_at(h, &["exec", "command"]).is_empty() {
        check.required(here.f("exec").f("command"), "");
    }
    for kind in ["httpGet", "tcpSocket"] {
        if let Some(target) = h.get(kind) {
            check.port_or_name(here.f(kind).f("port"), target.get("port"));
        }
    }
    if let Some(get) = h.get("httpGet") {
        check.one_of(here.f("httpGet").f("scheme"), str_at(get, &["scheme"]), &["HTTP", "HTTPS"]);
    }
    if let Some(grpc) = h.get("grpc") {
        check.port(here.f("grpc").f("port"), grpc.get("port"));
    }
}

fn probe(check: &mut Check, p: &Value, here: Path<'_>, one_success: bool) {
    handler(check, p, here, HANDLERS);
    check.not_negative(
        here,
        p,
        &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"],
    );
    if one_success && i64_at(p, &["successThreshold"]).is_some_and(|n| n > 1) {
        check.invalid(here.f("successThreshold"), p.get("successThreshold"), "must be 1");
    }
    if i64_at(p, &["terminationGracePeriodSeconds"]).is_some_and(|n| n <= 0) {
        check.invalid(
            here.f("terminationGracePeriodSeconds"),
            p.get("terminationGracePeriodSeconds"),
            "must be greater than 0",
        );
    }
}

fn security(check: &mut Check, c: &Value, here: Path<'_>) {
    let Some(s) = c.get("securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        if i64_at(s, &[field]).is_some_and(|n| !(0..=i64::from(i32::MAX)).contains(&n)) {
            check.invalid(here.f(field), s.get(field), "must be between 0 and 2147483647, inclusive");
        }
    }
    if bool_at(s, &["allowPrivilegeEscalation"]) == Some(false) {
        let extra = list_at(s, &["capabilities", "add"]).iter().any(|c| matches!(c.as_str(), Some("CAP_SYS_ADMIN")));
        if bool_at(s, &["privileged"]) == Some(true) {
            check.invalid(here, Some(s), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        } else if extra {
            check.invalid(
                here,
                Some(s),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}
