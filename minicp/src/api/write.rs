//! create, update and every other change of an object: read, change, admit, validate, commit; again if somebody was faster.

use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::tree::{Value, at, set, str_at};
use mote_api::{apply, defaults, meta, schema, validate};

use super::admit::quota::Charge;
use super::request::WriteOptions;
use super::words::{Place, Written};
use super::{Api, OBJECT_BYTES_MAX, WRITE_TRIES_MAX, admit, class_of, convert, object, refused, remove as removal};
use crate::store::{Class, CommitError, Entry, Guard, Op, Revision, Txn};

/// Bytes of `generateName` that are used: a label less the suffix (upstream's `maxGeneratedNameLength`).
const GENERATED_BASE_MAX: usize = 58;

impl Api {
    /// Stores a new object. `duplicates`: keys that came twice in the body.
    pub(crate) async fn create(
        &self,
        kind: &Rc<Kind>,
        ns: &str,
        mut obj: Value,
        duplicates: &[String],
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        admit::identity(kind, ns, "", &mut obj)?;
        let mut warnings = schema::check(kind, &mut obj, duplicates, options.unknown)?;
        convert::to_stored(kind, &mut obj);
        if !meta::resource_version(&obj).is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if kind.custom.as_ref().is_some_and(|c| c.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status { message: why.into(), ..Status::method_not_allowed(kind, "create") });
        }
        let namespace = admit::namespace_is_live(self, kind, ns).await?;
        let base = str_at(&obj, &["metadata", "generateName"]).to_owned();
        let generated = meta::name(&obj).is_empty() && !base.is_empty();
        let mut tries = 0;
        loop {
            let mut new = obj.clone();
            if generated {
                let base = base.get(..GENERATED_BASE_MAX).unwrap_or(&base);
                set(&mut new, &["metadata", "name"], format!("{base}{}", self.name_suffix()).into());
            }
            match self.create_named(kind, namespace.as_ref(), new, options).await {
                Err(e) if generated && e.is_already_exists() && tries < WRITE_TRIES_MAX => tries += 1,
                Err(e) => return Err(e),
                Ok((value, more)) => {
                    warnings.extend(more);
                    return Ok(Written { value, warnings, created: true });
                }
            }
        }
    }

    async fn create_named(
        &self,
        kind: &Rc<Kind>,
        namespace: Option<&Value>,
        mut obj: Value,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>), Status> {
        let (ns, name) = (meta::namespace(&obj).to_owned(), meta::name(&obj).to_owned());
        let ns = ns.as_str();
        admit::fill_new(self, kind, &mut obj);
        admit::admit_new(self, kind, ns, &mut obj, options).await?;
        defaults::apply(kind, &mut obj);
        let hold = self.allocate(kind, None, &mut obj).await?;
        let errors = validate::create(kind, &obj);
        if !errors.is_empty() {
            return Err(Status::invalid(kind, &name, &errors));
        }
        let warnings = admit::check_new(self, kind, namespace, &obj, options).await?;
        let writer = apply::Writer { manager: &options.manager, subresource: "", now: self.now() };
        if !options.applied {
            apply::track(kind, None, &mut obj, &writer);
        }
        let key: Rc<str> = object::key(kind, ns, &name).into();
        let counts = kind.namespaced && self.quotas.read(&*self.store).await?.has(ns);
        let counted = counts.then(|| obj.clone());
        let value = object::encode(obj);
        too_large(value.len())?;
        if options.dry_run {
            return match self.entry(kind, ns, &name).await {
                Ok(_) => Err(Status::already_exists(kind, &name)),
                Err(_) => {
                    if let Some(object) = &counted {
                        admit::quota::charge(self, kind, ns, None, object).await?;
                    }
                    Ok((object::decode(kind, &object::entry(value, Revision(0))), warnings))
                }
            };
        }
        let commit = self.commit_new(kind, ns, counted.as_ref(), (key, &value)).await;
        drop(hold);
        match commit? {
            Ok(revision) => {
                self.note_event(kind, ns, &name, revision);
                Ok((object::decode(kind, &object::entry(value, revision)), warnings))
            }
            Err(CommitError::Conflict) => Err(Status::already_exists(kind, &name)),
            Err(e) => Err(refused(e)),
        }
    }

    /// Commits a new object together with what it costs the quotas of its namespace. `counted`: the object, if there are any.
    async fn commit_new(
        &self,
        kind: &Kind,
        ns: &str,
        counted: Option<&Value>,
        (key, value): (Rc<str>, &bytes::Bytes),
    ) -> Result<Result<Revision, CommitError>, Status> {
        let mut tries = 0;
        loop {
            let mut txn = Txn {
                guards: vec![Guard::Absent(key.clone())],
                ops: vec![Op::Put(key.clone(), value.clone())],
                class: class_of(kind),
            };
            let Some(object) = counted else { return Ok(self.store.commit(txn).await) };
            let _held = self.charging.lock().await;
            let charge = admit::quota::charge(self, kind, ns, None, object).await?;
            charge.join(&mut txn);
            let commit = self.store.commit(txn).await;
            // Was it there already, or did only a quota change meanwhile?
            let raced = commit == Err(CommitError::Conflict) && self.store.get(&key, None).await?.is_none();
            if !raced || tries >= WRITE_TRIES_MAX {
                return Ok(commit);
            }
            tries += 1;
        }
    }

    /// Changes an object. `change` gets it as it is and gives it as it should be; a resourceVersion left in it guards the write.
    pub(crate) async fn change(
        &self,
        place: Place<'_>,
        options: &WriteOptions,
        mut change: impl FnMut(Value) -> Result<(Value, Vec<String>), Status>,
    ) -> Result<Written, Status> {
        let Place { kind, ns, name, .. } = place;
        let mut tries = 0;
        loop {
            let found = self.entry(kind, ns, name).await?;
            let old = object::decode(kind, &found);
            let mut stored_old = old.clone();
            let (mut new, mut warnings) = change(old)?;
            admit::identity(kind, ns, name, &mut new)?;
            convert::to_stored(kind, &mut new);
            convert::to_stored(kind, &mut stored_old);
            let guard = meta::resource_version(&new).to_owned();
            if !guard.is_empty() && guard != found.modified.0.to_string() {
                return Err(Status::modified(kind, name));
            }
            match self.replace(place, &found, &stored_old, new, options).await {
                Err(Replace::Raced) if tries < WRITE_TRIES_MAX => tries += 1,
                Err(Replace::Raced) => return Err(Status::modified(kind, name)),
                Err(Replace::Refused(status)) => return Err(*status),
                Ok((value, more)) => {
                    warnings.extend(more);
                    return Ok(Written { value, warnings, created: false });
                }
            }
        }
    }

    async fn replace(
        &self,
        place: Place<'_>,
        found: &Entry,
        old: &Value,
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>), Replace> {
        let Place { kind, ns, name, sub } = place;
        let owners = at(&new, &["metadata", "managedFields"]).filter(|_| options.applied).cloned();
        admit::carry_over(place, old, &mut new)?;
        defaults::apply(kind, &mut new);
        let hold = if sub.is_empty() { Some(self.allocate(kind, Some(old), &mut new).await?) } else { None };
        // A binding is ours, and the one way to write what no update may.
        let errors = if sub == "binding" { Vec::new() } else { validate::update(kind, &new, old, sub) };
        if !errors.is_empty() {
            return Err(Status::invalid(kind, name, &errors).into());
        }
        let warnings = admit::check_change(self, place, old, &new, options).await?;
        admit::bump_generation(place, old, &mut new);
        let writer = apply::Writer { manager: &options.manager, subresource: sub, now: self.now() };
        match owners {
            Some(owners) => set(&mut new, &["metadata", "managedFields"], owners),
            None => apply::track(kind, Some(old), &mut new, &writer),
        }
        let key: Rc<str> = object::key(kind, ns, name).into();
        let heartbeat = admit::is_heartbeat(place, old, &new);
        let gone = removal::may_go(kind, &new);
        let grows = matches!(sub, "" | "resize") && old.get("spec") != new.get("spec");
        let charge =
            if grows { admit::quota::charge(self, kind, ns, Some(old), &new).await? } else { Charge::default() };
        let value = object::encode(new);
        too_large(value.len())?;
        if options.dry_run || (value == found.value && !gone) {
            return Ok((object::decode(kind, &object::entry(value, found.modified)), warnings));
        }
        let class = if heartbeat { Class::Volatile } else { class_of(kind) };
        let op = if gone { Op::Delete(key.clone()) } else { Op::Put(key.clone(), value.clone()) };
        let mut txn = Txn { guards: vec![Guard::Unchanged(key, found.modified)], ops: vec![op], class };
        charge.join(&mut txn);
        let commit = self.store.commit(txn).await;
        drop(hold);
        match commit {
            Ok(revision) => Ok((object::decode(kind, &object::entry(value, revision)), warnings)),
            Err(CommitError::Conflict) => Err(Replace::Raced),
            Err(e) => Err(refused(e).into()),
        }
    }

    /// PUT: the whole object, or the part of it that a subresource is.
    pub(crate) async fn update(
        &self,
        place: Place<'_>,
        mut obj: Value,
        duplicates: &[String],
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        admit::identity(place.kind, place.ns, place.name, &mut obj)?;
        let warnings = schema::check(place.kind, &mut obj, duplicates, options.unknown)?;
        let uid = meta::uid(&obj).to_owned();
        let mut written = self
            .change(place, options, |old| {
                if !uid.is_empty() && uid != meta::uid(&old) {
                    let why = format!(
                        "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                        meta::uid(&old)
                    );
                    return Err(Status::conflict(place.kind, place.name, &why));
                }
                Ok((obj.clone(), Vec::new()))
            })
            .await?;
        written.warnings.splice(0..0, warnings);
        Ok(written)
    }
}

/// Why an object was not replaced.
pub(crate) enum Replace {
    /// Somebody else wrote it first.
    Raced,
    Refused(Box<Status>),
}

impl From<Status> for Replace {
    fn from(status: Status) -> Replace {
        Replace::Refused(Box::new(status))
    }
}

fn too_large(len: usize) -> Result<(), Status> {
    if len > OBJECT_BYTES_MAX { Err(Status::too_large(OBJECT_BYTES_MAX)) } else { Ok(()) }
}
