//! What the keeper and its clients say to each other: pure bytes, no IO.
//!
//! Stream of frames, each `u32` length (little-endian, of what follows), `u16` version (little-endian), postcard payload. Client
//! to keeper a payload is [`Call`], keeper to client [`Message`]. Calls are answered once each, by `seq`, in any order; events
//! flow to clients that asked for them in [`Request::Hello`]. A frame of another version is answered with
//! [`FailureKind::Version`] and the connection ends, so that a newer agent can tell and replace an older keeper.

use crate::container::{Container, Process, Resources};
pub use crate::failure::{Failure, FailureKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of this protocol; changes with any change of a type below.
pub const VERSION: u16 = 3;
/// Largest frame in bytes, header excluded. A container with the kernel's largest argument list still fits.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Most bytes of output one exec may give back.
pub const EXEC_OUTPUT_BYTES_MAX: u32 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub seq: u32,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// First on a connection. `events`: send [`Event`]s here from now on.
    Hello { events: bool },
    /// Make (or find again) the namespaces of a pod: `<dir>/sandbox/<id>/{net,ipc,uts[,pid]}`. Idempotent.
    Sandbox(Sandbox),
    /// Release them. Containers of it must be gone. Idempotent.
    RemoveSandbox { id: String },
    /// Start; answered by [`Reply::Started`] once the program runs, or by the stage that failed, undone.
    Start(Box<Container>),
    /// To the first process, or (`all`) to every process of its cgroup.
    Signal { id: String, signal: i32, all: bool },
    /// Forget an exited container: its run folder and cgroup. A running one is `Busy`. Idempotent.
    Remove { id: String },
    /// Everything the keeper holds.
    List,
    /// Run a process inside a running container and wait for it.
    Exec(Exec),
    /// New limits for a running container.
    Update { id: String, resources: Resources },
    /// Close and reopen the log file (someone else rotated it).
    ReopenLog { id: String },
    /// End the keeper; `Busy` while containers run.
    Shutdown,
    /// Run a process inside a running container on descriptors that come with this request (SCM_RIGHTS): stdin, stdout and stderr, or,
    /// for one with a terminal, a single socket that gets the terminal's master. Answered by [`Reply::Exec`] when it has ended; a
    /// client that goes away does not end it (its closed descriptors may).
    Session(Session),
    /// Be told what a running container says from now on, and talk to it. With the request come three descriptors: a socket that gets one
    /// descriptor (see [`Reply::Attached`]), and the writing ends of two pipes for stdout and stderr. Answered at once; the pipes
    /// end when the container has ended, or when nobody read them for too long. [`super::session::attach`] does all of it.
    Attach(Attach),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Container id.
    pub id: String,
    /// Give me the program's stdin as well, if it has one that is open.
    pub stdin: bool,
}

/// A [`Call`] as the keeper reads it: the names of short requests are looked at where they lie in the frame, so that these cost no memory.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Asked<'a> {
    pub(crate) seq: u32,
    #[serde(borrow)]
    pub(crate) request: Wanted<'a>,
}

/// [`Request`], variant by variant in its order.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Wanted<'a> {
    Hello { events: bool },
    Sandbox(Box<Sandbox>),
    RemoveSandbox { id: &'a str },
    Start(Box<Container>),
    Signal { id: &'a str, signal: i32, all: bool },
    Remove { id: &'a str },
    List,
    Exec(Box<Exec>),
    Update { id: &'a str, resources: Box<Resources> },
    ReopenLog { id: &'a str },
    Shutdown,
    Session(Box<Session>),
    Attach(WantedAttach<'a>),
}

/// [`Attach`].
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct WantedAttach<'a> {
    pub(crate) id: &'a str,
    pub(crate) stdin: bool,
}

/// A process that somebody talks to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Container id.
    pub id: String,
    /// As of [`Exec`].
    pub process: Process,
    pub terminal: bool,
}

/// The shared namespaces of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    pub id: String,
    /// Set in the new UTS namespace; empty = leave.
    pub hostname: String,
    /// `net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`.
    pub sysctls: Vec<(String, String)>,
    /// Which of them are new; the others are the host's and have no file.
    pub net: bool,
    pub ipc: bool,
    pub uts: bool,
    /// Shared PID namespace with a tiny init that reaps.
    pub pid: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Container id.
    pub id: String,
    /// Empty `cwd` = `/`. Environment, user and capabilities are given whole, nothing is inherited.
    pub process: Process,
    /// Milliseconds until everything it started is killed; 0 = 10 s.
    pub timeout_ms: u32,
    /// Bytes of stdout and stderr together that are kept; the rest is read and dropped. At most [`EXEC_OUTPUT_BYTES_MAX`].
    pub output_bytes_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    Reply { seq: u32, reply: Reply },
    Event(Event),
}

/// [`Message`] as the keeper writes it.
#[derive(Serialize)]
pub(crate) enum Told<'a> {
    Reply { seq: u32, reply: &'a Reply },
    Event(&'a Event),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Hello {
        version: u16,
        pid: i32,
        /// Package version of the keeper's executable.
        build: String,
    },
    Done,
    Started(Started),
    List {
        containers: Vec<Listed>,
        sandboxes: Vec<String>,
    },
    Exec(ExecResult),
    Failed(Failure),
    Attached(Attached),
}

/// What went over the socket that came with a [`Request::Attach`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// A descriptor did.
    pub input: bool,
    /// It is the master of the container's terminal: to write and to resize, never to read. Otherwise it is stdin's writing end.
    pub terminal: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// As the host sees it.
    pub pid: i32,
    /// Clock ticks since boot (/proc/PID/stat field 22): with the pid it names the process for ever.
    pub start_time: u64,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// What was asked but could not be had here (oom_score_adj without CAP_SYS_RESOURCE, …), one line each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    pub labels: Vec<(String, String)>,
    pub pid: i32,
    pub start_time: u64,
    pub started_at: i64,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Stages still run.
    Starting,
    Running,
    Exited(Exit),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0..=255; 128 + signal for a killed one, as shells and the kubelet count.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
    /// Empty, or why the code is not to be trusted (`exit status lost: …`).
    pub note: String,
}

impl Exit {
    /// What a wait status says of it: the code and the signal.
    pub(crate) fn of(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            Self { code: 128 + signal, signal: Some(signal), ..Self::default() }
        } else {
            Self { code: libc::WEXITSTATUS(status), ..Self::default() }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// As [`Exit::code`]; 137 after a timeout.
    pub code: i32,
    pub output: Vec<u8>,
    pub truncated: bool,
    pub timed_out: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Exited { id: String, exit: Exit },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("encode keeper frame: larger than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
    #[error("decode keeper frame: length {0} exceeds {FRAME_BYTES_MAX}")]
    Length(usize),
    #[error("decode keeper frame: version {0}, this build speaks {VERSION}")]
    Version(u16),
    #[error("decode keeper frame: {0}")]
    Payload(String),
}

/// Bytes before a frame's payload.
const HEADER_BYTES: usize = 6;

/// One whole frame, ready to be written.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    encode_onto(Vec::new(), value)
}

/// The same behind what is there already; after an error all of it is lost.
pub(crate) fn encode_onto<T: Serialize>(mut bytes: Vec<u8>, value: &T) -> Result<Vec<u8>, FrameError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    let mut bytes = postcard::to_extend(value, bytes).map_err(|e| FrameError::Payload(e.to_string()))?;
    let length = bytes.len().saturating_sub(start + 4);
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let header = (length as u32).to_le_bytes().into_iter().chain(VERSION.to_le_bytes());
    bytes.iter_mut().skip(start).zip(header).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// The first frame's payload and the length of the whole frame, `None` while bytes are missing.
pub(crate) fn first_frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if !(2..=FRAME_BYTES_MAX).contains(&length) {
        return Err(FrameError::Length(length));
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let (version, payload) = frame.split_first_chunk::<2>().ok_or(FrameError::Length(length))?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    Ok(Some((payload, 4 + length)))
}

/// What a payload says.
pub(crate) fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, FrameError> {
    postcard::from_bytes(payload).map_err(|e| FrameError::Payload(e.to_string()))
}

/// Bytes in, frames out. After an error the stream is lost: close the connection.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` while bytes are missing.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((payload, whole)) = first_frame(&self.buffer)? else { return Ok(None) };
        let value = decode(payload)?;
        self.buffer.drain(..whole);
        if self.buffer.is_empty() {
            self.buffer = Vec::new(); // a large frame must not stay in memory
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
#[path = "protocol/tests.rs"]
mod tests;
