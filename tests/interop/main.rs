//! Other people's programs, unchanged, against ours: kubectl of three releases, skopeo, umoci and docker-registry, the Python client.
#![allow(clippy::indexing_slicing)] // a field of a JSON object that is not there reads as null
#![allow(unreachable_pub)]

#[path = "../harness/mod.rs"]
mod harness;

mod curl;
mod custom;
mod image_tools;
mod kubectl;
mod libraries;
mod proxies;
mod state;
mod streams;
mod table;
mod verbs;
