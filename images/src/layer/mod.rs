//! One layer, in one pass: compressed bytes in, a folder for overlayfs out, both digests checked, nothing kept in between. Three threads: at
//! a double line one hands over to the next.
//!
//! ```text
//! network ─ Hashing (Digest) ─ codec (gzip, zstd, plain) ═ ahead (DiffId) ═ tar ─ entry (policy, pure) ─ tree (openat2) ─ disk
//!                                                                                               └─ listing (names and checksums)
//! ```

pub mod acl;
pub mod ahead;
pub mod codec;
pub mod entry;
pub mod hashing;
pub mod listing;
pub mod open;
pub mod pax;
pub mod stack;
pub mod tar;
pub mod tree;
pub mod unpack;

pub use codec::Codec;
pub use unpack::{Onto, Unpacked, unpack};
