//! The API itself, transport aside.

pub mod client;
