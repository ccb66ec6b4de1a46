//! Amounts of what nodes have and pods ask for.

use mote_api::quantity::Quantity;
use mote_api::tree::{Map, Value, list_at, map_at, str_at};

/// Amounts of what a node has or a pod asks for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Only of nodes.
    pub pods: i64,
    /// Extended resources, sorted by name.
    pub extended: Box<[(Box<str>, i64)]>,
}

impl Resources {
    pub fn parse(map: Option<&Map<String, Value>>) -> Self {
        let mut all = Resources::default();
        let mut extended = Vec::new();
        for (name, value) in map.into_iter().flatten() {
            let Some(quantity) = Quantity::of(value) else { continue };
            match name.as_str() {
                "cpu" => all.cpu_milli = quantity.milli(),
                "memory" => all.memory_bytes = quantity.value(),
                "ephemeral-storage" => all.ephemeral_bytes = quantity.value(),
                "pods" => all.pods = quantity.value(),
                _ => extended.push((name.as_str().into(), quantity.value())),
            }
        }
        all.extended = extended.into();
        all
    }

    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| &**n == name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds (`sign` 1) or takes away (`sign` -1).
    pub fn add(&mut self, other: &Resources, sign: i64) {
        self.merge(other, |mine, theirs| mine.saturating_add(theirs.saturating_mul(sign)));
    }

    fn raise(&mut self, other: &Resources) {
        self.merge(other, std::cmp::max);
    }

    fn merge(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = f(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = f(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = f(self.ephemeral_bytes, other.ephemeral_bytes);
        if other.extended.iter().all(|(name, _)| self.extended.iter().any(|(mine, _)| mine == name)) {
            for (name, mine) in &mut self.extended {
                *mine = f(*mine, other.extended(name));
            }
            return;
        }
        let mut extended = std::mem::take(&mut self.extended).into_vec();
        extended.iter_mut().for_each(|(name, mine)| *mine = f(*mine, other.extended(name)));
        for (name, theirs) in &other.extended {
            if !extended.iter().any(|(mine, _)| mine == name) {
                extended.push((name.clone(), f(0, *theirs)));
            }
        }
        extended.sort();
        self.extended = extended.into();
    }
}

/// What the scheduler sets aside (KEP-753): containers and sidecars run together; an init container runs beside the sidecars
/// started before it; plus the overhead.
pub(super) fn requests(spec: &Value) -> Resources {
    let of = |c: &Value| Resources::parse(map_at(c, &["resources", "requests"]));
    let mut running = Resources::default();
    list_at(spec, &["containers"]).iter().for_each(|c| running.add(&of(c), 1));
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for init in list_at(spec, &["initContainers"]) {
        let mut at_once = of(init);
        if str_at(init, &["restartPolicy"]) == "Always" {
            running.add(&at_once, 1);
            sidecars.add(&at_once, 1);
            peak.raise(&sidecars);
        } else {
            at_once.add(&sidecars, 1);
            peak.raise(&at_once);
        }
    }
    running.raise(&peak);
    let whole = Resources::parse(map_at(spec, &["resources", "requests"]));
    if whole.cpu_milli != 0 {
        running.cpu_milli = whole.cpu_milli;
    }
    if whole.memory_bytes != 0 {
        running.memory_bytes = whole.memory_bytes;
    }
    running.add(&Resources::parse(map_at(spec, &["overhead"])), 1);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    fn c(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn requests_of_init_containers_and_sidecars() {
        let mut side = c("100m");
        side["restartPolicy"] = json!("Always");
        let rows = [
            (json!({"containers": [c("1"), c("500m")]}), 1500),
            (json!({"containers": [c("1")], "initContainers": [c("3")]}), 3000),
            (json!({"containers": [c("1")], "initContainers": [side, c("3")]}), 3100),
            (json!({"containers": [c("1")], "initContainers": [c("3"), side]}), 3000),
            (json!({"containers": [c("1")], "initContainers": [side]}), 1100),
            (json!({"containers": [c("1")], "overhead": {"cpu": "10m"}}), 1010),
        ];
        for (spec, want) in rows {
            assert_eq!(requests(&spec).cpu_milli, want, "{spec}");
        }
    }

    #[test]
    fn extended_resources_add_and_subtract() {
        let parse = |v: Value| Resources::parse(v.as_object());
        let mut sum = parse(json!({"a/x": "1"}));
        sum.add(&parse(json!({"b/y": "2", "a/x": "3"})), 1);
        assert_eq!((sum.extended("a/x"), sum.extended("b/y"), sum.extended("c/z")), (4, 2, 0));
        sum.add(&parse(json!({"b/y": "2"})), -1);
        assert_eq!((sum.extended("a/x"), sum.extended("b/y")), (4, 0));
    }
}
