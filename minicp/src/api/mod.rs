//! The API itself, transport aside: kinds, admission, the ways to read and to write objects.
//!
//! A write goes: `request` (typed question) -> `write` (read, change, admit, validate, commit; again on conflict) -> store. `admit` says what
//! each kind wants done to its objects; `object` is how they are stored; `remove` what deletion means;
//! `words` is what all of them are asked and answer with. HTTP (`crate::http`) and the
//! in-process [`client`] both come through here.

pub(crate) mod admit;
pub(crate) mod allocate;
pub(crate) mod budgets;
pub mod client;
pub(crate) mod convert;
pub mod events;
mod evict;
pub(crate) mod object;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod remove;
pub mod request;
pub(crate) mod subresource;
pub(crate) mod words;
pub(crate) mod write;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mote_api::kind::{Kind, Registry};
use mote_api::status::Status;
use mote_api::time::Time;
use ring::rand::{SecureRandom, SystemRandom};

use admit::by_namespace::ByNamespace;

use crate::clock::Clock;
use crate::config::Config;
use crate::mirror::Mirror;
use crate::rbac::{self, rule::Rule};
use crate::store::{Class, CommitError, Compacted, ReadError, Store};

/// Bytes of one stored object.
pub const OBJECT_BYTES_MAX: usize = 1_536 << 10;
/// Times a write without a resourceVersion is tried again when somebody else was faster.
pub(crate) const WRITE_TRIES_MAX: u32 = 16;

/// The API over a store.
pub struct Api {
    pub(crate) store: Rc<dyn Store>,
    pub(crate) registry: RefCell<Rc<Registry>>,
    pub(crate) clock: Rc<dyn Clock>,
    pub(crate) config: Rc<Config>,
    pub(crate) ca_pem: Rc<str>,
    pub(crate) addresses: RefCell<allocate::InFlight>,
    pub(crate) parsed: read::ParsedCache,
    pub(crate) events: RefCell<events::Window>,
    pub(crate) rbac: Mirror<rbac::Index>,
    pub(crate) limits: Mirror<ByNamespace>,
    pub(crate) quotas: Mirror<ByNamespace>,
    pub(crate) priorities: Mirror<ByNamespace>,
    pub(crate) budgets: Mirror<ByNamespace>,
    /// Held while a create is charged to quotas: they would but break each other's guards.
    pub(crate) charging: tokio::sync::Mutex<()>,
    /// Held while an eviction is judged and done.
    pub(crate) evicting: tokio::sync::Mutex<()>,
    /// What every node may.
    pub(crate) node_rules: Vec<Rule>,
    random: SystemRandom,
    pub(crate) requests: Cell<u64>,
    /// Counts changes of `registry`.
    pub(crate) defined: tokio::sync::watch::Sender<u64>,
}

impl Api {
    pub(crate) fn new(store: Rc<dyn Store>, clock: Rc<dyn Clock>, config: Rc<Config>, ca_pem: Rc<str>) -> Rc<Api> {
        Rc::new(Api {
            store,
            registry: RefCell::new(Rc::new(Registry::builtin())),
            clock,
            config,
            ca_pem,
            addresses: RefCell::default(),
            parsed: read::ParsedCache::default(),
            events: RefCell::default(),
            rbac: rbac::mirror(),
            limits: Mirror::new("/registry/core/limitranges/"),
            quotas: Mirror::new(admit::quota::PREFIX),
            priorities: Mirror::new(admit::priority::PREFIX),
            budgets: Mirror::new(budgets::PREFIX),
            charging: tokio::sync::Mutex::new(()),
            evicting: tokio::sync::Mutex::new(()),
            node_rules: rbac::table::node_rules(),
            random: SystemRandom::new(),
            requests: Cell::new(0),
            defined: tokio::sync::watch::Sender::new(0),
        })
    }
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }
    pub(crate) fn registry(&self) -> Rc<Registry> {
        self.registry.borrow().clone()
    }
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).expect("the system gives random bytes");
        bytes
    }
    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> String {
        let mut b: [u8; 16] = self.random();
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
        let mut out = String::with_capacity(36);
        for (i, c) in hex.chars().enumerate() {
            if matches!(i, 8 | 12 | 16 | 20) {
                out.push('-');
            }
            out.push(c);
        }
        out
    }
    /// The suffix of a generated name: no vowels, so no words (upstream's alphabet).
    pub(crate) fn name_suffix(&self) -> String {
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let bytes: [u8; 5] = self.random();
        bytes.iter().filter_map(|b| LETTERS.get(usize::from(*b) % LETTERS.len())).map(|b| char::from(*b)).collect()
    }
}

/// Heartbeats and events are not worth a flash write.
pub(crate) fn class_of(kind: &Kind) -> Class {
    match (&*kind.group, &*kind.plural) {
        ("coordination.k8s.io", "leases") | ("" | "events.k8s.io", "events") => Class::Volatile,
        _ => Class::Durable,
    }
}

impl From<ReadError> for Status {
    fn from(e: ReadError) -> Status {
        match e {
            ReadError::Compacted(e) => e.into(),
            ReadError::Unavailable(_) => Status::new(503, "ServiceUnavailable", e.to_string()),
        }
    }
}

impl From<Compacted> for Status {
    fn from(e: Compacted) -> Status {
        Status::too_old(e.wanted.0, e.oldest.0)
    }
}

/// A refused commit as clients see it; conflicts are for the caller.
pub(crate) fn refused(e: CommitError) -> Status {
    match e {
        CommitError::Conflict => Status::new(409, "Conflict", "the object was changed meanwhile, try again"),
        // 507 is what it is, but clients only know 5xx: say it in words.
        CommitError::Full => Status::new(507, "InsufficientStorage", e.to_string()),
        CommitError::Failed(_) => Status::internal(e),
    }
}
