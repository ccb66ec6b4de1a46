//! What can go wrong, told apart only where a caller decides differently. Every text says operation, object and cause.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::Platform;
use crate::reference::Reference;

/// Failure of a pull; the same type as every other failure of this crate.
pub type PullError = Error;

/// Failure of an operation on images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no image reference.
    #[error("invalid reference {text:?}: {why}")]
    BadReference { text: String, why: &'static str },
    /// The text is no sha256 digest.
    #[error("invalid digest {0:?}: want sha256: and 64 lower-case hex digits")]
    BadDigest(String),
    /// Neither the store nor the registry has it; `reason` is the registry's own where there is one.
    #[error("{what}: not found: {reason}")]
    NotFound { what: String, reason: String },
    /// The registry wants other credentials, or any.
    #[error("{what}: {reason}")]
    Unauthorized { what: String, reason: String },
    /// The image exists, but not for this machine.
    #[error("{reference}: no image for {want}, it offers {}", offers_text(.offers))]
    WrongPlatform { reference: Box<Reference>, want: Platform, offers: Vec<Platform> },
    /// Bytes are not what their name or their format promises.
    #[error("{what}: corrupt: {why}")]
    Corrupt { what: String, why: String },
    /// Bytes are well-formed but refused: hostile, beyond a limit, or of a kind that is not supported.
    #[error("{what}: refused: {why}")]
    Refused { what: String, why: String },
    /// No space (or quota, or inodes) left.
    #[error("{what}: no space left on device")]
    DiskFull { what: String },
    /// The registry could not be reached, broke off, or answered with a server error.
    #[error("{what}: {why}")]
    Network { what: String, why: String, retryable: bool },
    /// Someone still uses it.
    #[error("{what}: in use by {by}")]
    InUse { what: String, by: String },
    /// The caller's [`crate::Cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// Any other failure of the operating system.
    #[error("{op} {}: {source}", .path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Network { retryable, .. } => *retryable,
            Error::DiskFull { .. } | Error::InUse { .. } | Error::Io { .. } => true,
            Error::Corrupt { .. } => true, // a middle box or a cut stream may have damaged it
            _ => false,
        }
    }

    /// An IO failure with operation and path; a full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Error {
        let path = path.as_ref();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Error::DiskFull { what: format!("{op} {}", path.display()) },
            _ => Error::Io { op, path: path.to_owned(), source },
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Corrupt { what: what.into(), why: why.into() }
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Refused { what: what.into(), why: why.into() }
    }
}

fn offers_text(offers: &[Platform]) -> String {
    if offers.is_empty() {
        return "none".to_owned();
    }
    offers.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}
