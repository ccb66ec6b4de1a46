//! minicp: a control plane that speaks the real Kubernetes API in a few MiB.
//!
//! One thread (a tokio `LocalSet`), these tasks:
//!
//! | task | made by | talks to |
//! |---|---|---|
//! | store writer (one) | `store::log` | takes the commit queue (woken by a `Notify`), writes on a blocking thread, wakes committers (oneshot) and feeds watchers (bounded queues) |
//! | etcd's tasks | `store::etcd` | instead of the writer: one watch, one question and up to 64 transactions at a time, over HTTP |
//! | backups (one, if asked for) | `store::snapshot` | copy the store's files on a blocking thread |
//! | accept loop (one) | `server` | one connection task per client |
//! | connection (one per client) | `http::serve` | the API, directly |
//! | watch (one per HTTP watch) | `http::watch` | its store watcher -> bounded channel of chunks -> the connection |
//! | definitions (one) | `crd` | watches CustomResourceDefinitions, serves their kinds, ends their objects |
//! | certificate signer (one) | `pki::signer` | watches certificate signing requests |
//! | endpoints (one, on etcd) | `endpoints` | watches who shares the state, makes the endpoints of the `kubernetes` Service |
//! | candidate (one, on etcd) | `leader` | one Lease: starts scheduler and controllers when it is this server's turn, ends them after it |
//! | scheduler and controllers | their own modules | [`Client`] |
//!
//! Nothing here wakes up when nothing happens (but a candidate: every few seconds). Arrows: `http` -> `auth` -> `api` -> `store`; `scheduler`, `controllers`, `pki::signer` -> [`Client`] -> `api`.
//! `config` stands below all that it sets up, but for `store`, whose own settings it takes from there.
//! Reading order: `store`, `api`, `http`, `server`.
#![forbid(unsafe_code)]

pub mod api;
mod audit;
pub mod auth;
pub mod clock;
pub mod config;
pub mod control;
pub mod controllers;
mod crd;
mod endpoints;
mod flow;
pub mod http;
mod leader;
mod mirror;
pub mod pki;
mod rbac;
pub mod scheduler;
mod seed;
mod server;
pub mod store;
pub mod user;

use std::rc::Rc;

use tokio::io::DuplexStream;

pub use api::client::{Client, DeleteOptions, Event, EventType, Propagation, Revision, Watch};
pub use api::events::{EVENT_TTL_SECONDS, EVENTS_MAX};
pub use clock::{Clock, SystemClock};
pub use config::{Cidr, Config, ElectionTimes};
pub use flow::{SEATS_MAX, USER_SEATS_MAX, USER_WAITING_MAX};
pub use server::{Server, StartError};
pub use store::etcd::EtcdConfig;
pub use store::snapshot::schedule::Schedule;
pub use user::UserInfo;

/// Opens a byte stream to the node agent in this process: its kubelet API, already authenticated as this server.
pub type Dial = Rc<dyn Fn() -> DuplexStream>;
