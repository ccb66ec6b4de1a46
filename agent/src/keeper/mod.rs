//! The agent's end of the keeper's socket: requests by sequence number, and a book of every container the keeper holds, kept true
//! by its answers and events. When the connection breaks, a keeper is started if none is left, and the book is read anew.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use mote_runtime::container::{Container, Process};
use mote_runtime::keeper::protocol::{
    self, Call, Decoder, Event, Exec, ExecResult, Failure, FailureKind, Message, Reply, Request,
};
use mote_runtime::keeper::{self, RunDir, Witness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, oneshot};

pub use protocol::{Exit, Listed, Sandbox, Started, State};

/// A start may have to build a large overlay; nothing takes longer than this but an exec, which brings its own limit.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It said why.
    #[error("{0}")]
    Refused(#[from] Failure),
    /// It is not there.
    #[error("reach keeper {path}: {cause}")]
    Down {
        /// Its socket.
        path: String,
        /// Why.
        cause: String,
    },
}

impl Error {
    /// The failure's kind, if the keeper answered.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Error::Refused(failure) => Some(failure.kind),
            Error::Down { .. } => None,
        }
    }
}

type Waiting = RefCell<BTreeMap<u32, oneshot::Sender<Reply>>>;

struct Link {
    writer: Rc<Mutex<OwnedWriteHalf>>,
    waiting: Rc<Waiting>,
}

/// Told the pod UID label of the container that ended; `None` when everything may have changed.
type Listener = Rc<dyn Fn(Option<&str>)>;

/// The keeper of one run folder.
pub struct Keeper {
    exe: PathBuf,
    dir: RunDir,
    link: RefCell<Option<Link>>,
    seq: Cell<u32>,
    book: RefCell<BTreeMap<String, Listed>>,
    /// Of every container that runs.
    witnesses: RefCell<BTreeMap<String, Witness>>,
    sandboxes: RefCell<BTreeSet<String>>,
    listener: RefCell<Option<Listener>>,
    leaving: Cell<bool>,
}

/// The label a container's pod UID is kept under.
pub const LABEL_UID: &str = "uid";

/// A label of a listed container, empty when it has none of that name.
pub fn label<'a>(listed: &'a Listed, name: &str) -> &'a str {
    listed.labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

impl Keeper {
    /// Connects to the keeper of `dir`, which `exe keeper` starts if none is there.
    pub async fn open(exe: PathBuf, dir: RunDir) -> Result<Rc<Keeper>, Error> {
        let keeper = Rc::new(Keeper {
            exe,
            dir,
            link: RefCell::new(None),
            seq: Cell::new(0),
            book: RefCell::default(),
            witnesses: RefCell::default(),
            sandboxes: RefCell::default(),
            listener: RefCell::new(None),
            leaving: Cell::new(false),
        });
        keeper.connect().await?;
        Ok(keeper)
    }

    /// Connects only if a keeper is there already. One that is there and cannot be talked to (of another build, say) is an error: it
    /// may hold containers.
    pub async fn find(dir: RunDir) -> Result<Option<Rc<Keeper>>, Error> {
        match UnixStream::connect(dir.socket()).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            _ => Keeper::open(PathBuf::new(), dir).await.map(Some),
        }
    }

    /// Who hears of ends. One listener.
    pub fn listen(&self, listener: Listener) {
        *self.listener.borrow_mut() = Some(listener);
    }

    /// From now on a keeper that ends is not started again: someone ends it on purpose.
    pub fn leave(&self) {
        self.leaving.set(true);
    }

    /// Its folder.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    fn down(&self, cause: impl std::fmt::Display) -> Error {
        Error::Down { path: self.dir.socket().display().to_string(), cause: cause.to_string() }
    }

    async fn connect(self: &Rc<Self>) -> Result<(), Error> {
        if !self.exe.as_os_str().is_empty() {
            let (exe, dir) = (self.exe.clone(), self.dir.path().to_owned());
            let spawned = tokio::task::spawn_blocking(move || keeper::spawn(&exe, &dir)).await;
            spawned.map_err(|e| self.down(e))?.map_err(|e| self.down(e))?;
        }
        let stream = UnixStream::connect(self.dir.socket()).await.map_err(|e| self.down(e))?;
        let (mut reader, writer) = stream.into_split();
        let waiting: Rc<Waiting> = Rc::default();
        *self.link.borrow_mut() = Some(Link { writer: Rc::new(Mutex::new(writer)), waiting: waiting.clone() });
        let this = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let mut decoder = Decoder::default();
            let mut buffer = vec![0u8; 8 << 10];
            'read: loop {
                let n = reader.read(&mut buffer).await.unwrap_or(0);
                let Some(keeper) = this.upgrade() else { return };
                if n == 0 {
                    break;
                }
                decoder.push(buffer.get(..n).unwrap_or_default());
                loop {
                    match decoder.next_frame::<Message>() {
                        Ok(Some(message)) => keeper.hear(message, &waiting),
                        Ok(None) => break,
                        Err(error) => {
                            log::error!("{error}");
                            break 'read;
                        }
                    }
                }
            }
            waiting.borrow_mut().clear();
            if let Some(keeper) = this.upgrade() {
                keeper.link.borrow_mut().take();
                drop(keeper);
                Keeper::reconnect(this).await;
            }
        });
        self.call(Request::Hello { events: true }).await?;
        self.relist().await
    }

    async fn reconnect(this: std::rc::Weak<Keeper>) {
        let mut pause = RECONNECT_FIRST;
        loop {
            let Some(keeper) = this.upgrade() else { return };
            if keeper.exe.as_os_str().is_empty() || keeper.leaving.get() {
                return;
            }
            match Box::pin(keeper.connect()).await {
                Ok(()) => {
                    log::info!("keeper {} is back", keeper.dir.path().display());
                    keeper.tell(None);
                    return;
                }
                Err(error) => log::warn!("{error}; trying on"),
            }
            drop(keeper);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    fn tell(&self, uid: Option<&str>) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(uid);
        }
    }

    fn hear(&self, message: Message, waiting: &Waiting) {
        match message {
            Message::Reply { seq, reply } => {
                if let Some(sender) = waiting.borrow_mut().remove(&seq) {
                    let _ = sender.send(reply); // whoever asked may have given up
                }
            }
            Message::Event(Event::Exited { id, mut exit }) => {
                if let Some(witness) = self.witnesses.borrow_mut().remove(&id) {
                    witness.mend(&mut exit);
                }
                let mut uid = String::new();
                if let Some(listed) = self.book.borrow_mut().get_mut(&id) {
                    listed.state = State::Exited(exit);
                    uid = label(listed, LABEL_UID).to_owned();
                }
                self.tell(Some(&uid));
            }
        }
    }

    async fn call(&self, request: Request) -> Result<Reply, Error> {
        let patience = match &request {
            Request::Exec(exec) => ANSWER_WITHIN + Duration::from_millis(exec.timeout_ms.into()),
            _ => ANSWER_WITHIN,
        };
        let seq = self.seq.get().wrapping_add(1);
        self.seq.set(seq);
        let frame = protocol::encode(&Call { seq, request }).map_err(|e| self.down(e))?;
        let (sender, receiver) = oneshot::channel();
        let writer = {
            let link = self.link.borrow();
            let link = link.as_ref().ok_or_else(|| self.down("not connected"))?;
            link.waiting.borrow_mut().insert(seq, sender);
            link.writer.clone()
        };
        writer.lock().await.write_all(&frame).await.map_err(|e| self.down(e))?;
        let reply = tokio::time::timeout(patience, receiver).await;
        match reply.map_err(|_| self.down("no answer"))?.map_err(|_| self.down("connection lost"))? {
            Reply::Failed(failure) => Err(Error::Refused(failure)),
            reply => Ok(reply),
        }
    }

    /// Reads the whole book anew.
    pub async fn relist(&self) -> Result<(), Error> {
        if let Reply::List { containers, sandboxes } = self.call(Request::List).await? {
            let (mut witnesses, mut book) = (self.witnesses.take(), BTreeMap::new());
            for mut listed in containers {
                match (witnesses.remove(&listed.id).or_else(|| Witness::of(&listed)), &listed.state) {
                    (Some(witness), State::Exited(_)) => witness.mend_listed(&mut listed),
                    (Some(witness), _) => drop(self.witnesses.borrow_mut().insert(listed.id.clone(), witness)),
                    (None, _) => {}
                }
                book.insert(listed.id.clone(), listed);
            }
            *self.book.borrow_mut() = book;
            *self.sandboxes.borrow_mut() = sandboxes.into_iter().collect();
        }
        Ok(())
    }

    /// Every container of a pod.
    pub fn of_pod(&self, uid: &str) -> Vec<Listed> {
        self.book.borrow().values().filter(|listed| label(listed, LABEL_UID) == uid).cloned().collect()
    }

    /// Every pod UID the keeper holds something of.
    pub fn pods(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = self.sandboxes.borrow().clone();
        all.extend(
            self.book.borrow().values().map(|listed| label(listed, LABEL_UID).to_owned()).filter(|uid| !uid.is_empty()),
        );
        all
    }

    /// Ids of all containers it holds.
    pub fn containers(&self) -> Vec<Listed> {
        self.book.borrow().values().cloned().collect()
    }

    /// Whether the sandbox is there.
    pub fn has_sandbox(&self, id: &str) -> bool {
        self.sandboxes.borrow().contains(id)
    }

    /// Makes (or finds) the namespaces of a pod.
    pub async fn sandbox(&self, sandbox: Sandbox) -> Result<(), Error> {
        let id = sandbox.id.clone();
        self.call(Request::Sandbox(sandbox)).await?;
        self.sandboxes.borrow_mut().insert(id);
        Ok(())
    }

    /// Releases them.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        self.call(Request::RemoveSandbox { id: id.to_owned() }).await?;
        self.sandboxes.borrow_mut().remove(id);
        Ok(())
    }

    /// Starts a container.
    pub async fn start(&self, container: Container) -> Result<Started, Error> {
        let (id, labels) = (container.id.clone(), container.labels.clone());
        // In the book before the answer: its end may be heard first.
        let mut listed =
            Listed { id: id.clone(), labels, pid: 0, start_time: 0, started_at: 0, state: State::Starting };
        self.book.borrow_mut().insert(id.clone(), listed.clone());
        let reply = self.call(Request::Start(Box::new(container))).await;
        let mut book = self.book.borrow_mut();
        match reply {
            Ok(Reply::Started(started)) => {
                if let Some(known) = book.get(&id) {
                    listed.state = known.state.clone();
                }
                if listed.state == State::Starting {
                    listed.state = State::Running;
                }
                (listed.pid, listed.start_time, listed.started_at) =
                    (started.pid, started.start_time, started.started_at);
                if listed.state == State::Running
                    && let Some(witness) = Witness::of(&listed)
                {
                    self.witnesses.borrow_mut().insert(id.clone(), witness);
                }
                book.insert(id, listed);
                Ok(started)
            }
            Ok(_) => {
                book.remove(&id);
                Err(self.down("answered a start with something else"))
            }
            Err(error) => {
                book.remove(&id);
                Err(error)
            }
        }
    }

    /// Sends a signal; a container that is gone is fine.
    pub async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        match self.call(Request::Signal { id: id.to_owned(), signal, all }).await {
            Err(error) if error.kind() == Some(FailureKind::NotFound) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Forgets an ended container.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        self.call(Request::Remove { id: id.to_owned() }).await?;
        self.book.borrow_mut().remove(id);
        Ok(())
    }

    /// Runs a process in a container.
    pub async fn exec(
        &self,
        id: &str,
        process: Process,
        timeout: Duration,
        output_bytes_max: u32,
    ) -> Result<ExecResult, Error> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        match self.call(Request::Exec(Exec { id: id.to_owned(), process, timeout_ms, output_bytes_max })).await? {
            Reply::Exec(result) => Ok(result),
            _ => Err(self.down("answered an exec with something else")),
        }
    }

    /// Ends the keeper.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.call(Request::Shutdown).await.map(|_| ())
    }
}
