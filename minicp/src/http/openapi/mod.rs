//! OpenAPI as clients ask for it: `/openapi/v2` whole, as protobuf (kubectl to 1.26 and its own validation) or JSON; `/openapi/v3` by group and version
//! (`kubectl explain`, and the PATCH with `fieldValidation` by which kubectl learns that the server validates).
//!
//! Documents are made when they are asked for and not kept; what does not change is not sent again: v3 addresses carry a hash that clients
//! cache by, v2 an ETag.

mod paths;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use hyper::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use mote_api::crd;
use mote_api::kind::{Kind, Registry, Verbs};
use mote_api::openapi::v2::{Document, MEDIA_TYPE};
use mote_api::openapi::{self, Edition};
use mote_api::schema;
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};

use super::answer::{self, Answer};
use super::asked::Asked;
use super::discovery::groups;
use crate::api::{Api, object};

/// Bytes of one v2 document; definitions that come after are left out, and clients do not check their objects.
const V2_BYTES_MAX: usize = 16 << 20;
/// How long a client may keep a v3 document: its address changes when it does.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Of all that a document says of these kinds.
fn hash<'a>(kinds: impl Iterator<Item = &'a Rc<Kind>>) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    openapi::fingerprint().hash(&mut hasher);
    for kind in kinds {
        (&*kind.plural, kind.custom.as_ref().map(|c| c.mark)).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

pub(super) fn index(registry: &Registry) -> Value {
    let mut paths = json!({});
    for (group, versions) in groups(registry) {
        for version in versions {
            let path = path_of(group, version);
            let kinds = registry.all().iter().filter(|k| k.group == group && k.version == version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(kinds));
            set(&mut paths, &[&path], json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/apis/<group>/<version>`
pub(super) async fn group_version(api: &Api, registry: &Registry, asked: &Asked, path: &str) -> Result<Answer, Status> {
    let mut parts = path.split('/');
    let (group, version) = match (parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some(version), None) => ("", version),
        (Some("apis"), Some(group), Some(version)) => (group, version),
        _ => return Err(Status::no_such_resource()),
    };
    let kinds: Vec<&Rc<Kind>> = registry.all().iter().filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return Err(Status::no_such_resource());
    }
    let (mut all, mut schemas, mut types) = (json!({}), json!({}), BTreeSet::new());
    for kind in &kinds {
        paths::add(&mut all, kind);
        if kind.custom.is_some() {
            set(&mut schemas, &[&openapi::kind_id(kind)], definition(api, kind, Edition::V3).await?);
            openapi::reachable("meta/v1.ObjectMeta", &mut types);
        } else {
            openapi::reachable(&kind.type_name, &mut types);
        }
        if kind.verbs == Verbs::All {
            let (id, list) = openapi::list_of(kind, Edition::V3);
            set(&mut schemas, &[&id], list);
        }
    }
    for (id, schema) in openapi::basics(Edition::V3) {
        set(&mut schemas, &[id], schema);
    }
    for name in types {
        let Some(ty) = schema::find(name) else { continue };
        set(&mut schemas, &[&openapi::type_id(name)], openapi::of_type(ty, of_name(&kinds, name), Edition::V3));
    }
    let document = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": all, "components": {"schemas": schemas}});
    let mut answer = answer::value(200, &document);
    if asked.query.get("hash") == hash(kinds.into_iter()) {
        answer.headers_mut().insert(CACHE_CONTROL, KEPT);
    }
    Ok(answer)
}

fn of_name<'a>(kinds: &[&'a Rc<Kind>], type_name: &str) -> Option<&'a Kind> {
    kinds.iter().find(|k| k.custom.is_none() && k.type_name == type_name).map(|k| &***k)
}

/// The schema of a custom kind as its author wrote it, descriptions and all.
async fn definition(api: &Api, kind: &Kind, edition: Edition) -> Result<Value, Status> {
    let registry = api.registry();
    let own = registry.find(crd::RESOURCE).ok_or_else(Status::no_such_resource)?;
    let stored = match api.entry(own, "", &kind.resource()).await {
        Ok(entry) => object::decode(own, &entry),
        // It went a moment ago.
        Err(e) if e.is_not_found() => Value::Null,
        Err(e) => return Err(e),
    };
    Ok(openapi::of_definition(&stored, kind, edition))
}

/// `/openapi/v2`
pub(super) async fn v2(api: &Api, registry: &Registry, asked: &Asked) -> Result<Answer, Status> {
    let accept = asked.header(ACCEPT);
    let as_json = accept.contains("json") && !accept.contains("protobuf");
    let tag = format!("\"{}{}\"", hash(registry.all().iter()), if as_json { "J" } else { "" });
    let mut answer = if asked.header(IF_NONE_MATCH) == tag {
        answer::bytes(304, MEDIA_TYPE, "")
    } else if as_json {
        answer::bytes(200, "application/json", v2_json(api, registry).await?)
    } else {
        answer::bytes(200, MEDIA_TYPE, v2_protobuf(api, registry).await?)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    Ok(answer)
}

/// Definitions one after the other, each made, given and dropped.
async fn each(api: &Api, registry: &Registry, mut give: impl FnMut(&str, Value) -> bool) -> Result<(), Status> {
    let kinds: Vec<&Rc<Kind>> = registry.all().iter().collect();
    for (id, schema) in openapi::basics(Edition::V2) {
        give(id, schema);
    }
    for ty in schema::all() {
        give(&openapi::type_id(ty.name), openapi::of_type(ty, of_name(&kinds, ty.name), Edition::V2));
    }
    for kind in kinds.iter().filter(|k| k.verbs == Verbs::All) {
        let (id, list) = openapi::list_of(kind, Edition::V2);
        give(&id, list);
    }
    for kind in kinds.iter().filter(|k| k.custom.is_some()) {
        if !give(&openapi::kind_id(kind), definition(api, kind, Edition::V2).await?) {
            break;
        }
    }
    Ok(())
}

async fn v2_protobuf(api: &Api, registry: &Registry) -> Result<Vec<u8>, Status> {
    let mut document = Document::new();
    for kind in registry.all().iter().filter(|k| k.verbs == Verbs::All) {
        document.patch_of(kind, &paths::one(kind));
    }
    each(api, registry, |id, schema| {
        document.define(id, &schema);
        document.len() < V2_BYTES_MAX
    })
    .await?;
    Ok(document.finish())
}

async fn v2_json(api: &Api, registry: &Registry) -> Result<Vec<u8>, Status> {
    let mut out =
        br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{},"definitions":{"#.to_vec();
    let mut first = true;
    each(api, registry, |id, schema| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        object::write(&mut out, &json!(id));
        out.push(b':');
        object::write(&mut out, &schema);
        out.len() < V2_BYTES_MAX
    })
    .await?;
    out.extend(b"}}");
    Ok(out)
}
