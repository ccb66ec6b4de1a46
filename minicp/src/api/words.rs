//! The words in which the API is asked and in which it answers: below all that reads, writes and removes.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::tree::{Value, bool_at, i64_at, str_at};

use super::request::{Filter, Query};
use crate::store::Revision;

/// Bytes of a continue token.
const TOKEN_BYTES_MAX: usize = 1024;

/// An object as it stands after a write, and what the writer should hear.
pub(crate) struct Written {
    pub value: Value,
    pub warnings: Vec<String>,
    /// False: it was there already.
    pub created: bool,
}

/// What one write may do to one object.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub kind: &'a Rc<Kind>,
    pub ns: &'a str,
    pub name: &'a str,
    /// "", `status`, `scale`, ...
    pub sub: &'a str,
}

/// Which objects, from when, how many.
pub(crate) struct ListQuery {
    pub filter: Filter,
    /// 0: all
    pub limit: usize,
    /// As it was by this revision.
    pub at: Option<Revision>,
    /// No older than this: another server, or a store that was restored, may not be there yet.
    pub since: Revision,
    /// Start after this key.
    pub after: String,
}

impl ListQuery {
    pub(crate) fn all() -> ListQuery {
        ListQuery { filter: Filter::everything(), limit: 0, at: None, since: Revision(0), after: String::new() }
    }
    pub(crate) fn parse(query: &Query) -> Result<ListQuery, Status> {
        let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX);
        let mut list = ListQuery { filter: Filter::parse(query)?, limit, ..ListQuery::all() };
        let version = query.number("resourceVersion")?.filter(|version| *version > 0);
        match (query.get("continue"), query.get("resourceVersionMatch")) {
            ("", "Exact") => match version {
                None => {
                    return Err(Status::bad_request("resourceVersionMatch Exact needs a resourceVersion"));
                }
                Some(v) => list.at = Some(Revision(v)),
            },
            // So upstream has it: the first page of a list by pages is the first of that very state.
            ("", "") if limit > 0 => list.at = version.map(Revision),
            ("", _) => list.since = Revision(version.unwrap_or(0)),
            (token, _) => {
                let bad = || Status::bad_request("continue key is not valid");
                let token = URL_SAFE_NO_PAD.decode(token.get(..TOKEN_BYTES_MAX.min(token.len())).ok_or_else(bad)?);
                let text = String::from_utf8(token.map_err(|_| bad())?).map_err(|_| bad())?;
                let (at, after) = text.split_once(' ').ok_or_else(bad)?;
                list.at = Some(Revision(at.parse().map_err(|_| bad())?));
                list.after = after.into();
            }
        }
        Ok(list)
    }
}

/// By Content-Type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    /// What PATCH takes.
    pub(crate) const ACCEPTED: [&'static str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    pub(crate) fn of(media_type: &str) -> Option<PatchType> {
        Some(match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" | "application/apply-patch+json" => Self::Apply,
            _ => return None,
        })
    }
}

/// `?propagationPolicy=`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

/// How to delete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; None: the object's own.
    pub grace_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// From the body of a DELETE; null for none.
    pub(crate) fn from_value(body: &Value) -> Result<DeleteOptions, Status> {
        let propagation = match str_at(body, &["propagationPolicy"]) {
            "Foreground" => Some(Propagation::Foreground),
            "Background" => Some(Propagation::Background),
            "Orphan" => Some(Propagation::Orphan),
            "" if bool_at(body, &["orphanDependents"]) == Some(true) => Some(Propagation::Orphan),
            "" => None,
            other => {
                return Err(Status::bad_request(format!(
                    "invalid propagationPolicy {other:?}: Foreground, Background or Orphan"
                )));
            }
        };
        let text = |path: &[&str]| Some(str_at(body, path).to_owned()).filter(|t| !t.is_empty());
        Ok(DeleteOptions {
            grace_seconds: i64_at(body, &["gracePeriodSeconds"]),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            propagation,
        })
    }
}

/// What happened to an object, as upstream's watch events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}
