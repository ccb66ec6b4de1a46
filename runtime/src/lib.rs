//! OCI bundle to isolated processes, and the keeper that holds them. Knows no Kubernetes, no tokio.
//!
//! Read in this order: [`container`] (what a container is), `stages` (how one is started, in steps that can be undone),
//! [`keeper`] (who holds them), [`bundle`] and [`oci_cli`] (the same by OCI's words).

/// A line for whoever looks after us ([`print::complain`]).
macro_rules! complain {
    ($($words:tt)*) => { $crate::print::complain(format_args!("{}\n", format_args!($($words)*))) };
}

pub mod bundle;
pub mod cgroup;
pub mod check;
pub mod container;
mod descriptors;
mod failure;
mod identity;
pub mod keeper;
pub mod oci_cli;
mod print;
pub mod seccomp;
mod stages;
mod sys;
pub mod user;

pub use print::print;
pub use sys::{end_on_closed_pipe, enter};
