//! How a child that is not yet the container's program speaks to its parent: records on a pipe that closes itself at exec.
//!
//! One record: kind (1 byte), length (2 bytes, little-endian), text. `W` warning, `F` failure (postcard), `R` held before exec, `H` hooks wanted,
//! `X` exec comes next. End of stream after `X` and no `F` = the program runs; without `X` the child died in a stage.

use crate::failure::{Failure, FailureKind};
use nix::errno::Errno;
use std::io::Write;

/// Longest text in bytes; longer ones are cut.
const TEXT_BYTES_MAX: usize = 4096;

/// What went wrong in a stage: operation and object in `what`, and the cause.
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) errno: Errno,
}

impl Fault {
    pub(crate) fn failure(&self, stage: &str) -> Failure {
        let message = match self.errno {
            Errno::UnknownErrno => self.what.clone(),
            errno => format!("{}: {}", self.what, cause(errno)),
        };
        Failure { kind: FailureKind::Stage, stage: stage.to_owned(), errno: self.errno as i32, message }
    }
}

/// The C library's words, lower case as ours.
pub(crate) fn cause(errno: Errno) -> String {
    let text = errno.desc();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// `operation object` for a [`Fault`].
pub(crate) fn at<'a>(operation: &'a str, object: impl std::fmt::Display + 'a) -> impl FnOnce(Errno) -> Fault + 'a {
    move |errno| Fault { what: format!("{operation} {object}"), errno }
}

/// An error of std, by its number.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A fault that is no system call's.
pub(crate) fn plain(what: impl Into<String>) -> Fault {
    Fault { what: what.into(), errno: Errno::UnknownErrno }
}

pub(crate) const WARNING: u8 = b'W';
pub(crate) const FAILED: u8 = b'F';
pub(crate) const READY: u8 = b'R';
pub(crate) const EXEC: u8 = b'X';
/// The child waits until the runtime's hooks have run.
pub(crate) const HOOKS: u8 = b'H';

pub(crate) fn write_record(to: &mut impl Write, kind: u8, text: &[u8]) {
    let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    let mut record = vec![kind];
    record.extend_from_slice(&(text.len() as u16).to_le_bytes());
    record.extend_from_slice(text);
    let _ = to.write_all(&record); // nobody listens: nothing to tell
}

pub(crate) fn write_failure(to: &mut impl Write, failure: &Failure) {
    let mut cut = failure.clone();
    cut.message = cut.message.chars().take(1000).collect();
    write_record(to, FAILED, &postcard::to_stdvec(&cut).unwrap_or_default());
}

/// What has been heard so far.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) warnings: Vec<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) ready: bool,
    pub(crate) hooks: bool,
    pub(crate) exec: bool,
}

impl Heard {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some((kind, text, used)) = record(&self.bytes) {
            match kind {
                WARNING => self.warnings.push(String::from_utf8_lossy(text).into_owned()),
                FAILED => self.failure = Some(decode_failure(text)),
                READY => self.ready = true,
                HOOKS => self.hooks = true,
                _ => self.exec = true,
            }
            self.bytes.drain(..used);
        }
    }

    /// The verdict at the end of the stream.
    pub(crate) fn finish(self) -> Result<Vec<String>, Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.exec => Ok(self.warnings),
            None => Err(Failure {
                kind: FailureKind::Stage,
                stage: "init".into(),
                errno: 0,
                message: "container process died before its program was started (out of memory?)".into(),
            }),
        }
    }
}

fn decode_failure(text: &[u8]) -> Failure {
    postcard::from_bytes(text)
        .unwrap_or_else(|_| Failure::new(FailureKind::Stage, "unreadable report of the container's first process"))
}

fn record(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (head, rest) = bytes.split_first_chunk::<3>()?;
    let [kind, low, high] = *head;
    let length = usize::from(u16::from_le_bytes([low, high]));
    Some((kind, rest.get(..length)?, 3 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cut() {
        let failure = Fault { what: "exec /bin/foo".into(), errno: Errno::ENOENT }.failure("exec");
        assert_eq!(failure.message, "exec /bin/foo: no such file or directory");
        let mut bytes = Vec::new();
        write_record(&mut bytes, WARNING, b"w");
        write_record(&mut bytes, EXEC, b"");
        write_failure(&mut bytes, &failure);
        for cut in 0..bytes.len() {
            let mut heard = Heard::default();
            heard.push(&bytes[..cut]);
            heard.push(&bytes[cut..]);
            assert_eq!(heard.warnings, ["w"]);
            assert_eq!(heard.finish(), Err(failure.clone()));
        }
    }

    #[test]
    fn silence_is_a_failure_and_exec_is_success() {
        assert!(Heard::default().finish().is_err());
        let mut heard = Heard::default();
        heard.push(&[EXEC, 0, 0]);
        assert_eq!(heard.finish(), Ok(vec![]));
        let mut hostile = Heard::default();
        hostile.push(&[FAILED, 2, 0, 255, 255]);
        assert!(hostile.finish().is_err());
    }
}
