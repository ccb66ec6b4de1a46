//! Pod network, service proxy and cluster DNS on the real kernel. Needs root. Every test plays in network namespaces of its own
//! that hold no name and end with the thread that made them: nothing to clean up, whatever happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub)]

mod names;
mod pods;
mod services;
mod world;
