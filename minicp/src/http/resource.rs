//! Requests for objects: from the typed question to the API's functions, and their results to answers.

use std::rc::Rc;

use hyper::body::Incoming;
use mote_api::kind::Verbs;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, str_at};

use super::answer::{self, Answer, Form};
use super::asked::{Asked, read_tree};
use super::{App, list, proxy, relay, watch};
use crate::api::admit;
use crate::api::object;
use crate::api::request::{Target, Verb, WriteOptions};
use crate::api::words::{DeleteOptions, ListQuery, PatchType, Place, Written};
use crate::auth::review;
use crate::store::Revision;

/// Kinds whose delete answers with the object even when it is gone at once (upstream's `ReturnDeletedObject`); all others say Success. Clients that parse
/// answers by the published schema need it so.
const RETURNED: [&str; 12] = [
    "CSIDriver.storage.k8s.io",
    "CSINode.storage.k8s.io",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceQuota",
    "Service",
    "ServiceAccount",
    "StorageClass.storage.k8s.io",
    "VolumeAttachment.storage.k8s.io",
    "VolumeAttributesClass.storage.k8s.io",
];

pub(crate) async fn handle(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let mut answer = answer_to(app, asked, target, body).await?;
    if let Some(told) = target.kind.custom.as_ref().and_then(|c| c.deprecated.clone()) {
        answer::warn(&mut answer, &[told]);
    }
    Ok(answer)
}

async fn answer_to(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let kind = &target.kind;
    if kind.verbs == Verbs::CreateOnly && target.verb != Verb::Create {
        return Err(Status::method_not_allowed(kind, target.verb.name()));
    }
    match (target.verb, target.sub.as_str()) {
        (Verb::Get, "log") => proxy::log(app, asked, target).await,
        (Verb::Get | Verb::Create, sub @ ("exec" | "attach" | "portforward")) => {
            proxy::stream(app, asked, target, sub).await
        }
        (_, "proxy") => relay::answer(app, asked, target, body).await,
        (_, "exec" | "attach" | "portforward") => {
            Err(Status::new(501, "NotImplemented", format!("{}/{} is not served yet", kind.plural, target.sub)))
        }
        (Verb::Get, "scale") => Ok(answer::value(200, &app.api.get_scale(kind, &target.ns, &target.name).await?)),
        (Verb::Get, _) => {
            let form = Form::of(&asked.headers, &asked.query)?;
            app.api.reaches(Revision(asked.query.number("resourceVersion")?.unwrap_or(0))).await?;
            let entry = app.api.entry(kind, &target.ns, &target.name).await?;
            let mut out = Vec::with_capacity(entry.value.len() + 128);
            form.write(&mut out, kind, &entry, app.api.now());
            out.push(b'\n');
            Ok(answer::bytes(200, "application/json", out))
        }
        (Verb::List, _) => {
            let form = Form::of(&asked.headers, &asked.query)?;
            let listed = app.api.list(kind, &target.ns, &ListQuery::parse(&asked.query)?).await?;
            Ok(list::answer(kind, form, listed, app.api.now()))
        }
        (Verb::Watch, _) => watch::answer(app, asked, target).await,
        // Who could not read the answer writes nothing.
        (verb, _) => {
            Form::of(&asked.headers, &asked.query)?;
            match verb {
                Verb::Create => create(app, asked, target, body).await,
                Verb::Update | Verb::Patch => change(app, asked, target, body).await,
                _ => delete(app, asked, target, body).await,
            }
        }
    }
}

fn written(app: &App, asked: &Asked, target: &Target, done: &Written) -> Result<Answer, Status> {
    let code = if done.created { 201 } else { 200 };
    let mut answer = match Form::of(&asked.headers, &asked.query)? {
        Form::Json => answer::value(code, &done.value),
        Form::Metadata => answer::value(code, &answer::metadata_only(done.value.clone())),
        Form::Table(include) => {
            let meta = json!({"resourceVersion": meta::resource_version(&done.value)});
            answer::value(code, &mote_api::columns::table(&target.kind, [&done.value], meta, app.api.now(), include))
        }
    };
    answer::warn(&mut answer, &done.warnings);
    Ok(answer)
}

fn success(code: u16) -> Answer {
    answer::value(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}),
    )
}

async fn create(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let options = WriteOptions::parse(&asked.query, asked.user_agent(), &asked.user)?;
    let (object, duplicates) = read_tree(asked, body).await?;
    let (kind, ns) = (&target.kind, target.ns.as_str());
    match target.sub.as_str() {
        "" if kind.is("", "Binding") => {
            let name = meta::name(&object).to_owned();
            let registry = app.api.registry();
            let pods = registry.find("pods").ok_or_else(Status::no_such_resource)?;
            app.api.bind(pods, ns, &name, &object, &options).await.map(|()| success(201))
        }
        "" if kind.verbs == Verbs::CreateOnly => {
            let mut review = object;
            crate::api::admit::identity(kind, ns, "", &mut review)?;
            let answered = review::answer(&app.api, &app.tokens, kind, ns, review, &asked.user).await;
            answered.map(|v| answer::value(201, &v))
        }
        "" => {
            if kind.namespaced && ns.is_empty() {
                return Err(Status::bad_request("an empty namespace may not be set during creation"));
            }
            written(app, asked, target, &app.api.create(kind, ns, object, &duplicates, &options).await?)
        }
        "token" => token(app, target, object, &duplicates, &options).await,
        "binding" => app.api.bind(kind, ns, &target.name, &object, &options).await.map(|()| success(201)),
        "eviction" => app.api.evict(kind, ns, &target.name, &object, &options).await.map(|()| success(201)),
        sub => Err(Status::new(501, "NotImplemented", format!("{}/{sub} is not served yet", kind.plural))),
    }
}

/// `serviceaccounts/token`: a TokenRequest, answered.
async fn token(
    app: &Rc<App>,
    target: &Target,
    mut request: Value,
    duplicates: &[String],
    options: &WriteOptions,
) -> Result<Answer, Status> {
    let form =
        mote_api::schema::kind_of_body("authentication.k8s.io/v1.TokenRequest").ok_or_else(Status::no_such_resource)?;
    crate::api::admit::identity(&form, "", "", &mut request)?;
    let warnings = mote_api::schema::check(&form, &mut request, duplicates, options.unknown)?;
    admit::node::token(&app.api, &target.ns, &target.name, &request, &options.user).await?;
    let issued = app.tokens.accounts.issue(&app.api, &target.ns, &target.name, request).await?;
    let mut answer = answer::value(201, &issued);
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

async fn change(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let options = WriteOptions::parse(&asked.query, asked.user_agent(), &asked.user)?;
    let place = Place { kind: &target.kind, ns: &target.ns, name: &target.name, sub: &target.sub };
    if target.verb == Verb::Update {
        let (object, duplicates) = read_tree(asked, body).await?;
        if target.sub == "scale" {
            return Ok(answer::value(200, &app.api.put_scale(place, &object, &options).await?));
        }
        return written(app, asked, target, &app.api.update(place, object, &duplicates, &options).await?);
    }
    let ty = PatchType::of(&asked.media_type()).ok_or_else(|| Status::unsupported_media_type(&PatchType::ACCEPTED))?;
    if ty == PatchType::Strategic && target.kind.custom.is_some() {
        // Nobody but its author knows how to merge the lists of a custom resource.
        let rest: Vec<&str> = PatchType::ACCEPTED.into_iter().filter(|t| !t.contains("strategic")).collect();
        return Err(Status::unsupported_media_type(&rest));
    }
    let (patch, duplicates) = read_tree(asked, body).await?;
    if target.sub == "scale" {
        return Ok(answer::value(200, &app.api.patch_scale(place, ty, &patch, &options).await?));
    }
    written(app, asked, target, &app.api.patch(place, ty, &patch, &duplicates, &options).await?)
}

async fn delete(app: &Rc<App>, asked: &Asked, target: &Target, body: Incoming) -> Result<Answer, Status> {
    let mut write = WriteOptions::parse(&asked.query, asked.user_agent(), &asked.user)?;
    let (body, _) = read_tree(asked, body).await?;
    let mut options = DeleteOptions::from_value(&body)?;
    if asked.query.has("gracePeriodSeconds") {
        options.grace_seconds = asked.query.number("gracePeriodSeconds")?.and_then(|g| i64::try_from(g).ok());
    }
    if asked.query.has("propagationPolicy") {
        options.propagation =
            DeleteOptions::from_value(&json!({"propagationPolicy": asked.query.get("propagationPolicy")}))?.propagation;
    }
    write.dry_run |= mote_api::tree::list_at(&body, &["dryRun"]).iter().any(|d| d == "All");
    let (kind, api) = (&target.kind, &app.api);
    if target.verb == Verb::DeleteCollection {
        let query = ListQuery::parse(&asked.query)?;
        let items = api.delete_collection(kind, &target.ns, &query, &options, &write).await?;
        let list = json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": object::list_meta(api.store.revision().0, None, None), "items": items});
        return Ok(answer::value(200, &list));
    }
    if !target.sub.is_empty() {
        return Err(Status::method_not_allowed(kind, "delete"));
    }
    let (done, gone) = api.delete(kind, &target.ns, &target.name, &options, &write).await?;
    if gone && !RETURNED.contains(&kind.group_kind().as_str()) {
        let status = Status::deleted(kind, &target.name, meta::uid(&done.value));
        return Ok(answer::value(200, &status_value(&status, &done.value)));
    }
    Ok(answer::value(200, &done.value))
}

fn status_value(status: &Status, object: &Value) -> Value {
    debug_assert!(!str_at(object, &["kind"]).is_empty());
    status.to_value()
}
