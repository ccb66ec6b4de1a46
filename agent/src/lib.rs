//! The node agent: one node makes its pods true and says so. Also the command line of the executable `mote`.
//!
//! ```text
//! desired (API pods of this node, static manifests) ─┐
//!                                                    ├─ pods::plan (pure) ─ worker::execute ─ keeper, images, net
//! observed (keeper list and events, run folder)  ────┘                          │
//!                                                              status, events ──┴─ client ─ API server
//! ```
//!
//! Everything runs on one thread (tokio `current_thread` with a `LocalSet`); blocking work (pulls, big file trees) goes to
//! `spawn_blocking`, whose pool is bounded. Tasks and what wakes them:
//!
//! | task | woken by |
//! |---|---|
//! | `desired::api` | the pods watch of this node |
//! | `desired::manifests` | inotify on the manifest folder |
//! | `keeper::client` | frames on the keeper's socket |
//! | one `worker` per pod UID | a changed desired pod, an exit, a probe result, its own one timer |
//! | `worker::probes` | its period, only while a probed container runs |
//! | `node::keep` | 10 s lease timer, 5 min status timer |
//! | `node::follow` | the nodes watch (this node's pod range, routes to the others) |
//! | `services` | the services and endpointslices watches (proxy rules, DNS snapshot, service variables) |
//! | `worker::say`, one per pod | a new status |
//! | `events` | a new event |
//! | `server` | connections to the kubelet port |
//!
//! Start reading at `run` (how the parts are put together), then `worker`, `pods::plan`, `pods::status`.
#![deny(unsafe_code)]

/// `println!` that cannot panic: a closed pipe behind stdout must not end who serves others.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// `eprintln!` that cannot panic, for the same.
macro_rules! complain {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub mod agent;
#[cfg(feature = "minicp")]
mod apply;
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(feature = "minicp")]
mod demo;
pub mod desired;
pub mod dns;
pub mod events;
mod image_gc;
mod inotify;
mod instance;
mod join;
pub mod keeper;
mod logger;
pub mod net;
pub mod node;
pub mod objects;
pub mod pods;
mod progress;
pub mod proxy;
mod run;
pub mod server;
pub mod services;
pub mod worker;
