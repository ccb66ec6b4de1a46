//! A connection to systemd: its own socket where it lets us in, else the bus. One call at a time; jobs that end meanwhile are remembered.

use super::wire::{self, Kind, MESSAGE_BYTES_MAX, Message, Method, Value, Writer};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for an answer or the end of a job, as runc's.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest line of the greeting (the specification's limit is 16 KiB).
const LINE_BYTES_MAX: usize = 1024;
/// Ended jobs that are remembered.
const JOBS_MAX: usize = 64;

const MANAGER: Method<'_> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
    signature: "",
};
const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
    signature: "",
};

/// Where a systemd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Its own socket: nobody in between.
    Private(PathBuf),
    Bus(PathBuf),
}

impl Address {
    /// Of the system's, or of this user's, in the order in which they are tried.
    pub(crate) fn of_host() -> Vec<Self> {
        if nix::unistd::geteuid().is_root() {
            return vec![Self::Private("/run/systemd/private".into()), Self::Bus("/run/dbus/system_bus_socket".into())];
        }
        let Some(run) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) else { return Vec::new() };
        vec![Self::Private(run.join("systemd/private")), Self::Bus(run.join("bus"))]
    }
}

pub(crate) struct Manager {
    stream: UnixStream,
    incoming: Vec<u8>,
    serial: u32,
    /// Job and how it ended.
    ended: Vec<(String, String)>,
}

/// What systemd said, by its name; empty when it did not say it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refused {
    pub(crate) name: String,
    text: String,
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        Self { name: String::new(), text: format!("talk to systemd: {e}") }
    }
}

impl Manager {
    /// # Errors
    /// The last address's, when none answers.
    pub(crate) fn connect(addresses: &[Address]) -> Result<Self, Refused> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        for address in addresses {
            match Self::greet(address) {
                Ok(manager) => return Ok(manager),
                Err(e) => last = e,
            }
        }
        Err(last.into())
    }

    fn greet(address: &Address) -> io::Result<Self> {
        let (path, bus): (&Path, bool) = match address {
            Address::Private(path) => (path, false),
            Address::Bus(path) => (path, true),
        };
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        let mut manager = Self { stream, incoming: Vec::new(), serial: 0, ended: Vec::new() };
        let until = Instant::now() + ANSWER_WAIT_MAX;
        manager.stream.write_all(&wire::greeting(nix::unistd::geteuid().as_raw()))?;
        let line = loop {
            if let Some(end) = manager.incoming.iter().position(|b| *b == b'\n') {
                break manager.incoming.drain(..=end).collect::<Vec<_>>();
            }
            if manager.incoming.len() > LINE_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            manager.receive(until)?;
        };
        if !line.starts_with(b"OK ") {
            return Err(ErrorKind::PermissionDenied.into());
        }
        if bus {
            manager.subscribe().map_err(|e| io::Error::other(e.text))?;
        }
        Ok(manager)
    }

    /// Over the bus a name is needed, and signals come only to those who asked.
    fn subscribe(&mut self) -> Result<(), Refused> {
        self.call(&Method { member: "Hello", ..BUS }, Writer::default())?;
        let mut body = Writer::default();
        body.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
        self.call(&Method { member: "AddMatch", signature: "s", ..BUS }, body)?;
        self.call(&Method { member: "Subscribe", ..MANAGER }, Writer::default()).map(drop)
    }

    fn receive(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut buffer = [0u8; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::ConnectionReset.into()),
            Ok(count) => {
                self.incoming.extend_from_slice(buffer.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(e) => Err(e),
        }
    }

    /// The next message that is no end of a job.
    fn next(&mut self, until: Instant) -> io::Result<Option<Message>> {
        match wire::message(&self.incoming).map_err(io::Error::other)? {
            Some((message, used)) => {
                self.incoming.drain(..used);
                if message.kind != Kind::Signal || message.member != "JobRemoved" {
                    return Ok(Some(message));
                }
                let mut body = message.body();
                let parts = body.u32().and_then(|_| Ok((body.text()?, body.text()?, body.text()?)));
                let (job, _, result) = parts.map_err(io::Error::other)?;
                if self.ended.len() < JOBS_MAX {
                    self.ended.push((job.to_owned(), result.to_owned()));
                }
                Ok(None)
            }
            None if self.incoming.len() > MESSAGE_BYTES_MAX => Err(ErrorKind::InvalidData.into()),
            None => self.receive(until).map(|()| None),
        }
    }

    fn call(&mut self, method: &Method<'_>, body: Writer) -> Result<Message, Refused> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&wire::call(serial, method, body))?;
        let until = Instant::now() + ANSWER_WAIT_MAX;
        loop {
            match self.next(until)? {
                Some(m) if m.reply_to == Some(serial) && m.kind == Kind::Return => return Ok(m),
                Some(m) if m.reply_to == Some(serial) && m.kind == Kind::Error => {
                    let text = m.body().text().unwrap_or_default().to_owned();
                    return Err(Refused { text: if text.is_empty() { m.error.clone() } else { text }, name: m.error });
                }
                _ => {}
            }
        }
    }

    /// A call that is answered by a job; until that has ended.
    fn job(&mut self, method: &Method<'_>, body: Writer) -> Result<(), Refused> {
        let reply = self.call(method, body)?;
        let job = reply.body().text().map_err(io::Error::other)?.to_owned();
        let until = Instant::now() + ANSWER_WAIT_MAX;
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| *ended == job) {
                let (_, result) = self.ended.swap_remove(at);
                let text = format!("systemd's job ended as {result:?}");
                return if result == "done" { Ok(()) } else { Err(Refused { name: String::new(), text }) };
            }
            self.next(until)?;
        }
    }

    pub(crate) fn start_transient(&mut self, unit: &str, properties: &[(&str, Value)]) -> Result<(), Refused> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        body.properties(properties);
        body.array(8, |_| {});
        self.job(&Method { member: "StartTransientUnit", signature: "ssa(sv)a(sa(sv))", ..MANAGER }, body)
    }

    pub(crate) fn stop(&mut self, unit: &str) -> Result<(), Refused> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        self.job(&Method { member: "StopUnit", signature: "ss", ..MANAGER }, body)
    }

    pub(crate) fn reset_failed(&mut self, unit: &str) -> Result<(), Refused> {
        let mut body = Writer::default();
        body.text(unit);
        self.call(&Method { member: "ResetFailedUnit", signature: "s", ..MANAGER }, body).map(drop)
    }

    /// Until the next boot.
    pub(crate) fn set_properties(&mut self, unit: &str, properties: &[(&str, Value)]) -> Result<(), Refused> {
        let mut body = Writer::default();
        body.text(unit);
        body.u32(1);
        body.properties(properties);
        self.call(&Method { member: "SetUnitProperties", signature: "sba(sv)", ..MANAGER }, body).map(drop)
    }

    /// The group that this systemd keeps its units in, `/` or empty for the root.
    pub(crate) fn control_group(&mut self) -> Result<String, Refused> {
        let mut body = Writer::default();
        body.text(MANAGER.interface);
        body.text("ControlGroup");
        let method = Method { interface: "org.freedesktop.DBus.Properties", member: "Get", signature: "ss", ..MANAGER };
        let reply = self.call(&method, body)?;
        Ok(reply.body().variant_text().map_err(io::Error::other)?.to_owned())
    }
}
