//! `/livez`, `/readyz` and `/healthz`: whether the server lives and whether its store answers, in the words of upstream's checks. Nobody has to say
//! who they are for it; questions that come together are one question to the store.

use std::rc::Rc;
use std::time::Duration;

use super::App;
use super::answer::{self, Answer};
use crate::api::request::Query;

/// How long the store may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Something that every cluster has.
const KEY: &str = "/registry/core/namespaces/default";
/// What there is to be checked, by upstream's names: `etcd` is the store, whichever engine it is.
const CHECKS: [&str; 2] = ["ping", "etcd"];

/// The checks behind a path: None if it is no path of this room.
fn checks(path: &str) -> Option<&'static [&'static str]> {
    let (room, one) = path.strip_prefix('/')?.split_once('/').unwrap_or((path.strip_prefix('/')?, ""));
    let all: &[&str] = match room {
        // Who cannot reach its store is alive: to end it helps nobody.
        "livez" => CHECKS.get(..1)?,
        "readyz" | "healthz" => &CHECKS,
        _ => return None,
    };
    if one.is_empty() {
        return Some(all);
    }
    all.iter().position(|check| *check == one).and_then(|at| all.get(at..=at))
}

/// The answer, if the path is one of health.
pub(super) async fn answer(app: &Rc<App>, path: &str, query: &Query) -> Option<Answer> {
    let checks = checks(path)?;
    let mut failed = 0;
    let mut said = String::new();
    for check in checks {
        if query.get("exclude") == *check {
            said += &format!("[+]{check} excluded: ok\n");
            continue;
        }
        match *check {
            "etcd" => match store(app).await {
                Ok(()) => said += "[+]etcd ok\n",
                Err(why) => {
                    // The store's own tasks have said it; anybody can ask this, as often as they like.
                    log::debug!("{path}: the store does not answer: {why}");
                    failed += 1;
                    said += "[-]etcd failed: reason withheld\n";
                }
            },
            check => said += &format!("[+]{check} ok\n"),
        }
    }
    let room = path.trim_start_matches('/').replace('/', "-");
    Some(match (failed, query.has("verbose")) {
        (0, false) => answer::text(200, "ok"),
        (0, true) => answer::text(200, format!("{said}{room} check passed\n")),
        _ => answer::text(500, format!("{said}{room} check failed\n")),
    })
}

async fn store(app: &App) -> Result<(), String> {
    match tokio::time::timeout(ANSWERS_WITHIN, app.api.store.get(KEY, None)).await {
        Ok(found) => found.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_their_checks() {
        for (path, want) in [
            ("/livez", Some(&["ping"][..])),
            ("/readyz", Some(&["ping", "etcd"])),
            ("/healthz", Some(&["ping", "etcd"])),
            ("/readyz/etcd", Some(&["etcd"])),
            ("/livez/ping", Some(&["ping"])),
            ("/livez/etcd", None),
            ("/readyz/none", None),
            ("/readyz/", Some(&["ping", "etcd"])),
            ("/version", None),
            ("livez", None),
            ("/", None),
        ] {
            assert_eq!(checks(path), want, "{path}");
        }
    }
}
