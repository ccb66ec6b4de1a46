//! Other people's programs, unchanged, against ours: kubectl of three releases, skopeo, umoci and docker-registry.

#[path = "../harness/mod.rs"]
mod harness;

mod image_tools;
mod kubectl;
