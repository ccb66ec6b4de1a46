//! Exec: a process inside a container, and a client that talks to it. The keeper starts the process on pipes or a terminal of ours; its
//! output goes straight to the client.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mote_api::tree::{Value, json};
use mote_runtime::container::Process;
use mote_runtime::keeper::RunDir;
use mote_runtime::keeper::protocol::{self, Decoder, Message, Reply};
use mote_runtime::keeper::session::{self, Ends, Talk};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest};
use tokio::net::UnixStream;

use super::conversation::{Conversation, End, INPUT_BYTES_MAX, failure, read, write};
use super::negotiate::Wire;
use super::session::{Input, Output, Wanted};

/// Output may still be on its way when the process has ended; children that it left behind may hold it open for ever.
const SILENCE_AFTER_END: Duration = Duration::from_millis(250);
/// What is to be run, and where.
pub(crate) struct Command {
    pub(crate) keeper: RunDir,
    pub(crate) container: String,
    pub(crate) process: Process,
    pub(crate) wanted: Wanted,
}

/// Serves one exec to its end.
pub(crate) async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    client: IO,
    wire: Wire,
    command: Command,
) -> io::Result<()> {
    let mut talk = Conversation::open(client, wire, command.wanted).await?;
    let status = match run(&mut talk, command).await {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(()),
        Err(why) => failure("InternalError", why, Value::Null),
    };
    talk.finish(&status).await
}

/// The process's side.
struct Running {
    answer: UnixStream,
    decoder: Decoder,
    stdin: Option<End>,
    stdout: Option<End>,
    stderr: Option<End>,
    /// Gives the terminal that is stdin and stdout.
    console: Option<UnixStream>,
    /// What the process has not read yet.
    pending: Vec<u8>,
    /// No more will come.
    input_ended: bool,
    size: Option<(u16, u16)>,
    reply: Option<Reply>,
}

/// What came next.
enum Next {
    Client,
    Console(io::Result<OwnedFd>),
    Output(Output, io::Result<Vec<u8>>),
    Written(io::Result<usize>),
    Answer(io::Result<Reply>),
    Silence,
}

/// Runs the process. What the client hears last; `None` when it has gone.
async fn run<IO: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Conversation<IO>,
    command: Command,
) -> Result<Option<Value>, String> {
    let Command { keeper, container, process, wanted } = command;
    let asked = protocol::Session { id: container, process, terminal: wanted.tty };
    let ends = tokio::task::spawn_blocking(move || session::open(&keeper, asked, wanted.stdin)).await;
    let ends = ends.map_err(|e| e.to_string())?.map_err(|e| format!("ask keeper for exec: {e}"))?;
    let mut running = Running::new(ends).map_err(|e| format!("watch exec: {e}"))?;
    loop {
        while let Some(input) = talk.inputs.pop_front() {
            if !running.hear(input) {
                return Ok(None);
            }
        }
        // A terminal that has not come yet may have been written to already.
        let open = running.stdout.is_some() || running.stderr.is_some() || running.console.is_some();
        if running.reply.is_some() && !open {
            break;
        }
        match next(talk, &mut running).await.map_err(|e| e.to_string())? {
            Next::Client => {}
            Next::Console(Ok(master)) => running.terminal(master).map_err(|e| format!("watch terminal: {e}"))?,
            // The answer says why there is none.
            Next::Console(Err(_)) => running.console = None,
            Next::Output(to, Ok(bytes)) if !bytes.is_empty() => {
                talk.output(to, &bytes).await.map_err(|e| e.to_string())?;
            }
            Next::Output(Output::Stdout, _) => running.stdout = None,
            Next::Output(Output::Stderr, _) => running.stderr = None,
            Next::Written(Ok(written)) => drop(running.pending.drain(..written)),
            Next::Written(Err(_)) => running.stdin = None,
            Next::Answer(Ok(reply)) => {
                running.reply = Some(reply);
                running.stdin = None;
            }
            Next::Answer(Err(error)) => return Err(format!("keeper: {error}")),
            Next::Silence => break,
        }
        running.end_input();
    }
    Ok(running.reply.map(status_of))
}

async fn next<IO: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Conversation<IO>,
    running: &mut Running,
) -> io::Result<Next> {
    let Running { answer, decoder, stdin, stdout, stderr, console, pending, reply, .. } = running;
    let listens = pending.len() < INPUT_BYTES_MAX;
    tokio::select! {
        // In this order: what is there comes before the silence, however late we are.
        biased;
        heard = talk.listen(), if listens => heard.map(|()| Next::Client),
        written = write(stdin, pending), if !pending.is_empty() => Ok(Next::Written(written)),
        master = receive(console) => Ok(Next::Console(master)),
        bytes = read(stdout) => Ok(Next::Output(Output::Stdout, bytes)),
        bytes = read(stderr) => Ok(Next::Output(Output::Stderr, bytes)),
        answer = answered(answer, decoder), if reply.is_none() => Ok(Next::Answer(answer)),
        () = tokio::time::sleep(SILENCE_AFTER_END), if reply.is_some() => Ok(Next::Silence),
    }
}

impl Running {
    fn new(ends: Ends) -> io::Result<Running> {
        let (mut stdin, mut stdout, mut stderr, mut console) = (None, None, None, None);
        match ends.talk {
            Talk::Pipes { stdin: input, stdout: out, stderr: err } => {
                stdin = input.map(End::new).transpose()?;
                (stdout, stderr) = (Some(End::new(out)?), Some(End::new(err)?));
            }
            Talk::Terminal(socket) => console = Some(UnixStream::from_std(socket)?),
        }
        let answer = UnixStream::from_std(ends.answer)?;
        let (decoder, pending) = (Decoder::default(), Vec::new());
        Ok(Running {
            answer,
            decoder,
            stdin,
            stdout,
            stderr,
            console,
            pending,
            input_ended: false,
            size: None,
            reply: None,
        })
    }

    /// Takes in what the client said; false when it has gone.
    fn hear(&mut self, input: Input) -> bool {
        match input {
            Input::Stdin(bytes) => self.pending.extend_from_slice(&bytes),
            Input::StdinEnd => self.input_ended = true,
            Input::Resize(columns, rows) => {
                self.size = Some((columns, rows));
                self.resize();
            }
            Input::End => return false,
        }
        self.end_input();
        true
    }

    /// A pipe ends when everything is written; a terminal goes on.
    fn end_input(&mut self) {
        if self.input_ended && self.pending.is_empty() && self.stderr.is_some() {
            self.stdin = None;
        }
        if self.stdin.is_none() && self.console.is_none() {
            self.pending.clear();
        }
    }

    fn terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        self.console = None;
        self.stdin = Some(End::new(master.try_clone()?)?);
        self.stdout = Some(End::new(master)?);
        self.resize();
        Ok(())
    }

    fn resize(&self) {
        // Before the terminal is there the size waits; a process that has just ended has none.
        if let (Some((columns, rows)), Some(terminal), None) = (self.size, &self.stdout, &self.stderr) {
            let _ = session::resize(terminal.fd(), rows, columns);
        }
    }
}

async fn receive(console: &mut Option<UnixStream>) -> io::Result<OwnedFd> {
    let Some(console) = console else { return std::future::pending().await };
    console.async_io(Interest::READABLE, || session::receive_terminal(&*console)).await
}

async fn answered(stream: &mut UnixStream, decoder: &mut Decoder) -> io::Result<Reply> {
    let mut piece = [0; 1024];
    loop {
        match decoder.next_frame().map_err(io::Error::other)? {
            Some(Message::Reply { reply, .. }) => return Ok(reply),
            Some(Message::Event(_)) => {}
            None => match stream.read(&mut piece).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => decoder.push(piece.get(..read).unwrap_or_default()),
            },
        }
    }
}

/// The last word of the error stream, as upstream says it.
fn status_of(reply: Reply) -> Value {
    match reply {
        Reply::Exec(result) if result.code == 0 => json!({"metadata": {}, "status": "Success"}),
        Reply::Exec(result) => failure(
            "NonZeroExitCode",
            format!("command terminated with non-zero exit code: exit status {}", result.code),
            json!({"causes": [{"reason": "ExitCode", "message": result.code.to_string()}]}),
        ),
        Reply::Failed(failed) => failure("InternalError", failed.message, Value::Null),
        _ => failure("InternalError", "the keeper answered an exec with something else".into(), Value::Null),
    }
}
