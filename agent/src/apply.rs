//! `--apply FILE`: create what is not there, merge into what is. Any stream of YAML documents or JSON, Lists included.

use std::path::Path;

use mote_api::kind::Registry;
use mote_api::meta;
use mote_api::tree::{Value, list_at, str_at};

use crate::client::{Client, Content, Error};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Applies every document of a file. Prints one line per object; gives back what went wrong, one text per document.
pub(crate) async fn file(client: &Client, path: &Path) -> Vec<String> {
    let read = || -> Result<Vec<Value>, String> {
        let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        mote_api::yaml::parse(&text).map_err(|e| e.to_string())
    };
    let documents = match read() {
        Ok(documents) => documents,
        Err(why) => return vec![format!("apply {}: {why}", path.display())],
    };
    let mut wrong = Vec::new();
    for (index, document) in documents.iter().enumerate().filter(|(_, document)| !document.is_null()) {
        let objects = match str_at(document, &["kind"]) {
            "List" => list_at(document, &["items"]).to_vec(),
            _ => vec![document.clone()],
        };
        for object in objects {
            if let Err(why) = one(client, object).await {
                wrong.push(format!("apply {}, document {}: {why}", path.display(), index + 1));
            }
        }
    }
    wrong
}

/// Applies one object.
pub(crate) async fn one(client: &Client, object: Value) -> Result<(), String> {
    let (kind, name) = (str_at(&object, &["kind"]).to_owned(), meta::name(&object).to_owned());
    let registry = Registry::builtin();
    let known = registry.of(&object).ok_or_else(|| {
        let version = str_at(&object, &["apiVersion"]);
        if kind.is_empty() {
            "object has no kind".to_owned()
        } else {
            format!("no kind {kind:?} in version {version:?}")
        }
    })?;
    let base = if known.group.is_empty() {
        format!("/api/{}", known.version)
    } else {
        format!("/apis/{}/{}", known.group, known.version)
    };
    let collection = if known.namespaced {
        let namespace = match meta::namespace(&object) {
            "" => "default",
            namespace => namespace,
        };
        format!("{base}/namespaces/{namespace}/{}", known.plural)
    } else {
        format!("{base}/{}", known.plural)
    };
    let what = format!("{} {name:?}", known.resource());
    let query = "fieldValidation=Strict&fieldManager=mote-apply";
    match client.create(&format!("{collection}?{query}"), &object).await {
        Ok(made) => say!("{}/{} created", known.resource(), meta::name(&made)),
        Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => {
            let merged = client.patch(&format!("{collection}/{name}?{query}"), Content::MergePatch, &object).await;
            merged.map_err(|e| format!("merge into {what}: {e}"))?;
            say!("{}/{name} configured", known.resource());
        }
        Err(error) => return Err(format!("create {what}: {error}")),
    }
    Ok(())
}
