//! What volumes are filled with: ConfigMaps, Secrets, the pod's own fields, tokens.

use std::rc::Rc;

use mote_api::tree::{at, i64_at, json, list_at, str_at};

use super::failure;
use crate::agent::Agent;
use crate::clock::Moment;
use crate::pods::model::{Pod, Source, Volumes};
use crate::pods::volumes::{self, Content, Tokens};
use crate::worker::describe::{addresses, me, refs};
use crate::worker::memory::Memory;
use crate::worker::tokens::TokenCache;

/// Tokens of projected volumes, by audience. A server without token requests gives none, and the file is left out.
async fn tokens(agent: &Agent, pod: &Pod, held: &mut TokenCache) -> Tokens {
    let Some(client) = agent.client.as_ref().filter(|_| pod.source == Source::Api) else { return Tokens::new() };
    for volume in list_at(&pod.object, &["spec", "volumes"]) {
        for source in list_at(volume, &["projected", "sources"]) {
            let Some(wanted) = at(source, &["serviceAccountToken"]) else { continue };
            let audience = str_at(wanted, &["audience"]);
            if held.has(audience, Moment::now()) {
                continue;
            }
            let account = match str_at(&pod.object, &["spec", "serviceAccountName"]) {
                "" => "default",
                name => name,
            };
            let target = format!("{}/token", crate::client::path::core(&pod.namespace, "serviceaccounts", account));
            let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
            let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
                "audiences": audiences,
                "expirationSeconds": i64_at(wanted, &["expirationSeconds"]).unwrap_or(3600),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid.as_str()}}});
            match client.create(&target, &request).await {
                Ok(answer) => held.keep(audience, &answer, Moment::now()),
                Err(error) => log::debug!("request token for pod {}: {error}", pod.key()),
            }
        }
    }
    held.tokens()
}

/// Fills all volumes, or says which one cannot be filled.
pub(super) async fn make(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    memory.volumes_at = Moment::now();
    let made = async {
        let has_any = !list_at(&pod.object, &["spec", "volumes"]).is_empty();
        if !has_any {
            return Ok(());
        }
        let refs = refs(agent, pod).await?;
        let tokens = tokens(agent, pod, &mut memory.tokens).await;
        let addresses = addresses(agent, &memory.sandbox);
        volumes::make(
            pod,
            &agent.config.roots,
            &Content { refs: &refs, me: &me(agent, pod, &addresses), tokens: &tokens },
        )
    };
    let made: Result<(), String> = made.await;
    memory.volumes = match made {
        Ok(()) => Volumes::Ready,
        Err(why) => {
            let before = match &memory.volumes {
                Volumes::Failed(before) => Some(before),
                _ => None,
            };
            agent.events.note(&pod.object, "", true, "FailedMount", &why);
            Volumes::Failed(failure(before, "ContainerCreating", why))
        }
    };
}
