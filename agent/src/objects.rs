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
/// Bytes of memory, about, of the objects that are kept; those nobody asked for longest make room. What is in use by more pods than fit is
/// read again when they ask.
const BYTES_MAX: usize = 4 << 20;
/// Bytes, about, that a name, an empty tree node or a map's entry takes beside its text.
const NODE_BYTES: usize = 64;

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
    /// What it weighs, by [`weight`].
    bytes: usize,
    /// Locked while it is being read, so that those who ask meanwhile wait for that answer.
    kept: Rc<Mutex<Kept>>,
}

/// The objects of this node's pods.
#[derive(Default)]
pub struct Objects {
    places: RefCell<Places>,
}

/// What is kept, and what it weighs in all.
#[derive(Default)]
struct Places {
    by_key: BTreeMap<Key, Place>,
    bytes: usize,
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
        let key = (kind, namespace.to_owned(), name.to_owned());
        let place = self.place(&key, asked);
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
        self.places.borrow_mut().weigh(&key, object.as_deref().map_or(0, weight));
        *kept = Kept { object, at: Some(at) };
        Ok(kept.object.clone())
    }

    fn place(&self, key: &Key, asked: Instant) -> Rc<Mutex<Kept>> {
        let mut places = self.places.borrow_mut();
        if let Some(place) = places.by_key.get_mut(key) {
            place.asked = asked;
            return place.kept.clone();
        }
        let kept = Rc::default();
        let place = Place { asked, bytes: 0, kept: Rc::clone(&kept) };
        places.by_key.insert(key.clone(), place);
        places.weigh(key, 0);
        kept
    }
}

impl Places {
    /// Notes what the object of a key weighs, and lets go those that nobody asked for longest until the rest fits.
    fn weigh(&mut self, key: &Key, bytes: usize) {
        // It may have made room while it was read.
        let Some(place) = self.by_key.get_mut(key) else { return };
        let before = std::mem::replace(&mut place.bytes, own_bytes(key).saturating_add(bytes));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(place.bytes);
        while self.bytes > BYTES_MAX {
            let others = self.by_key.iter().filter(|(other, _)| *other != key);
            let Some(oldest) = others.min_by_key(|(_, place)| place.asked).map(|(key, _)| key.clone()) else { return };
            let gone = self.by_key.remove(&oldest).map_or(0, |place| place.bytes);
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

/// Bytes that a place takes whatever it holds.
fn own_bytes((_, namespace, name): &Key) -> usize {
    2 * NODE_BYTES + namespace.len() + name.len()
}

/// Bytes of memory, about, that a tree takes.
fn weight(value: &Value) -> usize {
    let below = match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| NODE_BYTES + name.len() + weight(value)).sum(),
        _ => 0,
    };
    below + NODE_BYTES / 2
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
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let kept = || objects.places.borrow().by_key.keys().map(|(.., name)| name.clone()).collect::<Vec<_>>();
        for n in 0..4 {
            objects.place(&key(n), at(n as u64));
            objects.places.borrow_mut().weigh(&key(n), BYTES_MAX / 4 - 1024);
        }
        objects.place(&key(0), at(10));
        objects.place(&key(4), at(11));
        assert_eq!(kept(), ["s0", "s1", "s2", "s3", "s4"], "a name alone weighs little");
        objects.places.borrow_mut().weigh(&key(4), BYTES_MAX / 4);
        assert_eq!(kept(), ["s0", "s2", "s3", "s4"], "s0 was asked for again");
        objects.places.borrow_mut().weigh(&key(4), 2 * BYTES_MAX);
        assert_eq!(kept(), ["s4"], "the newest stays whatever it weighs");
        objects.places.borrow_mut().weigh(&key(1), 10);
        assert_eq!(kept(), ["s4"], "what made room while it was read does not come back");
        for n in 0..1_100 {
            objects.place(&(Kind::Secret, "n".repeat(4096), format!("s{n}")), at(20 + n));
        }
        let sum: usize = objects.places.borrow().by_key.values().map(|place| place.bytes).sum();
        assert!(kept().len() < 1_024 && sum == objects.places.borrow().bytes, "names without objects are bounded too");
    }

    #[test]
    fn trees_are_weighed() {
        let big = mote_api::tree::json!({"data": {"a": "x".repeat(1000), "b": ["y".repeat(500)]}});
        assert!((1500..2500).contains(&weight(&big)), "{}", weight(&big));
    }
}
