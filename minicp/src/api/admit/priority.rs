//! PriorityClass: the number that a pod's class stands for, and how it treats others (upstream's Priority admission).

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, bool_at, i64_at, json, set, str_at};

use crate::api::Api;

pub(crate) const PREFIX: &str = "/registry/scheduling.k8s.io/priorityclasses/";
/// The two classes of the system itself.
pub(crate) const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPT: &str = "PreemptLowerPriority";

/// Name, value and preemption policy.
type Class = (String, i64, String);

async fn find(api: &Api, name: &str) -> Result<Option<Class>, Status> {
    let classes = api.priorities.read(&*api.store).await?.of("");
    let mut found = None::<Class>;
    for class in classes.iter().filter(|c| match name {
        "" => bool_at(c, &["globalDefault"]) == Some(true),
        name => meta::name(c) == name,
    }) {
        let value = i64_at(class, &["value"]).unwrap_or(0);
        // Of several defaults the lowest, as upstream.
        if found.as_ref().is_none_or(|(_, lowest, _)| value < *lowest) {
            let policy = match str_at(class, &["preemptionPolicy"]) {
                "" => PREEMPT,
                policy => policy,
            };
            found = Some((meta::name(class).into(), value, policy.into()));
        }
    }
    let system = SYSTEM.iter().find(|(n, _)| *n == name).map(|(n, v)| ((*n).to_owned(), *v, PREEMPT.to_owned()));
    Ok(found.or(system))
}

pub(crate) async fn admit(api: &Api, kind: &Kind, pod: &mut Value) -> Result<(), Status> {
    let name = str_at(pod, &["spec", "priorityClassName"]).to_owned();
    let refuse = |why: String| Err(Status::forbidden(kind, meta::name(pod), &why));
    let (name, value, policy) = match find(api, &name).await? {
        Some(class) => class,
        None if name.is_empty() => (String::new(), 0, PREEMPT.into()),
        None => return refuse(format!("no PriorityClass with name {name} was found")),
    };
    // A mirror pod repeats what its node runs: the number it says must be ours.
    let said = i64_at(pod, &["spec", "priority"]);
    if said.is_some_and(|s| s != value) {
        return refuse(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            said.unwrap_or(0)
        ));
    }
    let said = str_at(pod, &["spec", "preemptionPolicy"]);
    if !said.is_empty() && said != policy {
        return refuse(format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    if !name.is_empty() {
        set(pod, &["spec", "priorityClassName"], name.into());
    }
    set(pod, &["spec", "priority"], json!(value));
    set(pod, &["spec", "preemptionPolicy"], policy.into());
    Ok(())
}

/// There is but one default.
pub(crate) async fn check_class(api: &Api, kind: &Kind, class: &Value) -> Result<(), Status> {
    if !kind.is("scheduling.k8s.io", "PriorityClass") || bool_at(class, &["globalDefault"]) != Some(true) {
        return Ok(());
    }
    match find(api, "").await? {
        Some((other, ..)) if other != meta::name(class) => {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(Status::forbidden(kind, meta::name(class), &why))
        }
        _ => Ok(()),
    }
}
