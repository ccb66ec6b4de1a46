//! What upstream says, check by check.

use super::*;
use mote_api::tree::json;

fn said(restricted: bool, spec: Value) -> String {
    run(restricted, &json!({"spec": spec})).iter().map(|(r, d)| format!("{r} ({d})")).collect::<Vec<_>>().join(", ")
}

/// What `restricted` wants, and no more.
fn good() -> Value {
    json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}]})
}

#[test]
fn restricted_says_what_upstream_says() {
    assert_eq!(said(true, good()), "");
    assert_eq!(said(false, json!({"containers": [{"name": "a"}]})), "");
    assert_eq!(
        said(true, json!({"containers": [{"name": "nginx"}]})),
        r#"allowPrivilegeEscalation != false (container "nginx" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "nginx" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "nginx" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "nginx" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
}

#[test]
fn each_check_bites() {
    let both = [false, true];
    for (levels, patch, want) in [
        (&both[..], json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (&both, json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), r#"hostPath volumes (volume "h")"#),
        (
            &both[1..],
            json!({"volumes": [{"name": "h", "nfs": {"path": "/"}}]}),
            r#"restricted volume types (volume "h" uses restricted volume type "nfs")"#,
        ),
        (
            &both,
            json!({"securityContext": {"sysctls": [{"name": "kernel.x"}, {"name": "net.ipv4.tcp_syncookies"}]}}),
            "forbidden sysctls (kernel.x)",
        ),
        (
            &both,
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            &both,
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            &both,
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)"#,
        ),
        (
            &both,
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (&both[1..], json!({"securityContext": {"runAsUser": 0}}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            &both[1..],
            json!({"securityContext": {"runAsNonRoot": false}}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
    ] {
        for restricted in both {
            let mut spec = good();
            mote_api::patch::merge_patch(&mut spec, &patch).unwrap();
            assert_eq!(said(restricted, spec).contains(want), levels.contains(&restricted), "{restricted} {want}");
        }
    }
    for (levels, container, want) in [
        (
            &both[..],
            json!({"securityContext": {"privileged": true}}),
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            &both[..1],
            json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}),
            r#"non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            &both[1..],
            json!({"securityContext": {"capabilities": {"add": ["CHOWN"]}}}),
            r#"unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (
            &both,
            json!({"securityContext": {"procMount": "Unmasked"}}),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (&both, json!({"ports": [{"hostPort": 80}, {"hostPort": 0}]}), r#"hostPort (container "a" uses hostPort 80)"#),
        (
            &both,
            json!({"livenessProbe": {"httpGet": {"host": "1.2.3.4"}}}),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "1.2.3.4")"#,
        ),
        (
            &both[1..],
            json!({"securityContext": {"allowPrivilegeEscalation": true}}),
            "allowPrivilegeEscalation != false",
        ),
    ] {
        for restricted in both {
            let mut spec = good();
            mote_api::patch::merge_patch(&mut spec["containers"][0], &container).unwrap();
            assert_eq!(said(restricted, spec).contains(want), levels.contains(&restricted), "{restricted} {want}");
        }
    }
    // Init and ephemeral containers too.
    let mut spec = good();
    spec["initContainers"] = json!([{"name": "i", "securityContext": {"privileged": true}}]);
    spec["ephemeralContainers"] = json!([{"name": "e", "securityContext": {"privileged": true}}]);
    assert!(said(false, spec).contains(r#"containers "i", "e" must not set"#));
}
