//! minicp: a control plane that speaks the real Kubernetes API in a few MiB.
#![forbid(unsafe_code)]

pub mod api;
pub mod auth;
pub mod clock;
pub mod config;
pub mod controllers;

pub mod pki;
pub mod scheduler;
pub mod store;

use std::rc::Rc;

use tokio::io::DuplexStream;

pub use api::client::{Client, DeleteOptions, Event, EventType, Propagation, Revision, Watch};
pub use auth::UserInfo;
pub use clock::{Clock, SystemClock};
pub use config::{Cidr, Config};

/// Why a control plane did not start: operation, object, cause.
#[derive(thiserror::Error, Debug)]
#[error("{0}")]
pub struct StartError(pub String);

/// Opens a byte stream to the node agent in this process: its kubelet API, already authenticated as this server.
pub type Dial = Rc<dyn Fn() -> DuplexStream>;

/// A running control plane; cheap to clone. Lives in a tokio `LocalSet`.
#[derive(Clone)]
pub struct Server {}

impl Server {
    /// Opens or recovers the store, makes what is missing of CA and certificates, binds, seeds what every cluster has, starts scheduler and
    /// controllers. Ready to serve when it returns.
    pub async fn start(config: Config, clock: Rc<dyn Clock>) -> Result<Server, StartError> {
        let _ = (config, clock);
        unimplemented!()
    }
    /// `https://ADDRESS:PORT`
    pub fn url(&self) -> String {
        unimplemented!()
    }
    pub fn ca_pem(&self) -> &str {
        unimplemented!()
    }
    /// A kubeconfig (YAML) with the admin's client certificate inside: keep it at 0600.
    pub fn admin_kubeconfig(&self) -> String {
        unimplemented!()
    }
    /// `<id>.<secret>@sha256:<hex of the CA certificate's DER>`, for `mote agent --token`.
    pub fn join_token(&self) -> String {
        unimplemented!()
    }
    /// The in-process API, as the controllers use it.
    pub fn client(&self) -> Client {
        unimplemented!()
    }
    /// An HTTP/1.1 connection over memory, already authenticated as `user`.
    pub fn connect(&self, user: UserInfo) -> DuplexStream {
        let _ = user;
        unimplemented!()
    }
    /// How log and exec requests reach the agent in this process, instead of https://ADDRESS:PORT of the Node object.
    pub fn set_local_node(&self, name: &str, dial: Dial) {
        let _ = (name, dial);
        unimplemented!()
    }
    /// Ends watches and connections, waits for the disk.
    pub async fn stop(self) {
        unimplemented!()
    }
}
