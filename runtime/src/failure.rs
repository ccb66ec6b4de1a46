//! Why something could not be done, in words that cross the keeper's socket.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No such container or sandbox.
    NotFound,
    /// The id is taken.
    Exists,
    /// Still running, or still in use.
    Busy,
    /// The request makes no sense; asking again will not help.
    Invalid,
    /// A stage failed and everything was undone.
    Stage,
    /// A limit of the keeper (containers, frame, clients).
    Limit,
    /// Protocol version differs.
    Version,
}

/// Why something was not done. `message` reads alone: `exec /bin/foo: no such file or directory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    /// Name in the stage table, empty if none was reached.
    pub stage: String,
    /// 0 if none.
    pub errno: i32,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, stage: String::new(), errno: 0, message: message.into() }
    }
}
