//! The audit log: who did what, when, and with what result, as upstream's `audit.k8s.io/v1` events, one JSON document a line.
//!
//! `<data-dir>/audit-policy.yaml` (upstream's Policy) switches it on: the first rule that matches says the level, `None`, `Metadata`, `Request`
//! or `RequestResponse`. `<data-dir>/audit.log` is rotated by size. Lines wait in memory while the disk is slow, up to a limit; what is
//! beyond it is counted and said, not kept.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mote_api::tree::{Value, json, list_at, set, str_at};

use crate::api::request::Target;
use crate::user::UserInfo;

/// Bytes of one log file.
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;
/// Older files kept: `audit.log.1` is the youngest.
pub(crate) const FILES_MAX: u32 = 4;
/// Bytes of lines that wait for the disk.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Rules of one policy.
const RULES_MAX: usize = 1000;

/// How much is noted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Level {
    None,
    Metadata,
    /// With the request's body.
    Request,
    RequestResponse,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// What a rule looks at.
pub(crate) struct Facts<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub path: &'a str,
    pub target: Option<&'a Target>,
}

struct Policy {
    rules: Vec<Value>,
    omit_started: bool,
}

fn has(list: &[Value], word: &str) -> bool {
    list.is_empty() || list.iter().any(|w| w == word)
}

impl Policy {
    fn parse(text: &str) -> Result<Policy, String> {
        let policy = mote_api::yaml::parse_one(text).map_err(|e| e.to_string())?;
        if str_at(&policy, &["kind"]) != "Policy" {
            return Err("kind is not Policy".into());
        }
        let rules = list_at(&policy, &["rules"]).to_vec();
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(format!("want 1 to {RULES_MAX} rules"));
        }
        for (i, rule) in rules.iter().enumerate() {
            level(rule).ok_or_else(|| format!("rules[{i}].level: want None, Metadata, Request or RequestResponse"))?;
        }
        let omits = list_at(&policy, &["omitStages"]);
        Ok(Policy { rules, omit_started: omits.iter().any(|s| s == "ResponseStarted") })
    }
    fn level(&self, facts: &Facts<'_>) -> Level {
        self.rules.iter().find(|r| matches(r, facts)).and_then(level).unwrap_or(Level::None)
    }
}

fn level(rule: &Value) -> Option<Level> {
    Some(match str_at(rule, &["level"]) {
        "None" => Level::None,
        "Metadata" => Level::Metadata,
        "Request" => Level::Request,
        "RequestResponse" => Level::RequestResponse,
        _ => return None,
    })
}

fn matches(rule: &Value, facts: &Facts<'_>) -> bool {
    let of = |field| list_at(rule, &[field]);
    let groups = of("userGroups");
    if !has(of("users"), &facts.user.name)
        || !(groups.is_empty() || groups.iter().filter_map(Value::as_str).any(|g| facts.user.is_in(g)))
        || !has(of("verbs"), facts.verb)
    {
        return false;
    }
    let (resources, namespaces, urls) = (of("resources"), of("namespaces"), of("nonResourceURLs"));
    match facts.target {
        Some(target) => {
            if !has(namespaces, &target.ns) || (!urls.is_empty() && resources.is_empty() && namespaces.is_empty()) {
                return false;
            }
            resources.is_empty() || resources.iter().any(|r| is_resource(r, target))
        }
        None => {
            let is = |u: &str| u.strip_suffix('*').map_or(u == facts.path, |start| facts.path.starts_with(start));
            resources.is_empty()
                && namespaces.is_empty()
                && (urls.is_empty() || urls.iter().filter_map(Value::as_str).any(is))
        }
    }
}

fn is_resource(rule: &Value, target: &Target) -> bool {
    let resource = |w: &str| match w.split_once('/') {
        None => w == "*" || (w == target.kind.plural && target.sub.is_empty()),
        Some((r, s)) => (r == "*" || r == target.kind.plural) && (s == "*" || s == target.sub),
    };
    let words = list_at(rule, &["resources"]);
    str_at(rule, &["group"]) == target.kind.group
        && (words.is_empty() || words.iter().filter_map(Value::as_str).any(resource))
        && has(list_at(rule, &["resourceNames"]), &target.name)
}

/// Where lines go.
#[derive(Default)]
struct Sink {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
}

pub(crate) struct Audit {
    policy: Policy,
    path: PathBuf,
    sink: Rc<RefCell<Sink>>,
}

/// What is known of one request when it is done.
pub(crate) struct Record<'a> {
    pub id: String,
    pub level: Level,
    pub facts: Facts<'a>,
    pub uri: &'a str,
    pub impersonated: Option<&'a UserInfo>,
    pub from: String,
    pub agent: &'a str,
    pub body: Option<Value>,
    /// Of an answer that is wanted: the object, or how many bytes were too many.
    pub answer: Option<Result<Value, usize>>,
    /// False: a stream that only began.
    pub complete: bool,
    pub code: u16,
    /// Of a refusal.
    pub message: &'a str,
    /// RFC 3339 with microseconds.
    pub received: String,
    pub done: String,
}

fn shown(user: &UserInfo) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        set(&mut out, &["uid"], user.uid.as_str().into());
    }
    out
}

fn event(record: Record<'_>) -> Value {
    let mut out = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": record.level.name(), "auditID": record.id,
        "stage": if record.complete { "ResponseComplete" } else { "ResponseStarted" },
        "requestURI": record.uri, "verb": record.facts.verb, "user": shown(record.facts.user),
        "userAgent": record.agent, "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": record.received, "stageTimestamp": record.done,
    });
    if !record.from.is_empty() {
        set(&mut out, &["sourceIPs"], json!([record.from]));
    }
    if let Some(user) = record.impersonated {
        set(&mut out, &["impersonatedUser"], shown(user));
    }
    if let Some(target) = record.facts.target {
        let kind = &target.kind;
        for (field, text) in [
            ("resource", &*kind.plural),
            ("namespace", &target.ns),
            ("name", &target.name),
            ("apiGroup", &kind.group),
            ("apiVersion", &kind.version),
            ("subresource", &target.sub),
        ] {
            if !text.is_empty() {
                set(&mut out, &["objectRef", field], text.into());
            }
        }
    }
    if !record.message.is_empty() {
        set(&mut out, &["responseStatus", "status"], "Failure".into());
        set(&mut out, &["responseStatus", "message"], record.message.into());
    }
    if let Some(body) = record.body.filter(|b| !b.is_null()) {
        set(&mut out, &["requestObject"], body);
    }
    match record.answer {
        Some(Ok(answer)) => set(&mut out, &["responseObject"], answer),
        Some(Err(bytes)) => {
            let why = format!("left out, {bytes} bytes");
            set(&mut out, &["annotations", "audit.mote.dev/response"], why.into());
        }
        None => {}
    }
    out
}

impl Audit {
    /// From a data folder; None: there is no policy.
    pub(crate) fn open(folder: &Path) -> Result<Option<Audit>, String> {
        let path = folder.join("audit-policy.yaml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("read {}: {e}", path.display())),
        };
        let policy = Policy::parse(&text).map_err(|e| format!("audit-policy.yaml: {e}"))?;
        let path = folder.join("audit.log");
        file(&path).map_err(|e| format!("open {}: {e}", path.display()))?;
        Ok(Some(Audit { policy, path, sink: Rc::default() }))
    }
    pub(crate) fn level(&self, facts: &Facts<'_>) -> Level {
        self.policy.level(facts)
    }
    pub(crate) fn note(&self, record: Record<'_>) {
        if record.level == Level::None || (!record.complete && self.policy.omit_started) {
            return;
        }
        let line = event(record).to_string();
        let mut sink = self.sink.borrow_mut();
        if sink.waiting.len() + line.len() > WAITING_BYTES_MAX {
            sink.lost += 1;
            return;
        }
        sink.waiting.extend_from_slice(line.as_bytes());
        sink.waiting.push(b'\n');
        if !sink.writing {
            sink.writing = true;
            tokio::task::spawn_local(drain(self.sink.clone(), self.path.clone()));
        }
    }
}

/// Writes what waits, on a blocking thread, until nothing does.
async fn drain(sink: Rc<RefCell<Sink>>, path: PathBuf) {
    loop {
        let (lines, lost) = {
            let mut sink = sink.borrow_mut();
            let lines = std::mem::take(&mut sink.waiting);
            if lines.is_empty() {
                sink.writing = false;
                return;
            }
            (lines, std::mem::take(&mut sink.lost))
        };
        if lost > 0 {
            log::warn!("audit log: {lost} events were lost, {} is too slow", path.display());
        }
        let to = path.clone();
        let written = tokio::task::spawn_blocking(move || append(&to, &lines, FILE_BYTES_MAX)).await;
        if let Ok(Err(e)) = written {
            log::error!("audit log: write {}: {e}", path.display());
        }
    }
}

fn file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn append(path: &Path, lines: &[u8], bytes_max: u64) -> std::io::Result<()> {
    let mut to = file(path)?;
    if to.metadata()?.len().saturating_add(lines.len() as u64) > bytes_max {
        let name = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        for n in (1..FILES_MAX).rev() {
            let _ = std::fs::rename(name(n), name(n + 1));
        }
        std::fs::rename(path, name(1))?;
        to = file(path)?;
    }
    to.write_all(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::Query;
    use mote_api::kind::Registry;

    const POLICY: &str = "kind: Policy\napiVersion: audit.k8s.io/v1\nrules:\n- level: None\n  users: [quiet]\n- level: None\n  nonResourceURLs: ['/apis*']\n- level: Metadata\n  resources: [{group: '', resources: [secrets, pods/exec]}]\n- level: Request\n  verbs: [create]\n  namespaces: [prod]\n- level: Metadata\n  userGroups: [ops]\n";

    #[test]
    fn the_first_rule_that_matches() {
        let policy = Policy::parse(POLICY).unwrap();
        let registry = Registry::builtin();
        for (user, group, method, path, want) in [
            ("quiet", "ops", "GET", "/api/v1/namespaces/a/secrets/s", Level::None),
            ("a", "", "GET", "/api/v1/namespaces/a/secrets/s", Level::Metadata),
            ("a", "", "GET", "/api/v1/namespaces/a/pods/p/exec", Level::Metadata),
            ("a", "", "GET", "/api/v1/namespaces/a/pods/p", Level::None),
            ("a", "", "POST", "/api/v1/namespaces/prod/pods", Level::Request),
            ("a", "", "POST", "/api/v1/namespaces/dev/pods", Level::None),
            ("a", "ops", "POST", "/api/v1/namespaces/dev/pods", Level::Metadata),
            ("a", "ops", "GET", "/apis", Level::None),
            ("a", "ops", "GET", "/metrics", Level::Metadata),
            ("a", "", "GET", "/metrics", Level::None),
        ] {
            let user = UserInfo::new(user, &[group]);
            let target = Target::parse(&registry, method, path, &Query::default()).map(|t| t.unwrap());
            let verb = target.as_ref().map_or("get", |t| t.verb.name());
            let facts = Facts { user: &user, verb, path, target: target.as_ref() };
            assert_eq!(policy.level(&facts), want, "{} {method} {path}", user.name);
        }
        for bad in ["kind: Policy", "kind: X\nrules: [{level: None}]", "kind: Policy\nrules: [{level: All}]"] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_rotated_and_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for n in 0..20 {
            append(&path, format!("{n:09}\n").as_bytes(), 25).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "000000018\n000000019\n");
        assert!(std::fs::read_to_string(folder.path().join("audit.log.4")).unwrap().starts_with("000000010\n"));
    }
}
