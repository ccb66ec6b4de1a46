//! Subresources that are not simply a part of their object: binding, scale. Eviction has a file of its own.

use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, as_i64, at, json, list_at, set, slot, str_at};

use super::patch::patched;
use super::request::WriteOptions;
use super::words::{PatchType, Place};
use super::{Api, object};

impl Api {
    /// `pods/binding`: gives a pod its node, once.
    pub(crate) async fn bind(
        &self,
        kind: &Rc<Kind>,
        ns: &str,
        pod: &str,
        binding: &Value,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let node = str_at(binding, &["target", "name"]).to_owned();
        if node.is_empty() {
            return Err(Status::bad_request("binding: target.name is required"));
        }
        let uid = meta::uid(binding).to_owned();
        let now = self.now().to_string();
        let place = Place { kind, ns, name: pod, sub: "binding" };
        self.change(place, options, |mut old| {
            let conflict = |why: &str| Err(Status::conflict(kind, pod, why));
            if !uid.is_empty() && uid != meta::uid(&old) {
                return conflict(&format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    meta::uid(&old)
                ));
            }
            if meta::is_deleting(&old) {
                return conflict(&format!("pod {pod} is being deleted, cannot be assigned to a host"));
            }
            let has = str_at(&old, &["spec", "nodeName"]);
            if !has.is_empty() {
                return conflict(&format!("pod {pod} is already assigned to node {has:?}"));
            }
            if !list_at(&old, &["spec", "schedulingGates"]).is_empty() {
                return conflict(&format!("pod {pod} has non-empty .spec.schedulingGates"));
            }
            set(&mut old, &["spec", "nodeName"], node.as_str().into());
            set_condition(
                &mut old,
                json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
            );
            Ok((old, Vec::new()))
        })
        .await
        .map(drop)
    }

    pub(crate) async fn get_scale(&self, kind: &Rc<Kind>, ns: &str, name: &str) -> Result<Value, Status> {
        Ok(scale_of(kind, &object::decode(kind, &self.entry(kind, ns, name).await?)))
    }

    /// PUT of a Scale.
    pub(crate) async fn put_scale(
        &self,
        place: Place<'_>,
        scale: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.change_scale(place, options, |_| Ok(scale.clone())).await
    }

    pub(crate) async fn patch_scale(
        &self,
        place: Place<'_>,
        ty: PatchType,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        // A Scale has no lists: strategic merge is merge.
        let ty = if ty == PatchType::Json { ty } else { PatchType::Merge };
        self.change_scale(place, options, |mut scale| {
            patched(place, ty, &mut scale, patch)?;
            Ok(scale)
        })
        .await
    }

    async fn change_scale(
        &self,
        place: Place<'_>,
        options: &WriteOptions,
        mut change: impl FnMut(Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        let place = Place { sub: "", ..place };
        let written = self
            .change(place, options, |mut old| {
                let scale = change(scale_of(place.kind, &old))?;
                let replicas = match at(&scale, &["spec", "replicas"]) {
                    None | Some(Value::Null) => 0,
                    Some(n) => as_i64(n).ok_or_else(|| Status::bad_request("spec.replicas is not a number"))?,
                };
                if replicas < 0 {
                    let error = mote_api::field::Error::invalid(
                        "spec.replicas",
                        &json!(replicas),
                        "must be greater than or equal to 0",
                    );
                    return Err(Status::invalid(place.kind, place.name, &[error]));
                }
                set(&mut old, &scale_paths(place.kind).replicas, json!(replicas));
                set(&mut old, &["metadata", "resourceVersion"], meta::resource_version(&scale).into());
                Ok((old, Vec::new()))
            })
            .await?;
        Ok(scale_of(place.kind, &written.value))
    }
}

/// Replaces the condition of the same type.
fn set_condition(object: &mut Value, condition: Value) {
    let list = slot(object, &["status", "conditions"]);
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.retain(|c| c.get("type") != condition.get("type"));
        list.push(condition);
    }
}

/// Where a kind has the numbers of its Scale.
struct ScalePaths<'a> {
    replicas: Vec<&'a str>,
    status: Vec<&'a str>,
    /// Of custom kinds a text; the built-in ones have an object in `spec.selector`.
    selector: Option<Vec<&'a str>>,
}

fn scale_paths(kind: &Kind) -> ScalePaths<'_> {
    fn names(path: &[String]) -> Vec<&str> {
        path.iter().map(String::as_str).collect()
    }
    match kind.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(s) => ScalePaths {
            replicas: names(&s.replicas),
            status: names(&s.status),
            selector: Some(s.selector.as_deref().map(names).unwrap_or_default()),
        },
        None => ScalePaths { replicas: vec!["spec", "replicas"], status: vec!["status", "replicas"], selector: None },
    }
}

fn scale_of(kind: &Kind, object: &Value) -> Value {
    let paths = scale_paths(kind);
    let selector = match &paths.selector {
        Some(path) => str_at(object, path).to_owned(),
        None => at(object, &["spec", "selector"])
            .and_then(|s| mote_api::selector::LabelSelector::from_object(s).ok())
            .map_or(String::new(), |s| s.to_string()),
    };
    let of_meta = |field| at(object, &["metadata", field]).cloned().unwrap_or(Value::Null);
    let absent = if kind.custom.is_some() { 0 } else { 1 };
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": of_meta("name"), "namespace": of_meta("namespace"), "uid": of_meta("uid"),
            "resourceVersion": of_meta("resourceVersion"), "creationTimestamp": of_meta("creationTimestamp"),
        },
        "spec": {"replicas": at(object, &paths.replicas).cloned().unwrap_or(json!(absent))},
        "status": {"replicas": at(object, &paths.status).cloned().unwrap_or(json!(0)), "selector": selector},
    })
}
