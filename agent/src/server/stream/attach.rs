//! Attach: a client that talks to a container's first process. Several may at once, and the process does not notice when one leaves, unless
//! its stdin is for the first one only (`stdinOnce`).

use std::io;

use mote_api::tree::{Value, json};
use mote_runtime::keeper::RunDir;
use mote_runtime::keeper::session;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conversation::{Conversation, End, INPUT_BYTES_MAX, failure, read, write};
use super::negotiate::Wire;
use super::session::{Input, Output, Wanted};

/// Whom to talk to.
pub(crate) struct Target {
    pub(crate) keeper: RunDir,
    pub(crate) container: String,
    /// The container has a stdin (`stdin: true`).
    pub(crate) has_stdin: bool,
    pub(crate) wanted: Wanted,
}

/// Serves one attach to its end: the container's, or the client's.
pub(crate) async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    client: IO,
    wire: Wire,
    target: Target,
) -> io::Result<()> {
    let mut talk = Conversation::open(client, wire, target.wanted).await?;
    let status = match run(&mut talk, target).await {
        // How the container ended is told by the pod's status.
        Ok(true) => json!({"metadata": {}, "status": "Success"}),
        Ok(false) => return Ok(()),
        Err(why) => failure("InternalError", why, Value::Null),
    };
    talk.finish(&status).await
}

/// The container's side.
struct Attached {
    input: Option<End>,
    stdout: Option<End>,
    stderr: Option<End>,
    terminal: bool,
    /// Input is taken.
    listens: bool,
    /// What the process has not read yet.
    pending: Vec<u8>,
    /// No more will come.
    input_ended: bool,
}

/// What came next.
enum Next {
    Client,
    Output(Output, io::Result<Vec<u8>>),
    Written(io::Result<usize>),
}

/// Talks until the container has ended (true) or the client has gone (false).
async fn run<IO: AsyncRead + AsyncWrite + Unpin>(talk: &mut Conversation<IO>, target: Target) -> Result<bool, String> {
    let Target { keeper, container, has_stdin, wanted } = target;
    let listens = wanted.stdin && has_stdin;
    let ends = tokio::task::spawn_blocking(move || session::attach(&keeper, &container, listens)).await;
    let ends = ends.map_err(|e| e.to_string())?.map_err(|refused| refused.to_string())?;
    let mut attached = Attached::new(ends, listens).map_err(|e| format!("watch the container: {e}"))?;
    loop {
        while let Some(input) = talk.inputs.pop_front() {
            if !attached.hear(input) {
                return Ok(false);
            }
        }
        if attached.stdout.is_none() && attached.stderr.is_none() {
            return Ok(true);
        }
        match next(talk, &mut attached).await.map_err(|e| e.to_string())? {
            Next::Client => {}
            Next::Output(to, Ok(bytes)) if !bytes.is_empty() => {
                talk.output(to, &bytes).await.map_err(|e| e.to_string())?;
            }
            Next::Output(Output::Stdout, _) => attached.stdout = None,
            Next::Output(Output::Stderr, _) => attached.stderr = None,
            Next::Written(Ok(written)) => drop(attached.pending.drain(..written)),
            Next::Written(Err(_)) => attached.deaf(),
        }
        attached.end_input();
    }
}

async fn next<IO: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Conversation<IO>,
    attached: &mut Attached,
) -> io::Result<Next> {
    let Attached { input, stdout, stderr, pending, .. } = attached;
    let has_room = pending.len() < INPUT_BYTES_MAX;
    tokio::select! {
        heard = talk.listen(), if has_room => heard.map(|()| Next::Client),
        bytes = read(stdout) => Ok(Next::Output(Output::Stdout, bytes)),
        bytes = read(stderr) => Ok(Next::Output(Output::Stderr, bytes)),
        written = write(input, pending), if !pending.is_empty() => Ok(Next::Written(written)),
    }
}

impl Attached {
    fn new(ends: session::Attached, listens: bool) -> io::Result<Attached> {
        Ok(Attached {
            input: ends.input.map(End::new).transpose()?,
            stdout: Some(End::new(ends.stdout)?),
            stderr: Some(End::new(ends.stderr)?),
            terminal: ends.terminal,
            listens,
            pending: Vec::new(),
            input_ended: false,
        })
    }

    /// Takes in what the client said; false when it has gone.
    fn hear(&mut self, input: Input) -> bool {
        match input {
            Input::Stdin(bytes) if self.listens && self.input.is_some() => self.pending.extend_from_slice(&bytes),
            Input::Stdin(_) => {}
            Input::StdinEnd => self.input_ended = true,
            Input::Resize(columns, rows) => {
                if let (true, Some(master)) = (self.terminal, &self.input) {
                    // One that has just gone has no size.
                    let _ = session::resize(master.fd(), rows, columns);
                }
            }
            Input::End => return false,
        }
        self.end_input();
        true
    }

    /// A pipe is let go of when everything is written; a terminal goes on.
    fn end_input(&mut self) {
        if self.input_ended && self.pending.is_empty() && !self.terminal {
            self.input = None;
        }
    }

    /// Nobody reads what is typed any more.
    fn deaf(&mut self) {
        self.listens = false;
        self.pending.clear();
        if !self.terminal {
            self.input = None;
        }
    }
}
