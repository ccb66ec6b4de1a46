//! Finding or pulling a container's image, with the words the kubelet has for what came of it.

use std::rc::Rc;

use mote_api::tree::{list_at, str_at};
use mote_images::{Cancel, Credentials, Image, Reference};

use crate::agent::Agent;
use crate::clock::Moment;
use crate::pods::model::{Pod, PullPolicy};
use crate::pods::slot::{News, Slot};
use crate::pods::spec;

/// Images packed on this machine live under this name and are in no registry.
const LOCAL_REGISTRY: &str = "localhost";

/// Finds or pulls an image, then tells the worker.
pub(super) async fn pull(
    agent: Rc<Agent>,
    slot: Rc<Slot>,
    pod: Rc<Pod>,
    container: String,
    image: String,
    policy: PullPolicy,
) {
    let result = pulled(&agent, &pod, &container, &image, policy).await;
    slot.tell(News::Image { container, result: result.map(Box::new) });
}

async fn pulled(
    agent: &Rc<Agent>,
    pod: &Rc<Pod>,
    container: &str,
    text: &str,
    policy: PullPolicy,
) -> Result<Image, (&'static str, String)> {
    let field = pod.field_of(container);
    let reference: Reference = match text.parse() {
        Ok(reference) => reference,
        Err(error) => {
            let message =
                format!("Failed to apply default image tag {text:?}: couldn't parse image name {text:?}: {error}");
            agent.events.note(&pod.object, &field, true, "InspectFailed", &message);
            return Err(("InvalidImageName", message));
        }
    };
    if policy != PullPolicy::Always || reference.registry() == LOCAL_REGISTRY {
        let (store, wanted) = (agent.images.clone(), reference.clone());
        let found = tokio::task::spawn_blocking(move || store.find(&wanted)).await;
        match found {
            Ok(Ok(Some(image))) => {
                let message = format!("Container image {text:?} already present on machine");
                agent.events.note(&pod.object, &field, false, "Pulled", &message);
                return Ok(image);
            }
            Ok(Err(error)) => log::warn!("look for image {text}: {error}"),
            _ => {}
        }
    }
    if policy == PullPolicy::Never || reference.registry() == LOCAL_REGISTRY {
        let message = format!("Container image {text:?} is not present with pull policy of Never");
        agent.events.note(&pod.object, &field, true, "ErrImageNeverPull", &message);
        return Err(("ErrImageNeverPull", message));
    }
    agent.events.note(&pod.object, &field, false, "Pulling", &format!("Pulling image {text:?}"));
    let began = Moment::now();
    // As the kubelet: every entry of the pull secrets that fits, one after the other; then what the node itself has, or nobody.
    let mut identities: Vec<Option<Credentials>> =
        credentials(agent, pod, &reference).await.into_iter().map(Some).collect();
    identities.push(None);
    let mut result = Ok(Err(mote_images::Error::Cancelled));
    for credentials in identities {
        let options = mote_images::PullOptions { credentials, ..agent.config.pull.clone() };
        let (store, reference, shown) = (agent.images.clone(), reference.clone(), crate::progress::Shown::new(text));
        result =
            tokio::task::spawn_blocking(move || store.pull(&reference, &options, &shown, &Cancel::default())).await;
        if !matches!(result, Ok(Err(mote_images::Error::Unauthorized { .. }))) {
            break;
        }
    }
    match result {
        Ok(Ok(image)) => {
            let took = Moment::now().since(began);
            let message = format!(
                "Successfully pulled image {text:?} in {}.{:03}s. Image size: {} bytes.",
                took.as_secs(),
                took.subsec_millis(),
                image.size
            );
            agent.events.note(&pod.object, &field, false, "Pulled", &message);
            Ok(image)
        }
        other => {
            let why = match other {
                Ok(Err(error)) => crate::client::chain(&error),
                Err(error) => error.to_string(),
                Ok(Ok(_)) => String::new(),
            };
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Failed to pull image {text:?}: {why}"));
            agent.events.note(&pod.object, &field, true, "Failed", "Error: ErrImagePull");
            Err(("ErrImagePull", why))
        }
    }
}

/// Every identity out of the pod's `imagePullSecrets` that is for this image, in the order to try.
async fn credentials(agent: &Rc<Agent>, pod: &Rc<Pod>, reference: &Reference) -> Vec<Credentials> {
    let mut found: Vec<Credentials> = Vec::new();
    let Some(client) = agent.client.as_ref() else { return found };
    for entry in list_at(&pod.object, &["spec", "imagePullSecrets"]) {
        let name = str_at(entry, &["name"]);
        let target = crate::client::path::core(&pod.namespace, "secrets", name);
        let Ok(secret) = client.get(&target).await else { continue };
        let data = spec::env::bytes(&secret, true);
        for document in [".dockerconfigjson", ".dockercfg"].iter().filter_map(|key| data.get(*key)) {
            match Credentials::all_from_docker_config(document, reference) {
                Ok(all) => found.extend(all),
                Err(e) => log::warn!("pull secret {}/{name}: {e}", pod.namespace),
            }
        }
    }
    found
}
