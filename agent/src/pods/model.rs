//! What a worker knows of its pod: the desired side read once out of the object tree, and the facts of this moment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, i64_at, list_at, str_at};

use crate::clock::Moment;

/// The identity of a pod for the node: two pods of one name that follow each other differ in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(String);

impl PodUid {
    /// Takes a UID that can be part of a path and of a cgroup's name; `None` for anything else.
    pub fn new(text: &str) -> Option<PodUid> {
        let sane = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        sane.then(|| PodUid(text.to_owned()))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PodUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who wants the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The API server.
    Api,
    /// A manifest of this node's manifest folder.
    Static,
    /// Nobody: the keeper still holds something of it.
    Nobody,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// Only after an exit code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

/// What a container is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: goes on beside the others.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// One of `spec.ephemeralContainers`, added to a pod that runs (`kubectl debug`): runs once, beside everything, and the pod's fate does not
    /// hang on it.
    Ephemeral,
}

impl Role {
    /// The list of the pod's spec that it stands in.
    pub fn list(self) -> &'static str {
        match self {
            Role::Init | Role::Sidecar => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }

    /// The list of the pod's status that tells of it.
    pub fn statuses(self) -> &'static str {
        match self {
            Role::Init | Role::Sidecar => "initContainerStatuses",
            Role::App => "containerStatuses",
            Role::Ephemeral => "ephemeralContainerStatuses",
        }
    }

    /// Runs before the app containers, which wait for it.
    pub fn is_init(self) -> bool {
        matches!(self, Role::Init | Role::Sidecar)
    }
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry at every start.
    Always,
    /// Only when the image is not here.
    IfNotPresent,
    /// Never.
    Never,
}

/// One container as the pod wants it.
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The image reference as written.
    pub image: String,
    /// When to ask the registry.
    pub pull: PullPolicy,
    /// What it is for.
    pub role: Role,
    /// Its subtree of the pod.
    pub spec: Value,
    /// Changes when the container must be made anew (upstream's choice: name and image).
    pub hash: String,
}

impl Wanted {
    /// Whether it has a probe of this field name.
    pub fn has_probe(&self, field: &str) -> bool {
        at(&self.spec, &[field]).is_some_and(Value::is_object)
    }
}

/// A pod as wanted, read once.
pub struct Pod {
    /// The whole object.
    pub object: Rc<Value>,
    /// Its UID.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who wants it.
    pub source: Source,
    /// Init containers (and sidecars) in order, then the app containers, then the ephemeral ones.
    pub containers: Vec<Wanted>,
    /// `spec.restartPolicy`.
    pub restart: RestartPolicy,
    /// Shares the node's network.
    pub host_network: bool,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Set when it has to end.
    pub deleting: Option<Duration>,
}

impl Pod {
    /// How events refer to one of its containers.
    pub fn field_of(&self, container: &str) -> String {
        let role = self.container(container).map_or(Role::App, |wanted| wanted.role);
        format!("spec.{}{{{container}}}", role.list())
    }

    /// Reads a pod; the error says which part cannot be run.
    pub fn read(object: Rc<Value>, source: Source) -> Result<Pod, String> {
        let uid = PodUid::new(str_at(&object, &["metadata", "uid"])).ok_or("metadata.uid is missing or malformed")?;
        let mut containers = Vec::new();
        for spec in list_at(&object, &["spec", "initContainers"]) {
            let sidecar = str_at(spec, &["restartPolicy"]) == "Always";
            containers.push(wanted(spec, if sidecar { Role::Sidecar } else { Role::Init })?);
        }
        for spec in list_at(&object, &["spec", "containers"]) {
            containers.push(wanted(spec, Role::App)?);
        }
        for spec in list_at(&object, &["spec", "ephemeralContainers"]) {
            containers.push(wanted(spec, Role::Ephemeral)?);
        }
        let restart = match str_at(&object, &["spec", "restartPolicy"]) {
            "Never" => RestartPolicy::Never,
            "OnFailure" => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        let seconds = |value: Option<i64>, otherwise: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(otherwise).min(GRACE_SECONDS_MAX))
        };
        let grace = seconds(i64_at(&object, &["spec", "terminationGracePeriodSeconds"]), 30);
        let deleting = at(&object, &["metadata", "deletionTimestamp"])
            .is_some_and(Value::is_string)
            .then(|| seconds(i64_at(&object, &["metadata", "deletionGracePeriodSeconds"]), grace.as_secs()));
        Ok(Pod {
            uid,
            namespace: str_at(&object, &["metadata", "namespace"]).to_owned(),
            name: str_at(&object, &["metadata", "name"]).to_owned(),
            source,
            containers,
            restart,
            host_network: at(&object, &["spec", "hostNetwork"]).and_then(Value::as_bool).unwrap_or(false),
            grace,
            deleting,
            object,
        })
    }

    /// `namespace/name`, for messages.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Wanted> {
        self.containers.iter().find(|wanted| wanted.name == name)
    }

    /// The app containers.
    pub fn apps(&self) -> impl Iterator<Item = &Wanted> {
        self.containers.iter().filter(|wanted| wanted.role == Role::App)
    }
}

/// A pod may ask for a day between SIGTERM and SIGKILL, not more.
pub const GRACE_SECONDS_MAX: u64 = 86_400;

fn wanted(spec: &Value, role: Role) -> Result<Wanted, String> {
    let (name, image) = (str_at(spec, &["name"]), str_at(spec, &["image"]));
    let sane = !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !sane {
        return Err(format!("container name {name:?} is no DNS label"));
    }
    let pull = match str_at(spec, &["imagePullPolicy"]) {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        _ if image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or(image).contains([':', '@']) => {
            PullPolicy::Always
        }
        _ => PullPolicy::IfNotPresent,
    };
    let hash = format!("{:016x}", fnv(&[name.as_bytes(), b"\0", image.as_bytes()]));
    Ok(Wanted { name: name.to_owned(), image: image.to_owned(), pull, role, spec: spec.clone(), hash })
}

/// FNV-1a: spreads well enough to tell "changed" from "not changed"; nobody's safety hangs on it.
pub fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// How a container ended.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// It could not be started: why.
    pub cannot_run: Option<String>,
    /// When it ended.
    pub finished: Moment,
    /// What it left in its termination message file.
    pub message: String,
}

/// What one run of a container is doing.
#[derive(Clone, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It has ended.
    Exited(Exit),
}

/// One run of a container.
#[derive(Clone, PartialEq, Eq)]
pub struct Instance {
    /// The keeper's name for it.
    pub id: String,
    /// 0 for the first run.
    pub attempt: u32,
    /// How many short runs came before it in a row (for the crash back-off).
    pub crashes: u32,
    /// The hash of the spec it was made from.
    pub hash: String,
    /// The image reference it was made from.
    pub image: String,
    /// The digest of the image.
    pub image_id: String,
    /// When it started.
    pub started: Moment,
    /// What it does.
    pub state: State,
}

impl Instance {
    /// Whether it runs.
    pub fn running(&self) -> bool {
        self.state == State::Running
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            State::Running => None,
        }
    }
}

/// Something that was tried and failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kubelet's word for it, e.g. `ErrImagePull`.
    pub reason: &'static str,
    /// Operation, object, cause.
    pub message: String,
    /// When.
    pub at: Moment,
    /// How often in a row.
    pub times: u32,
}

/// Where a container's image is.
#[derive(Clone, PartialEq, Eq)]
pub enum ImageState {
    /// On its way.
    Pulling,
    /// Here, since.
    Ready {
        /// When it was found or pulled.
        at: Moment,
    },
    /// Not to be had for now.
    Failed(Failure),
}

/// The pod's shared namespaces and address.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// Not there.
    #[default]
    None,
    /// There.
    Ready {
        /// Its address; the node's for a pod on the node's network.
        ip: Option<IpAddr>,
    },
    /// Could not be made.
    Failed(Failure),
}

/// The pod's volumes on disk.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Volumes {
    /// Not there.
    #[default]
    None,
    /// There.
    Ready,
    /// There; their content may have changed since.
    Stale,
    /// Could not be made.
    Failed(Failure),
}

/// What the probes of one container have found.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Probed {
    /// The startup probe has succeeded (or there is none).
    pub started: bool,
    /// The readiness probe succeeds (or there is none).
    pub ready: bool,
    /// The liveness or startup probe has given it up.
    pub dead: bool,
}

/// A container that was told to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    /// SIGKILL from then on.
    pub deadline: Moment,
    /// SIGKILL has been sent.
    pub killed: bool,
}

/// Everything known of a pod at one moment.
#[derive(Default)]
pub struct Facts {
    /// Shared namespaces and address.
    pub sandbox: Sandbox,
    /// Volumes.
    pub volumes: Volumes,
    /// Runs by container name, newest first, at most [`RUNS_KEPT`] that have ended.
    pub runs: BTreeMap<String, Vec<Instance>>,
    /// Images by container name.
    pub images: BTreeMap<String, ImageState>,
    /// Why the last start of a container failed before it ran, by container name.
    pub starts: BTreeMap<String, Failure>,
    /// Probe results by container id.
    pub probed: BTreeMap<String, Probed>,
    /// The number of the first run of a container that has no run here: after a reboot, one behind the last log file.
    pub first_attempt: BTreeMap<String, u32>,
    /// Who was told to stop, by container id.
    pub stopping: BTreeMap<String, Stopping>,
}

/// Runs of one container that are kept: the newest and the one before it (`logs --previous`, `lastState`).
pub const RUNS_KEPT: usize = 2;

impl Facts {
    /// The newest run of a container.
    pub fn newest(&self, name: &str) -> Option<&Instance> {
        self.runs.get(name).and_then(|runs| runs.first())
    }

    /// Every run that is alive.
    pub fn running(&self) -> impl Iterator<Item = (&str, &Instance)> {
        self.runs
            .iter()
            .flat_map(|(name, runs)| runs.iter().filter(|run| run.running()).map(move |run| (name.as_str(), run)))
    }
}
