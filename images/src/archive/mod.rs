//! Images as files, for machines without a network: docker-archive, oci-archive and OCI layout, in and out.

mod export;
mod import;
mod source;

pub use export::ArchiveFormat;
