//! The keeper as its clients see it: a real daemon (`mote-keeper`), real containers from a busybox image. Needs root.
//!
//! Every test has its own keeper, cgroup and folder, and takes them away when it ends, failed or not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod adoption;
mod attach;
mod cost;
mod hostile;
mod kills;
mod life;
mod node;
