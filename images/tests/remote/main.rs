//! Registries as they are out there: TLS, client certificates, mirrors, redirects, challenges, limits, proxies, signatures. Against Debian's
//! docker-registry and skopeo, and against a small scripted server that records what it was asked. Needs openssl and curl; a missing program
//! fails the tests, none is skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a broken expectation is this program's failure
#![allow(unreachable_pub)] // its modules are each other's only users

mod auth;
mod environment;
mod mirrors;
mod plain;
mod scripted;
mod signed;
mod stock;
mod tls;
mod upload;
