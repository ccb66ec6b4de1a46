//! The flags that say how registries are reached, of `mote image`; `mote up` and `mote agent` have the same in their table.

use std::path::PathBuf;

use lexopt::ValueExt;

/// The lines of `--help`.
pub(super) const REGISTRY_HELP: &str =
    "  --plain-http HOST:PORT   a registry reached without TLS (may be repeated; loopback needs no mention)
  --ca FILE                trust anchors (PEM) beside the system's
  --hosts-dir DIR          mirrors and certificates by registry, laid out as containerd's certs.d (may be repeated;
                           default: certs.d in the data folder, /etc/containerd/certs.d, /etc/docker/certs.d)
  --docker-config FILE     credentials and credential helpers (default ~/.docker/config.json)
  --image-policy FILE      which images are taken, by whose signature: containers-policy.json(5)
                           (default: policy.json in the data folder, if there is one)
";

/// Is it one of [`REGISTRY_HELP`]'s?
pub(super) fn is_registry_flag(name: &str) -> bool {
    matches!(name, "plain-http" | "ca" | "hosts-dir" | "docker-config" | "image-policy")
}

/// Takes the value of such a flag.
pub(super) fn registry_flag(
    name: &str,
    parser: &mut lexopt::Parser,
    registries: &mut mote_images::Registries,
) -> Result<(), lexopt::Error> {
    let value = parser.value()?;
    match name {
        "plain-http" => registries.plain_http.push(value.string()?),
        "ca" => {
            let path = PathBuf::from(value);
            let pem = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
            registries.ca_pem.extend(pem);
        }
        "hosts-dir" => registries.hosts_dirs.push(value.into()),
        "docker-config" => registries.docker_config = Some(value.into()),
        _ => registries.policy = Some(value.into()),
    }
    Ok(())
}
