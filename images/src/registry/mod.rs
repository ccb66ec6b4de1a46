//! The OCI distribution protocol, client side. Decisions ([`auth`], [`hosts`], [`proxy`], [`url`]) are pure; [`client`] carries them out
//! over [`transport`].

pub mod auth;
pub mod blob;
pub mod client;
mod credentials;
pub mod exchange;
mod helper;
pub mod hosts;
mod place;
pub mod proxy;
pub mod push;
mod token;
pub mod toml;
pub mod transport;
pub mod upload;
pub mod url;

use std::path::{Path, PathBuf};

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// An OAuth2 refresh token; used instead of the password where it is set.
    pub identity_token: Option<String>,
}

/// How registries are reached, and whose images are taken. The default knows no file of this machine.
#[derive(Clone, Default)]
pub struct Registries {
    /// `host[:port]` reached by plain HTTP, beyond those on loopback.
    pub plain_http: Vec<String>,
    /// `(registry, mirror base URL)`: asked before what [`Registries::hosts_dirs`] name, in order.
    pub mirrors: Vec<(String, String)>,
    /// Only the registry itself is asked, whatever mirrors there are.
    pub no_mirrors: bool,
    /// More trust anchors (PEM), beside the system's bundle.
    pub ca_pem: Vec<u8>,
    /// A docker `config.json` to take credentials from (`auths`, `credHelpers`, `credsStore`).
    pub docker_config: Option<PathBuf>,
    /// Folders in containerd's `certs.d` layout; the first that knows a registry counts ([`hosts`]).
    pub hosts_dirs: Vec<PathBuf>,
    /// A containers-policy.json(5) file that says which images are taken; read anew for every pull. Without one, all.
    pub policy: Option<PathBuf>,
}

impl Registries {
    /// With what this machine's files say where nothing was chosen: `<data-dir>/certs.d` and the folders of containerd and docker, the
    /// user's docker configuration, and `<data-dir>/policy.json` if there is one. (podman's /etc/containers/policy.json counts only
    /// where it is named: distributions ship it with kinds of signatures that are none of ours.)
    pub fn completed(mut self, data_dir: &Path) -> Registries {
        if self.hosts_dirs.is_empty() {
            self.hosts_dirs =
                vec![data_dir.join("certs.d"), "/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()];
        }
        self.docker_config = self.docker_config.or_else(|| credentials::of_user(&|name| std::env::var_os(name)));
        let policy = data_dir.join("policy.json");
        self.policy = self.policy.or_else(|| policy.exists().then_some(policy));
        self
    }
}
