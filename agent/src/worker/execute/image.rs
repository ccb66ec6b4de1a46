//! Finding or pulling a container's image, with the words the kubelet has for what came of it.

use std::rc::Rc;

use mote_api::tree::{Value, list_at, str_at};
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
    let mut options = agent.config.pull.clone();
    options.credentials = credentials(agent, pod, &reference).await;
    let store = agent.images.clone();
    let shown = crate::progress::Shown::new(text);
    let result =
        tokio::task::spawn_blocking(move || store.pull(&reference, &options, &shown, &Cancel::default())).await;
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

/// Credentials out of the pod's `imagePullSecrets`, if one names the registry.
async fn credentials(agent: &Rc<Agent>, pod: &Rc<Pod>, reference: &Reference) -> Option<Credentials> {
    let client = agent.client.as_ref()?;
    for entry in list_at(&pod.object, &["spec", "imagePullSecrets"]) {
        let target = crate::client::path::core(&pod.namespace, "secrets", str_at(entry, &["name"]));
        let Ok(secret) = client.get(&target).await else { continue };
        let data = spec::env::bytes(&secret, true);
        let document = data.get(".dockerconfigjson").and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        let Some(auths) = document.as_ref().and_then(|d| d.get("auths")).and_then(Value::as_object) else { continue };
        for (server, auth) in auths {
            let host = server
                .trim_start_matches("https://")
                .trim_start_matches("http://")
                .split('/')
                .next()
                .unwrap_or_default();
            let hub = reference.registry() == "docker.io" && host.ends_with("docker.io");
            if host != reference.registry() && !hub {
                continue;
            }
            let (mut user, mut password) =
                (str_at(auth, &["username"]).to_owned(), str_at(auth, &["password"]).to_owned());
            if user.is_empty() {
                use base64::Engine as _;
                let both =
                    base64::engine::general_purpose::STANDARD.decode(str_at(auth, &["auth"])).unwrap_or_default();
                let both = String::from_utf8_lossy(&both).into_owned();
                let (u, p) = both.split_once(':').unwrap_or_default();
                (user, password) = (u.to_owned(), p.to_owned());
            }
            return Some(Credentials { username: user, password, identity_token: None });
        }
    }
    None
}
