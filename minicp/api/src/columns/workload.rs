//! Rows of what makes pods.

use super::{condition_is_true, containers, either, labels_text, name, number, selector_text, since_creation, text};
use crate::meta;
use crate::time::{Time, age, human};
use crate::tree::{Value, at, bool_at, i64_at, json, list_at, map_at, str_at};

const TEMPLATE: &[&str] = &["spec", "template", "spec"];

fn wide(object: &Value, selector: String) -> [Value; 3] {
    let (names, images) = containers(at(object, TEMPLATE));
    [names, images, json!(selector)]
}
fn selector(object: &Value) -> String {
    at(object, &["spec", "selector"]).map_or_else(|| "<none>".into(), selector_text)
}

pub(super) fn deployment(d: &Value, now: Time) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        i64_at(d, &["status", "readyReplicas"]).unwrap_or(0),
        i64_at(d, &["spec", "replicas"]).unwrap_or(0)
    );
    let mut cells = vec![
        name(d),
        json!(ready),
        number(d, &["status", "updatedReplicas"]),
        number(d, &["status", "availableReplicas"]),
        since_creation(d, now),
    ];
    cells.extend(wide(d, selector(d)));
    cells
}

/// ReplicaSet and ReplicationController, whose selector is a plain map.
pub(super) fn replicas(r: &Value, now: Time) -> Vec<Value> {
    let text = if str_at(r, &["kind"]) == "ReplicationController" {
        map_at(r, &["spec", "selector"]).map_or_else(|| "<none>".into(), labels_text)
    } else {
        selector(r)
    };
    let mut cells = vec![
        name(r),
        number(r, &["spec", "replicas"]),
        number(r, &["status", "replicas"]),
        number(r, &["status", "readyReplicas"]),
        since_creation(r, now),
    ];
    cells.extend(wide(r, text));
    cells
}

pub(super) fn daemon_set(d: &Value, now: Time) -> Vec<Value> {
    let mut cells = vec![name(d)];
    for field in
        ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
    {
        cells.push(number(d, &["status", field]));
    }
    cells.push(json!(
        map_at(d, &["spec", "template", "spec", "nodeSelector"]).map_or_else(|| "<none>".into(), labels_text)
    ));
    cells.push(since_creation(d, now));
    cells.extend(wide(d, selector(d)));
    cells
}

pub(super) fn stateful_set(s: &Value, now: Time) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        i64_at(s, &["status", "readyReplicas"]).unwrap_or(0),
        i64_at(s, &["spec", "replicas"]).unwrap_or(0)
    );
    let (names, images) = containers(at(s, TEMPLATE));
    vec![name(s), json!(ready), since_creation(s, now), names, images]
}

pub(super) fn template(t: &Value, _: Time) -> Vec<Value> {
    let (names, images) = containers(at(t, &["template", "spec"]));
    vec![
        name(t),
        names,
        images,
        json!(at(t, &["template"]).map(meta::labels).map_or_else(|| "<none>".into(), labels_text)),
    ]
}

pub(super) fn revision(r: &Value, now: Time) -> Vec<Value> {
    let owner = meta::controller_of(r).map_or_else(
        || "<none>".to_string(),
        |o| {
            let group = crate::kind::split_api_version(o.api_version).0;
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", o.kind.to_lowercase(), o.name)
        },
    );
    vec![name(r), json!(owner), number(r, &["revision"]), since_creation(r, now)]
}

pub(super) fn job(j: &Value, now: Time) -> Vec<Value> {
    let succeeded = i64_at(j, &["status", "succeeded"]).unwrap_or(0);
    let completions = match (i64_at(j, &["spec", "completions"]), i64_at(j, &["spec", "parallelism"]).unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, many @ 2..) => format!("{succeeded}/1 of {many}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let start = Time::parse(str_at(j, &["status", "startTime"]));
    let end = Time::parse(str_at(j, &["status", "completionTime"])).unwrap_or(now);
    let duration = start.map_or_else(String::new, |s| human(end.seconds_since(s)));
    let is = |ty: &str| condition_is_true(j, ty);
    let status = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if meta::is_deleting(j) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let mut cells = vec![name(j), json!(status), json!(completions), json!(duration), since_creation(j, now)];
    cells.extend(wide(j, selector(j)));
    cells
}

pub(super) fn cron_job(c: &Value, now: Time) -> Vec<Value> {
    let last = str_at(c, &["status", "lastScheduleTime"]);
    let zone = str_at(c, &["spec", "timeZone"]);
    let (names, images) = containers(at(c, &["spec", "jobTemplate", "spec", "template", "spec"]));
    let picks = at(c, &["spec", "jobTemplate", "spec", "selector"]).map_or_else(|| "<none>".into(), selector_text);
    vec![
        name(c),
        text(c, &["spec", "schedule"]),
        json!(if zone.is_empty() { "<none>" } else { zone }),
        json!(if bool_at(c, &["spec", "suspend"]) == Some(true) { "True" } else { "False" }),
        json!(list_at(c, &["status", "active"]).len()),
        json!(if last.is_empty() { "<none>".to_string() } else { age(last, now) }),
        since_creation(c, now),
        names,
        images,
        json!(picks),
    ]
}

pub(super) fn budget(b: &Value, now: Time) -> Vec<Value> {
    vec![
        name(b),
        either(at(b, &["spec", "minAvailable"]), "N/A"),
        either(at(b, &["spec", "maxUnavailable"]), "N/A"),
        number(b, &["status", "disruptionsAllowed"]),
        since_creation(b, now),
    ]
}

pub(super) fn autoscaler(h: &Value, now: Time) -> Vec<Value> {
    let reference = format!(
        "{}/{}",
        str_at(h, &["spec", "scaleTargetRef", "kind"]),
        str_at(h, &["spec", "scaleTargetRef", "name"])
    );
    vec![
        name(h),
        json!(reference),
        json!(targets(h)),
        either(at(h, &["spec", "minReplicas"]), "<unset>"),
        number(h, &["spec", "maxReplicas"]),
        number(h, &["status", "currentReplicas"]),
        since_creation(h, now),
    ]
}

/// `cpu: 12%/80%, memory: <unknown>/1Gi`: the metrics the pods themselves give; others show their target.
fn targets(h: &Value) -> String {
    const SHOWN: usize = 2;
    let metrics = list_at(h, &["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".into();
    }
    let one = |(i, metric): (usize, &Value)| {
        let source = match str_at(metric, &["type"]) {
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            _ => "external",
        };
        let now = list_at(h, &["status", "currentMetrics"]).get(i).and_then(|m| at(m, &[source, "current"]));
        let amount = |side: Option<&Value>, percent: &str| match side.and_then(|s| i64_at(s, &[percent])) {
            Some(n) => format!("{n}%"),
            None => side.map_or("", |s| str_at(s, &["averageValue"]).max(str_at(s, &["value"]))).to_string(),
        };
        let current = amount(now, "averageUtilization");
        let current = if current.is_empty() { "<unknown>".to_string() } else { current };
        let target = amount(at(metric, &[source, "target"]), "averageUtilization");
        let label = str_at(metric, &[source, "name"]);
        if label.is_empty() { format!("{current}/{target}") } else { format!("{label}: {current}/{target}") }
    };
    let shown: Vec<String> = metrics.iter().enumerate().take(SHOWN).map(one).collect();
    let more = metrics.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} + {more} more...", shown.join(", ")) } else { shown.join(", ") }
}
