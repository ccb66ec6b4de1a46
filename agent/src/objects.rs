//! ConfigMaps and Secrets that pods of this node refer to, read once for all who ask: ten pods with the same CA certificate cost one
//! request and one tree. What was read stays, so that a container restarts while the control plane is out of reach.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mote_api::tree::Value;
use tokio::sync::Mutex;

use crate::client::{Client, path};

/// The ConfigMap with the cluster's CA that every pod has. It changes when the CA does, which is hardly ever.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// How old [`ROOT_CA`] may be for whoever asks.
pub const ROOT_CA_AGE_MAX: Duration = Duration::from_secs(600);
/// Objects that are kept; the one nobody asked for longest makes room.
const KEPT_MAX: usize = 256;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Kind {
    /// As it stands in a path.
    fn resource(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
        }
    }
}

type Key = (Kind, String, String);

/// One object as it was read last; `None` when there was none.
#[derive(Default)]
struct Kept {
    object: Option<Rc<Value>>,
    /// When the request for it began.
    at: Option<Instant>,
}

struct Place {
    asked: Instant,
    /// Locked while it is being read, so that those who ask meanwhile wait for that answer.
    kept: Rc<Mutex<Kept>>,
}

/// The objects of this node's pods.
#[derive(Default)]
pub struct Objects {
    places: RefCell<BTreeMap<Key, Place>>,
}

impl Objects {
    /// The object, not older than `age_max` at the time of the call; `None` if there is none.
    ///
    /// # Errors
    /// The API server is out of reach and the object was never read, or it refuses.
    pub async fn get(
        &self,
        client: &Client,
        kind: Kind,
        namespace: &str,
        name: &str,
        age_max: Duration,
    ) -> Result<Option<Rc<Value>>, String> {
        let asked = Instant::now();
        let place = self.place((kind, namespace.to_owned(), name.to_owned()), asked);
        let mut kept = place.lock().await;
        if kept.at.is_some_and(|at| is_fresh(at, asked, age_max)) {
            return Ok(kept.object.clone());
        }
        let begun = Instant::now();
        let (object, at) = match client.get(&path::core(namespace, kind.resource(), name)).await {
            Ok(mut object) => {
                crate::client::drop_managers(&mut object);
                (Some(Rc::new(object)), begun)
            }
            Err(error) if error.is_not_found() => (None, begun),
            Err(error) => match (&kept.object, kept.at) {
                (Some(_), Some(_)) if error.is_retryable() => {
                    log::debug!(
                        "get {} {namespace}/{name}: {error}; going on with what was read before",
                        kind.resource()
                    );
                    return Ok(kept.object.clone());
                }
                _ => return Err(format!("get {} {namespace}/{name}: {error}", kind.resource())),
            },
        };
        *kept = Kept { object, at: Some(at) };
        Ok(kept.object.clone())
    }

    fn place(&self, key: Key, asked: Instant) -> Rc<Mutex<Kept>> {
        let mut places = self.places.borrow_mut();
        if !places.contains_key(&key) && places.len() >= KEPT_MAX {
            let oldest = places.iter().min_by_key(|(_, place)| place.asked).map(|(key, _)| key.clone());
            oldest.and_then(|key| places.remove(&key));
        }
        let place = places.entry(key).or_insert_with(|| Place { asked, kept: Rc::default() });
        place.asked = asked;
        place.kept.clone()
    }
}

/// Whether what was read at `at` will do for who asked then. Something read after the question always does.
fn is_fresh(at: Instant, asked: Instant, age_max: Duration) -> bool {
    asked.saturating_duration_since(at) <= age_max && (at >= asked || !age_max.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_counts_from_the_question() {
        let asked = Instant::now();
        let ago = |seconds| asked.checked_sub(Duration::from_secs(seconds)).unwrap_or(asked);
        let later = asked + Duration::from_secs(1);
        for (at, age_s, fresh) in [
            (later, 0, true),
            (asked, 0, true),
            (ago(1), 0, false),
            (ago(5), 5, true),
            (ago(6), 5, false),
            (later, 5, true),
        ] {
            assert_eq!(is_fresh(at, asked, Duration::from_secs(age_s)), fresh, "{age_s}");
        }
    }

    #[test]
    fn the_longest_unasked_makes_room() {
        let objects = Objects::default();
        let begun = Instant::now();
        let key = |n: usize| (Kind::Secret, "ns".to_owned(), format!("s{n}"));
        for n in 0..KEPT_MAX {
            objects.place(key(n), begun + Duration::from_secs(n as u64));
        }
        objects.place(key(0), begun + Duration::from_secs(10_000));
        objects.place(key(KEPT_MAX), begun + Duration::from_secs(10_001));
        let places = objects.places.borrow();
        assert_eq!(places.len(), KEPT_MAX);
        assert!(places.contains_key(&key(0)) && !places.contains_key(&key(1)) && places.contains_key(&key(KEPT_MAX)));
    }
}
