//! Images as files, for machines without a network: docker-archive, oci-archive and OCI layout in, oci-archive out.

mod export;
mod import;
mod source;
