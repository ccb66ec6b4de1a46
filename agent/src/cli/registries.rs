//! The flags of every command that asks registries, as rows for [`super::flags`].

use mote_images::Registries;

use super::flags::{Flag, Given, put};

/// All of them.
pub(super) static FLAGS: [Flag<Registries>; 5] = [
    Flag {
        name: "plain-http",
        value: "HOST:PORT",
        about: "a registry reached without TLS (may be repeated; loopback needs no mention)",
        set: |registries, v| v.parse().map(|host| registries.plain_http.push(host)),
    },
    Flag { name: "ca", value: "FILE", about: "trust anchors (PEM) beside the system's", set: trust },
    Flag {
        name: "hosts-dir",
        value: "DIR",
        about: "mirrors and certificates by registry, as containerd's certs.d (may be repeated; default: certs.d in the data \
                folder, /etc/containerd/certs.d, /etc/docker/certs.d)",
        set: |registries, v| {
            registries.hosts_dirs.push(v.path());
            Ok(())
        },
    },
    Flag {
        name: "docker-config",
        value: "FILE",
        about: "credentials and credential helpers (default ~/.docker/config.json)",
        set: |registries, v| put(&mut registries.docker_config, Some(v.path())),
    },
    Flag {
        name: "image-policy",
        value: "FILE",
        about: "which images are taken, by whose signature: containers-policy.json(5) (default: policy.json in the data folder, if \
                there is one)",
        set: |registries, v| put(&mut registries.policy, Some(v.path())),
    },
];

/// The one of that name.
pub(super) fn find(name: &str) -> Option<&'static Flag<Registries>> {
    FLAGS.iter().find(|flag| flag.name == name)
}

fn trust(registries: &mut Registries, file: Given) -> Result<(), String> {
    let path = file.path();
    let pem = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    registries.ca_pem.extend(pem);
    Ok(())
}
