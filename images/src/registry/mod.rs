//! The OCI distribution protocol, client side. Decisions ([`auth`], [`url`]) are pure; [`client`] carries them out over [`transport`].

pub mod auth;
pub mod blob;
pub mod client;
mod credentials;
pub mod push;
pub mod transport;
pub mod url;

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// An OAuth2 refresh token; used instead of the password where it is set.
    pub identity_token: Option<String>,
}

/// How registries are reached.
#[derive(Clone, Default)]
pub struct Registries {
    /// `host[:port]` reached by plain HTTP, beyond those on loopback.
    pub plain_http: Vec<String>,
    /// `(registry, mirror base URL)`: mirrors are asked first, in order, and never get credentials.
    pub mirrors: Vec<(String, String)>,
    /// More trust anchors (PEM), beside the system's bundle.
    pub ca_pem: Vec<u8>,
    /// A docker `config.json` to take credentials from.
    pub docker_config: Option<std::path::PathBuf>,
}
