//! What this node is to run: the pods the API server binds to it, and the manifests of its folder.

pub mod api;
pub mod manifests;
