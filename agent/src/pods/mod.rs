//! The pods of this node: [`observe`] what is, [`plan`] what to do (pure), [`execute`] it, say so by [`status`].
//!
//! One [`worker`] per pod UID owns everything about its pod; a wake-up is only a hint to look again.

pub mod dirs;
pub mod execute;
pub mod model;
pub mod observe;
pub mod plan;
pub mod qos;
pub mod say;
pub mod spec;
pub mod status;
pub mod worker;
