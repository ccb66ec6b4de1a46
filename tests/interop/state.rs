//! The state of a cluster as its operator sees it, through kubectl: backups and the way back, a full disk, several servers on one etcd.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::server::{Etcd, Server};
use crate::harness::slot::Slot;
use crate::harness::{Kubectl, eventually, mote, until};

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mote-interop-").tempdir().expect("test folder")
}

fn mote_says(args: &[&str]) -> Result<String, String> {
    let out = Command::new(mote()).args(args).output().expect("mote");
    let [stdout, stderr] = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if out.status.success() { Ok(stdout) } else { Err(stderr) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {colour: "grün", empty: ""}
binaryData: {blob: AAECAwQF}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: shop}
stringData: {word: "s3cret"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "local.test/nothing:1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {oars: {type: integer}}}}
"#;
const BOAT: &str =
    "apiVersion: example.org/v1\nkind: Boat\nmetadata: {name: nutshell, namespace: shop}\nspec: {oars: 2}\n";

/// Every object there is, by resource and name, but heartbeats and events; without what is of one store alone if `bare`.
fn everything(kubectl: &Kubectl, bare: bool) -> BTreeMap<String, Value> {
    let resources = kubectl.ok(&["api-resources", "--verbs=list", "-o", "name"]);
    let wanted =
        |name: &&str| !name.starts_with("events") && !name.starts_with("leases") && *name != "componentstatuses";
    let names: Vec<&str> = resources.lines().filter(wanted).collect();
    assert!(names.len() > 30, "{names:?}");
    let list: Value = serde_json::from_str(&kubectl.ok(&["get", &names.join(","), "-A", "-o", "json"])).expect("JSON");
    let mut all = BTreeMap::new();
    for mut object in list["items"].as_array().expect("items").clone() {
        if bare {
            object["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        }
        let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        all.insert(format!("{} {}/{}", object["kind"], of("namespace"), of("name")), object);
    }
    all
}

/// The same twice: nobody is still at work on it.
fn settled(kubectl: &Kubectl) -> BTreeMap<String, Value> {
    let mut last = BTreeMap::new();
    until("controllers to come to rest", 60, || {
        let now = everything(kubectl, false);
        let same = now == last;
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(500));
        same.then_some(())
    });
    last
}

fn bare(mut all: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for object in all.values_mut() {
        object["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    }
    all
}

fn assert_same(now: &BTreeMap<String, Value>, before: &BTreeMap<String, Value>, what: &str) {
    let keys = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(now), keys(before), "{what}");
    for (key, object) in now {
        assert_eq!(object, &before[key], "{what}: {key}");
    }
}

#[test]
fn a_backup_brings_every_object_back_into_either_store() {
    let (dir, slot) = (folder(), Slot::take());
    let place = |name: &str| dir.path().join(name);
    let port = slot.port(0);
    let mut first = Server::up(&place("first"), port, &[]);
    let kubectl = first.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], OBJECTS);
    until("the definition", 20, || kubectl.answer(&["apply", "-f", "-"], BOAT).ok.then_some(()));
    until("the pods", 30, || {
        (kubectl.ok(&["get", "pods", "-n", "shop", "-o", "name"]).lines().count() == 3).then_some(())
    });
    let before = settled(&kubectl);
    assert!(before.contains_key("\"Boat\" shop/nutshell") && before.contains_key("\"Secret\" shop/password"));

    let file = place("backup");
    let said =
        mote_says(&["snapshot", "save", text(&file), "--data-dir", text(&first.data())]).expect("save while it runs");
    assert!(said.contains("apps/deployments"), "{said}");
    kubectl.ok(&["create", "configmap", "too-late", "-n", "shop"]);
    first.end(Signal::SIGKILL);
    let verified = mote_says(&["snapshot", "verify", text(&file)]).expect("verify");
    assert_eq!(verified, said);

    // Into a folder.
    let mut second = Server::prepared(&place("second"), port, &[]);
    second.copy_pki(&first.data());
    mote_says(&["snapshot", "restore", text(&file), "--data-dir", text(&second.data())]).expect("restore");
    let again = mote_says(&["snapshot", "restore", text(&file), "--data-dir", text(&second.data())]).unwrap_err();
    assert!(again.contains("holds a store already"), "{again}");
    second.start();
    assert_same(&settled(&second.kubectl()), &before, "restored into a folder");
    second.end(Signal::SIGTERM);

    // Into etcd.
    let etcd = Etcd::up(&place("etcd"), slot.port(1), slot.port(2));
    let of_etcd = ["--etcd-servers", etcd.url.as_str()];
    let mut third = Server::prepared(&place("third"), port, &of_etcd);
    third.copy_pki(&first.data());
    let data = third.data();
    let restore = ["snapshot", "restore", text(&file), "--data-dir", text(&data), of_etcd[0], of_etcd[1]];
    mote_says(&restore).expect("restore into etcd");
    let again = mote_says(&restore).unwrap_err();
    assert!(again.contains("is under /registry already"), "{again}");
    third.start();
    let (now, before) = (bare(settled(&third.kubectl())), bare(before));
    assert_same(&now, &before, "restored into etcd");

    // And back, while that server runs.
    let back = place("back");
    mote_says(&["snapshot", "save", text(&back), of_etcd[0], of_etcd[1]]).expect("save from etcd");
    third.end(Signal::SIGTERM);
    let mut fourth = Server::prepared(&place("fourth"), port, &[]);
    fourth.copy_pki(&first.data());
    mote_says(&["snapshot", "restore", text(&back), "--data-dir", text(&fourth.data())]).expect("restore");
    fourth.start();
    assert_same(&bare(settled(&fourth.kubectl())), &before, "back from etcd");
    fourth.end(Signal::SIGTERM);

    // A byte of it, anywhere, is not what it was.
    let mut bytes = fs::read(&file).expect("backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("backup");
    let bent = mote_says(&["snapshot", "verify", text(&file)]).unwrap_err();
    assert!(bent.contains("damaged at byte"), "{bent}");
}

/// A mount namespace with a small disk in it, for as long as it is held.
struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    fn at(at: &Path, kilobytes: u32) -> SmallDisk {
        let script = format!("mount -t tmpfs -o size={kilobytes}k small {} && echo && exec sleep 1000", at.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut line = [0];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut line).expect("mounted");
        SmallDisk { holder, at: at.to_owned() }
    }

    /// A file there, seen from here.
    fn path(&self, name: &str) -> PathBuf {
        let at = self.at.strip_prefix("/").expect("absolute");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(at).join(name)
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = fs::File::create(self.path("filler")).expect("filler");
        while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|n| n > 0) {}
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(mote());
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_makes_it_read_only_and_costs_nothing() {
    let (dir, slot) = (folder(), Slot::take());
    let mut server = Server::prepared(dir.path(), slot.port(0), &[]);
    let disk = SmallDisk::at(&server.data(), 12 << 10);
    server.start_by(disk.inside());
    let kubectl = server.kubectl();
    let mut made = Vec::new();
    let mut make = |kubectl: &Kubectl, name: &str| {
        let answer = kubectl.answer(&["create", "configmap", name, "--from-literal=a=b"], "");
        if answer.ok {
            made.push(format!("configmap/{name}"));
        }
        answer
    };
    assert!(make(&kubectl, "before").ok);
    settled(&kubectl);
    disk.fill();
    // What is left of the last page of the log takes one or another.
    let refused =
        (0..50).map(|n| make(&kubectl, &format!("full-{n}"))).find(|answer| !answer.ok).expect("no room at last");
    assert!(refused.stderr.contains("no space left on the disk of the store; reads go on"), "{}", refused.stderr);
    let again = make(&kubectl, "again");
    assert!(!again.ok && again.stderr.contains("no space left"), "{}", again.stderr);
    assert!(kubectl.ok(&["get", "configmaps", "-o", "name"]).contains("configmap/before"));
    assert!(kubectl.answer(&["get", "--raw", "/readyz"], "").ok, "it goes on");
    // Killed while it is full, and started with the little room that certificates of a start need.
    fs::remove_file(disk.path("filler")).expect("filler");
    assert!(make(&kubectl, "room-again").ok);
    disk.fill();
    server.end(Signal::SIGKILL);
    fs::remove_file(disk.path("filler")).expect("filler");
    server.start_by(disk.inside());
    assert!(make(&kubectl, "after").ok);
    let names = kubectl.ok(&["get", "configmaps", "-o", "name"]);
    let mut there: Vec<&str> = names.lines().filter(|name| *name != "configmap/kube-root-ca.crt").collect();
    there.sort_unstable();
    made.sort_unstable();
    assert_eq!(there, made, "all that was acknowledged, and nothing else");
    server.end(Signal::SIGTERM);
}

/// The holder of the Lease, and how often it went from one to another.
fn leader(kubectl: &Kubectl) -> Option<(String, u64)> {
    let answer = kubectl.answer(&["get", "lease", "kube-controller-manager", "-n", "kube-system", "-o", "json"], "");
    let lease: Value = serde_json::from_str(&answer.stdout).ok()?;
    let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
    Some((holder.to_owned(), lease["spec"]["leaseTransitions"].as_u64()?))
}

fn scale(kubectl: &Kubectl, to: usize, log: impl Fn() -> String) {
    kubectl.ok(&["scale", "deployment", "web", "-n", "shop", &format!("--replicas={to}")]);
    let pods = || kubectl.ok(&["get", "pods", "-n", "shop", "-o", "name"]).lines().count();
    assert!(eventually(60, || (pods() == to).then_some(())).is_some(), "{} of {to} pods\n{}", pods(), log());
}

#[test]
fn of_two_servers_on_one_etcd_one_leads() {
    let (dir, slot) = (folder(), Slot::take());
    let etcd = Etcd::up(&dir.path().join("etcd"), slot.port(2), slot.port(3));
    let more = ["--etcd-servers", etcd.url.as_str()];
    let first = Server::up(&dir.path().join("0"), slot.port(0), &more);
    let second = Server::prepared(&dir.path().join("1"), slot.port(1), &more);
    second.copy_pki(&first.data());
    let mut servers = [first, second];
    let kubectl = servers[0].kubectl();
    let at = |servers: &[Server; 2], holder: &str| servers.iter().position(|s| holder.starts_with(&s.address()));
    let (holder, _) = until("a leader", 30, || leader(&kubectl));
    assert_eq!(at(&servers, &holder), Some(0), "{holder}: nobody else was there");
    servers[1].start();
    kubectl.ok_with(&["apply", "-f", "-"], OBJECTS);
    scale(&kubectl, 2, || servers[0].log());
    let follows = |server: &Server| until("a follower", 20, || server.log().contains("wait here").then_some(()));
    follows(&servers[1]);
    assert!(!servers[1].log().contains("controllers start"), "{}", servers[1].log());

    // kill -9: the other one takes over by itself.
    servers[0].end(Signal::SIGKILL);
    let kubectl = servers[1].kubectl();
    scale(&kubectl, 4, || servers[1].log());
    let (holder, transitions) = leader(&kubectl).expect("a leader");
    assert_eq!((at(&servers, &holder), transitions), (Some(1), 1), "{holder}");

    // The first one comes back and waits; the leader is stopped for longer than its turn, then wakes up: it leads no more.
    servers[0].start();
    follows(&servers[0]);
    servers[1].signal(Signal::SIGSTOP);
    let kubectl = servers[0].kubectl();
    scale(&kubectl, 3, || servers[0].log());
    servers[1].signal(Signal::SIGCONT);
    until("the one that slept to stop", 20, || {
        servers[1].log().contains("controllers have stopped here").then_some(())
    });
    let (holder, transitions) = leader(&kubectl).expect("a leader");
    assert_eq!((at(&servers, &holder), transitions), (Some(0), 2), "{holder}");

    // Orderly: the Lease is given back.
    servers[0].end(Signal::SIGTERM);
    let kubectl = servers[1].kubectl();
    scale(&kubectl, 1, || servers[1].log());
    let (holder, transitions) = leader(&kubectl).expect("a leader");
    assert_eq!((at(&servers, &holder), transitions), (Some(1), 3), "{holder}");
    servers[1].end(Signal::SIGTERM);
}
