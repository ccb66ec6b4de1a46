//! A collection of the API server as a stream that never ends: listed once, watched from there, resumed after a broken
//! connection, listed again when the history is gone, with a growing, jittered pause while the server is not there.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use mote_api::tree::{Value, str_at};

use super::{Client, Error, status_error};

/// Longest line of a watch: an object of the largest size, and its envelope.
pub const LINE_BYTES_MAX: usize = 4 << 20;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// The server ends a watch after this; a dead peer is noticed then at the latest.
const WATCH_SECONDS: u64 = 1800;

/// What has changed.
pub enum Change {
    /// The whole collection, which replaces what was known.
    All(Vec<Value>),
    /// One object is new or changed.
    Put(Value),
    /// One object is gone (its last state).
    Gone(Value),
}

enum State {
    List,
    Connect,
    Read(Box<Incoming>, Lines),
}

/// The stream.
pub struct Reflector {
    client: Rc<Client>,
    path: String,
    query: String,
    version: String,
    state: State,
    failures: u32,
}

impl Reflector {
    /// Of the collection at `path`; `query` narrows it, e.g. `fieldSelector=spec.nodeName%3Dn1`, or is empty.
    pub fn new(client: Rc<Client>, path: &str, query: &str) -> Reflector {
        Reflector {
            client,
            path: path.into(),
            query: query.into(),
            version: String::new(),
            state: State::List,
            failures: 0,
        }
    }

    /// The next change; waits as long as it takes. Cancelling it loses nothing but the wait.
    pub async fn next(&mut self) -> Change {
        loop {
            let error = match self.advance().await {
                Ok(Some(change)) => {
                    self.failures = 0;
                    return change;
                }
                Ok(None) => continue,
                Err(error) => error,
            };
            if error.is_expired() {
                self.state = State::List;
                continue;
            }
            if !matches!(self.state, State::List) {
                self.state = State::Connect;
            }
            self.failures = self.failures.saturating_add(1);
            if self.failures == 3 {
                log::warn!("watch {}: {error}; trying on", self.path);
            }
            tokio::time::sleep(pause(self.failures)).await;
        }
    }

    async fn advance(&mut self) -> Result<Option<Change>, Error> {
        match &mut self.state {
            State::List => {
                let join = if self.query.is_empty() { "" } else { "?" };
                let mut list = self.client.get(&format!("{}{join}{}", self.path, self.query)).await?;
                self.version = str_at(&list, &["metadata", "resourceVersion"]).to_owned();
                self.state = State::Connect;
                let items = list.get_mut("items").map(Value::take);
                let mut items = match items {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                items.iter_mut().for_each(super::drop_managers);
                Ok(Some(Change::All(items)))
            }
            State::Connect => {
                let join = if self.query.is_empty() { "" } else { "&" };
                let path = format!(
                    "{}?{}{join}watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
                    self.path, self.query, self.version
                );
                let body = self.client.stream(&path).await?;
                self.state = State::Read(Box::new(body), Lines::default());
                Ok(None)
            }
            State::Read(body, lines) => {
                let transport = |cause: String| Error::Transport { server: self.client.server(), cause };
                loop {
                    if let Some(line) = lines.next_line().map_err(transport)? {
                        let event: Value = serde_json::from_slice(&line)
                            .map_err(|e| Error::Answer { path: self.path.clone(), cause: e.to_string() })?;
                        return read_event(event, &mut self.version);
                    }
                    match body.frame().await {
                        None => {
                            self.state = State::Connect;
                            return Ok(None);
                        }
                        Some(Err(e)) => return Err(transport(super::chain(&e))),
                        Some(Ok(frame)) => {
                            if let Ok(bytes) = frame.into_data() {
                                lines.push(&bytes);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn read_event(mut event: Value, version: &mut String) -> Result<Option<Change>, Error> {
    let mut object = event.get_mut("object").map(Value::take).unwrap_or_default();
    super::drop_managers(&mut object);
    let kind = str_at(&event, &["type"]);
    if kind == "ERROR" {
        return Err(status_error(500, &object, b""));
    }
    let at = str_at(&object, &["metadata", "resourceVersion"]);
    if !at.is_empty() {
        *version = at.to_owned();
    }
    Ok(match kind {
        "ADDED" | "MODIFIED" => Some(Change::Put(object)),
        "DELETED" => Some(Change::Gone(object)),
        _ => None,
    })
}

/// Doubling from [`PAUSE_FIRST`] to [`PAUSE_MAX`], of which the last half is random so that a fleet does not come back at once.
fn pause(failures: u32) -> Duration {
    let full = PAUSE_FIRST
        .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX).max(1))
        .min(PAUSE_MAX);
    let half = full / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(0).max(1);
    half + Duration::from_millis(crate::clock::Moment::now().0.unsigned_abs() / 1000 % spread)
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub struct Lines {
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end; `None` while bytes are missing, an error when it is too long.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let found = self.buffer.get(self.searched..).and_then(|rest| rest.iter().position(|b| *b == b'\n'));
        match found {
            Some(offset) => {
                let end = self.searched + offset;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                if self.buffer.is_empty() {
                    self.buffer = Vec::new();
                }
                Ok(Some(line))
            }
            None if self.buffer.len() > LINE_BYTES_MAX => {
                Err(format!("line of a watch is longer than {LINE_BYTES_MAX} bytes"))
            }
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\nrest";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for part in text.chunks(cut) {
                lines.push(part);
                while let Ok(Some(line)) = lines.next_line() {
                    out.push(line);
                }
            }
            assert_eq!(out, [b"{\"a\":1}".to_vec(), Vec::new(), b"{\"b\":2}".to_vec()], "cut {cut}");
        }
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert!(lines.next_line().is_err());
    }

    #[test]
    fn pauses_grow_and_end() {
        for failures in [1, 2, 10, 31, 32, 33, u32::MAX] {
            assert!(pause(failures) <= PAUSE_MAX && pause(failures) >= PAUSE_FIRST / 2, "{failures}");
        }
        assert!(pause(u32::MAX) >= PAUSE_MAX / 2);
    }

    #[test]
    fn events_move_the_version() {
        let mut version = "1".to_owned();
        let event = serde_json::json!({"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "7"}}});
        assert!(matches!(read_event(event, &mut version), Ok(Some(Change::Put(_)))));
        assert_eq!(version, "7");
        let event = serde_json::json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}});
        assert!(matches!(read_event(event, &mut version), Ok(None)));
        assert_eq!(version, "9");
        let event = serde_json::json!({"type": "ERROR", "object": {"code": 410, "message": "too old"}});
        assert!(read_event(event, &mut version).is_err_and(|e| e.is_expired()));
    }
}
