//! Certificates.

pub mod files;
