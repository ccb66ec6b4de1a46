//! What volumes are filled with: ConfigMaps, Secrets, the pod's own fields, tokens.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, i64_at, json, list_at, str_at};

use super::failure;
use crate::agent::Agent;
use crate::clock::Moment;
use crate::pods::model::{Pod, Source, Volumes, fnv};
use crate::pods::volumes::refresh::{self, REFRESH};
use crate::pods::volumes::{self, Content};
use crate::worker::describe::{addresses, me, refs};
use crate::worker::memory::{Memory, Token};

/// Seconds a token lives when the pod does not say.
const TOKEN_SECONDS: i64 = 3600;
/// Pods that run have time: so long a refresh may wait for answers, then it is left for the next time.
const REFRESH_WITHIN: Duration = Duration::from_secs(5);
/// A token that was refused is asked for again after this.
const TOKEN_RETRY: Duration = Duration::from_secs(60);

/// Asks for the tokens that the pod wants and has not, or whose time is four fifths over. A server without token requests gives none, and
/// the file is left out; one that is out of reach leaves the old ones in place.
async fn renew(agent: &Agent, pod: &Pod, tokens: &mut std::collections::BTreeMap<String, Token>, now: Moment) {
    let Some(client) = agent.client.as_ref().filter(|_| pod.source == Source::Api) else { return };
    let sources = list_at(&pod.object, &["spec", "volumes"]).iter().flat_map(|v| list_at(v, &["projected", "sources"]));
    for wanted in sources.filter_map(|source| at(source, &["serviceAccountToken"])) {
        let audience = str_at(wanted, &["audience"]);
        if tokens.get(audience).is_some_and(|token| now < token.renew_at) {
            continue;
        }
        let account = match str_at(&pod.object, &["spec", "serviceAccountName"]) {
            "" => "default",
            name => name,
        };
        let target = format!("{}/token", crate::client::path::core(&pod.namespace, "serviceaccounts", account));
        match client.create(&target, &request(pod, wanted, audience)).await {
            Ok(answer) => {
                let seconds = i64_at(&answer, &["spec", "expirationSeconds"]).unwrap_or(TOKEN_SECONDS);
                let token = Token {
                    text: str_at(&answer, &["status", "token"]).to_owned(),
                    renew_at: now.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0) / 5 * 4)),
                };
                tokens.insert(audience.to_owned(), token);
            }
            Err(error) => {
                log::debug!("request token for pod {}: {error}", pod.key());
                if let Some(token) = tokens.get_mut(audience) {
                    token.renew_at = now.plus(TOKEN_RETRY);
                }
            }
        }
    }
}

fn request(pod: &Pod, wanted: &Value, audience: &str) -> Value {
    let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
        "audiences": audiences,
        "expirationSeconds": i64_at(wanted, &["expirationSeconds"]).unwrap_or(TOKEN_SECONDS),
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid.as_str()}}})
}

/// Fills all volumes, or says which one cannot be filled. Volumes that are there stay as they are when their content is not to be had.
pub(super) async fn make(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    if list_at(&pod.object, &["spec", "volumes"]).is_empty() {
        memory.volumes = Volumes::Ready;
        return;
    }
    let now = Moment::now();
    let there = memory.volumes == Volumes::Stale;
    let age_max = if there { REFRESH / 2 } else { Duration::ZERO };
    let names = refresh::referred(&pod.object);
    let gathered =
        async { tokio::join!(refs(agent, pod, names, age_max), renew(agent, pod, &mut memory.tokens, now)).0 };
    let refs = if there {
        match tokio::time::timeout(REFRESH_WITHIN, gathered).await {
            Ok(refs) => refs,
            Err(_) => Err("no answer".into()),
        }
    } else {
        gathered.await
    };
    let due = memory.tokens.values().map(|token| token.renew_at).min();
    let shift = Duration::from_secs(fnv(&[agent.config.node_name.as_bytes()]) % REFRESH.as_secs());
    memory.refresh_at = refresh::look_again(&pod.object, due, shift, now);
    let made = match refs {
        Err(why) if there => {
            log::debug!("refresh volumes of pod {}: {why}", pod.key());
            memory.volumes = Volumes::Ready;
            return;
        }
        Err(why) => Err(why),
        Ok(refs) => {
            let tokens = memory.tokens.iter().map(|(audience, token)| (audience.clone(), token.text.clone())).collect();
            let addresses = addresses(agent, &memory.sandbox);
            let content = Content { refs: &refs, me: &me(agent, pod, &addresses), tokens: &tokens };
            volumes::make(pod, &agent.config.roots, &content)
        }
    };
    let failed = made.err().map(|why| {
        let before = match &memory.volumes {
            Volumes::Failed(before) => Some(before),
            _ => None,
        };
        agent.events.note(&pod.object, "", true, "FailedMount", &why);
        failure(before, "ContainerCreating", why)
    });
    memory.volumes = failed.filter(|_| !there).map_or(Volumes::Ready, Volumes::Failed);
}
