//! What a pod is and what is to be done for it: read from its object ([`model`]), compared with the facts ([`plan`], pure), told as
//! [`status`], described to the runtime ([`spec`]), with its folders ([`dirs`]) and [`volumes`]. Nothing here knows the agent;
//! [`crate::worker`] makes it so.

pub mod dirs;
pub mod model;
pub mod plan;
pub mod qos;
pub mod slot;
pub mod spec;
pub mod status;
pub mod volumes;
