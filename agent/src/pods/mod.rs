//! The pods of this node: [`observe`] what is, [`plan`] what to do (pure), [`execute`] it, say so by [`status`].
//!
//! One [`worker`] per pod UID owns everything about its pod; a wake-up is only a hint to look again.

pub mod model;
pub mod plan;
pub mod qos;
pub mod status;
