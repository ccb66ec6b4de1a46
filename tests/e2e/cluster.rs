//! Three machines: network namespaces joined by a bridge, `mote server` in one and a `mote agent` in each of two others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::leftovers::Traces;
use crate::harness::node::condition;
use crate::harness::registry::pack_arguments;
use crate::harness::slot::Slot;
use crate::harness::{Kubectl, eventually, kubectl, machine, mote, run, top, until};

const IMAGE: &str = "local.test/busybox:1";

struct Machine {
    netns: String,
    name: String,
    traces: Traces,
    process: Option<Child>,
    /// Of the last start.
    arguments: Vec<String>,
}

struct Cluster {
    dir: tempfile::TempDir,
    slot: Slot,
    machines: Vec<Machine>, // the server first
}

impl Cluster {
    /// The namespaces and their links; nothing runs yet. The bridge is in the server's namespace.
    fn prepared(agents: usize) -> Cluster {
        let slot = Slot::take();
        let dir = tempfile::Builder::new().prefix("mote-e2e-").tempdir().expect("test folder");
        let tag = format!("me{}x{}", std::process::id() % 100_000, slot.number);
        let mut cluster = Cluster { dir, slot, machines: Vec::new() };
        for index in 0..=agents {
            let netns = format!("{tag}-{index}");
            let data = cluster.dir.path().join(index.to_string());
            fs::create_dir(&data).expect("data folder");
            run("ip", &["netns", "add", &netns]);
            let traces = Traces::of(&data, &format!("mote-e2e-{tag}-{index}"));
            cluster.machines.push(Machine {
                netns: netns.clone(),
                name: format!("machine-{index}"),
                traces,
                process: None,
                arguments: Vec::new(),
            });
            run("ip", &["-n", &netns, "link", "set", "lo", "up"]);
            let (server, link) = (cluster.machines[0].netns.clone(), format!("port{index}"));
            if index == 0 {
                run("ip", &["-n", &netns, "link", "add", "lan", "type", "bridge"]);
                run("ip", &["-n", &netns, "addr", "add", "192.168.77.1/24", "dev", "lan"]);
                run("ip", &["-n", &netns, "link", "set", "lan", "up"]);
            } else {
                run(
                    "ip",
                    &["-n", &server, "link", "add", &link, "type", "veth", "peer", "name", "uplink", "netns", &netns],
                );
                run("ip", &["-n", &server, "link", "set", &link, "master", "lan", "up"]);
                run("ip", &["-n", &netns, "addr", "add", &format!("192.168.77.{}/24", index + 1), "dev", "uplink"]);
                run("ip", &["-n", &netns, "link", "set", "uplink", "up"]);
                run("ip", &["-n", &netns, "route", "add", "default", "via", "192.168.77.1"]);
            }
        }
        cluster
    }

    /// Server and agents, all nodes Ready.
    fn up(agents: usize) -> Cluster {
        let mut cluster = Self::prepared(agents);
        run(top().join("images/fixtures/build").to_str().expect("UTF-8"), &[]);
        let (cluster_cidr, service_cidr) = (cluster.slot.cluster_cidr(), cluster.slot.service_cidr());
        let kubeconfig = cluster.kubeconfig();
        let mut server = vec![
            "server",
            "--listen",
            "192.168.77.1:6443",
            "--cluster-cidr",
            &cluster_cidr,
            "--service-cidr",
            &service_cidr,
        ];
        server.extend(["--write-kubeconfig", kubeconfig.to_str().expect("UTF-8")]);
        // A node speaks every 10 s.
        server.extend(["--node-monitor-grace-period", "15", "--default-unreachable-toleration-seconds", "1"]);
        cluster.start(0, &server);
        until("the server's kubeconfig", 15, || kubeconfig.exists().then_some(()));
        for index in 1..=agents {
            let data = cluster.machines[index].traces.data_dir.clone();
            let arguments = pack_arguments("busybox");
            let mut pack = vec!["image", "pack", "--data-dir", data.to_str().expect("UTF-8")];
            pack.extend(arguments.iter().map(String::as_str));
            pack.push(IMAGE);
            run(mote().to_str().expect("UTF-8"), &pack);
            let (name, token) = (cluster.machines[index].name.clone(), cluster.token());
            cluster.join(index, &name, &token);
        }
        for index in 1..=agents {
            let name = cluster.machines[index].name.clone();
            let ready =
                eventually(30, || cluster.kubectl().object("node", &name).filter(|node| condition(node, "Ready")));
            assert!(
                ready.is_some(),
                "{name} is not Ready\nserver said:\n{}\nagent said:\n{}",
                cluster.log(0),
                cluster.log(index)
            );
        }
        cluster
    }

    /// What `mote token` prints on the server.
    fn token(&self) -> String {
        let data = self.machines[0].traces.data_dir.clone();
        until("a join token", 10, || {
            let out = Command::new(mote()).args(["token", "--data-dir"]).arg(&data).output().expect("mote token");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.split_whitespace().find(|word| word.contains("@sha256:")).map(str::to_owned)
        })
    }

    /// `mote agent` on a machine.
    fn join(&mut self, index: usize, name: &str, token: &str) {
        let parent = self.machines[index].traces.cgroup_parent.clone();
        let mut arguments = vec!["agent", "--server", "https://192.168.77.1:6443", "--token", token];
        arguments.extend(["--node-name", name, "--cgroup-parent", &parent]);
        self.start(index, &arguments);
    }

    fn start(&mut self, index: usize, arguments: &[&str]) {
        let log = fs::File::create(self.dir.path().join(format!("{index}.log"))).expect("log");
        let machine = &mut self.machines[index];
        machine.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Not `ip netns exec`: it mounts another /sys, which hides the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", machine.netns)).arg(mote()).args(arguments);
        command
            .arg("--data-dir")
            .arg(&machine.traces.data_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        machine.process = Some(command.spawn().expect("start mote"));
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    fn log(&self, index: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("{index}.log"))).unwrap_or_default()
    }

    fn netns(&self, index: usize) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.machines[index].netns)
    }

    fn kubectl(&self) -> Kubectl {
        Kubectl::new(kubectl::NEWEST, &self.kubeconfig(), self.dir.path()).inside(&self.netns(0))
    }

    /// Power cut of one machine: agent, keeper and containers at once.
    fn kill(&mut self, index: usize) {
        self.machines[index].traces.remove_by_force();
        if let Some(mut process) = self.machines[index].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGKILL for mote alone; keeper and containers go on.
    fn crash(&mut self, index: usize) {
        let mut process = self.machines[index].process.take().expect("started");
        process.kill().expect("kill");
        process.wait().expect("wait");
    }

    /// Starts it again as it was.
    fn start_again(&mut self, index: usize) {
        let arguments = self.machines[index].arguments.clone();
        self.start(index, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Waits for what a machine says when it ends by itself.
    fn refusal(&mut self, index: usize) -> String {
        let process = self.machines[index].process.as_mut().expect("started");
        let status = until("the agent to give up", 20, || process.try_wait().expect("wait"));
        assert!(!status.success(), "joined:\n{}", self.log(index));
        self.log(index)
    }

    /// Process ids of the containers on a machine.
    fn containers(&self, index: usize) -> BTreeSet<i32> {
        let marker = format!("/{}/pod", self.machines[index].traces.cgroup_parent);
        machine::processes().iter().filter(|p| p.cgroups.contains(&marker)).map(|p| p.pid).collect()
    }

    /// Waits until every pod of the Deployment is ready, so many on each of these nodes.
    fn wait_spread(&self, wanted: &[(&str, usize)]) {
        let total: usize = wanted.iter().map(|(_, count)| count).sum();
        let spread = eventually(60, || {
            let pods = self.pods();
            let on =
                |node: &str| pods.iter().filter(|p| condition(p, "Ready") && p["spec"]["nodeName"] == node).count();
            (pods.len() == total && wanted.iter().all(|(node, count)| on(node) == *count)).then_some(())
        });
        assert!(spread.is_some(), "not {wanted:?}:\n{}", self.kubectl().ok(&["get", "pods,nodes", "-o", "wide"]));
    }

    /// Waits until so many pods are ready on this node, whatever is still said of others.
    fn wait_spread_elsewhere(&self, node: &str, count: usize) {
        let there = |p: &&Value| condition(p, "Ready") && p["spec"]["nodeName"] == node;
        let done = eventually(60, || (self.pods().iter().filter(there).count() == count).then_some(()));
        assert!(done.is_some(), "not {count} on {node}:\n{}", self.kubectl().ok(&["get", "pods,nodes", "-o", "wide"]));
    }

    fn wait_node(&self, name: &str, ready: bool, limit_s: u64) {
        until(&format!("{name} to be {}", if ready { "Ready" } else { "NotReady" }), limit_s, || {
            self.kubectl().object("node", name).filter(|node| condition(node, "Ready") == ready).map(|_| ())
        });
    }

    fn pods(&self) -> Vec<Value> {
        self.kubectl().objects("pods", "app=web")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for machine in self.machines.iter_mut().rev() {
            let mut down = Command::new("nsenter");
            down.arg(format!("--net=/run/netns/{}", machine.netns))
                .arg(mote())
                .args(["down", "--data-dir"])
                .arg(&machine.traces.data_dir);
            let _ = down.output();
            if let Some(mut process) = machine.process.take() {
                machine::signal(process.id().cast_signed(), Signal::SIGTERM);
                if eventually(10, || process.try_wait().expect("wait")).is_none() {
                    left.push(format!("{} did not end", machine.name));
                    let _ = process.kill();
                    let _ = process.wait();
                }
            }
            left.extend(machine.traces.all());
            left.extend(left_inside(&machine.netns));
            machine.traces.remove_by_force();
            let _ = Command::new("ip").args(["netns", "del", &machine.netns]).output();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
    }
}

/// What mote made in a namespace and did not take away: links, routes, tables.
fn left_inside(netns: &str) -> Vec<String> {
    let inside = |program: &str, args: &[&str]| {
        let out = Command::new("nsenter").arg(format!("--net=/run/netns/{netns}")).arg(program).args(args).output();
        String::from_utf8_lossy(&out.expect("nsenter").stdout).into_owned()
    };
    let links = inside("ip", &["-br", "link"]);
    let links = links.lines().filter(|line| line.starts_with("mote") || line.starts_with("mv")).map(str::to_owned);
    let (routes, tables) = (inside("ip", &["route", "show", "proto", "109"]), inside("nft", &["list", "tables"]));
    let rest = routes.lines().chain(tables.lines()).map(str::to_owned);
    links.chain(rest).map(|what| format!("in {netns}: {what}")).collect()
}

/// `replicas` web servers and their Service.
fn web(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: {IMAGE}\n        imagePullPolicy: IfNotPresent\n        command: [httpd, -f, -vv, -p, '8080', -h, /www]\n        resources: {{requests: {{cpu: 50m}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

/// Whether the web page comes, asked for from inside `netns` (a namespace's file).
fn fetch(netns: &str, host: &str, port: u16) -> bool {
    let url = format!("http://{host}:{port}/");
    let out = Command::new("nsenter")
        .arg(format!("--net={netns}"))
        .args(["curl", "-s", "--noproxy", "*", "-m", "3", &url])
        .output()
        .expect("curl");
    String::from_utf8_lossy(&out.stdout).contains("busybox")
}

#[test]
fn two_agents_join_by_token_and_their_pods_reach_each_other() {
    let mut cluster = Cluster::up(2);
    cluster.kubectl().apply(&web(4));
    cluster.wait_spread(&[("machine-1", 2), ("machine-2", 2)]);
    let service = cluster.kubectl().object("service", "web").expect("service");
    let service = service["spec"]["clusterIP"].as_str().expect("cluster IP").to_owned();
    let pods: BTreeSet<i32> = [1, 2].into_iter().flat_map(|index| cluster.containers(index)).collect();
    assert_eq!(pods.len(), 4, "one process each");
    let nodes = [1, 2].map(|index| cluster.netns(index).display().to_string());
    let everywhere: Vec<String> =
        nodes.into_iter().chain(pods.iter().map(|pid| format!("/proc/{pid}/ns/net"))).collect();
    let addresses: Vec<String> =
        cluster.pods().iter().map(|pod| pod["status"]["podIP"].as_str().expect("address").to_owned()).collect();
    for netns in &everywhere {
        for ip in &addresses {
            until(&format!("{netns} to reach pod {ip}"), 15, || fetch(netns, ip, 8080).then_some(()));
        }
        until(&format!("{netns} to reach the Service"), 15, || fetch(netns, &service, 80).then_some(()));
    }
    // Each pod was asked by every pod under that one's own address: nothing is translated on the way.
    for pod in cluster.pods() {
        let log = cluster.kubectl().ok(&["logs", pod["metadata"]["name"].as_str().expect("name")]);
        for ip in &addresses {
            assert!(log.contains(&format!("{ip}]:")), "{ip} is not in the log:\n{log}");
        }
    }
    for pid in &pods {
        let inside = ["-a", "-t", &pid.to_string(), "busybox"].map(str::to_owned);
        let page = |host: &str| {
            let out = Command::new("nsenter").args(&inside).args(["wget", "-q", "-O", "-", host]).output();
            String::from_utf8_lossy(&out.expect("nsenter").stdout).contains("busybox")
        };
        until("the Service's name in a pod", 15, || page("http://web.default/").then_some(()));
    }
    let taken = cluster.token();
    cluster.crash(2); // its name stays taken: for the control plane it lives
    let own = cluster.machines[2].arguments.clone();
    let joined = cluster.machines[2].traces.data_dir.join("agent");
    let aside = cluster.dir.path().join("aside");
    fs::rename(&joined, &aside).expect("hide the identity");
    cluster.join(2, "machine-1", &taken);
    let said = cluster.refusal(2);
    assert!(said.contains("another machine has that name"), "{said}");
    fs::remove_dir_all(&joined).expect("remove");
    fs::rename(&aside, &joined).expect("put the identity back");
    cluster.machines[2].arguments = own;
    cluster.start_again(2);
    cluster.wait_spread(&[("machine-1", 2), ("machine-2", 2)]);
}

#[test]
fn a_dead_machine_turns_not_ready_and_its_pods_are_made_elsewhere() {
    let mut cluster = Cluster::up(2);
    cluster.kubectl().apply(&web(4));
    cluster.wait_spread(&[("machine-1", 2), ("machine-2", 2)]);
    cluster.kill(2);
    cluster.wait_node("machine-2", false, 40);
    cluster.wait_spread_elsewhere("machine-1", 4);
}

#[test]
fn whatever_of_mote_is_killed_the_containers_go_on_until_their_pods_are_deleted() {
    let mut cluster = Cluster::up(2);
    cluster.kubectl().apply(&web(4));
    cluster.wait_spread(&[("machine-1", 2), ("machine-2", 2)]);
    let before = [cluster.containers(1), cluster.containers(2)];
    cluster.crash(0);
    cluster.start_again(0);
    until("the server to answer again", 15, || cluster.kubectl().answer(&["get", "nodes"], "").ok.then_some(()));
    cluster.kubectl().ok(&["scale", "deployment", "web", "--replicas", "6"]);
    cluster.wait_spread(&[("machine-1", 3), ("machine-2", 3)]);
    for (index, old) in [1, 2].into_iter().zip(&before) {
        assert!(cluster.containers(index).is_superset(old), "containers were restarted on machine {index}");
    }
    cluster.crash(2);
    cluster.wait_node("machine-2", false, 40);
    cluster.wait_spread_elsewhere("machine-1", 6);
    assert_eq!(cluster.containers(2).len(), 3, "nobody is there to stop them");
    cluster.start_again(2);
    cluster.wait_node("machine-2", true, 15);
    until("the pods deleted meanwhile to end", 20, || {
        (cluster.containers(2).is_empty() && cluster.pods().len() == 6).then_some(())
    });
    assert_eq!(cluster.machines[2].traces.of_pods(), Vec::<String>::new());
}

#[test]
fn a_wrong_token_or_a_wrong_certificate_hash_is_refused_in_plain_words() {
    let mut cluster = Cluster::prepared(1);
    let kubeconfig = cluster.kubeconfig();
    cluster.start(
        0,
        &["server", "--listen", "192.168.77.1:6443", "--write-kubeconfig", kubeconfig.to_str().expect("UTF-8")],
    );
    until("the server's kubeconfig", 15, || kubeconfig.exists().then_some(()));
    let token = cluster.token();
    let (bearer, pin) = token.split_once("@sha256:").expect("a token with a hash");
    let rows = [
        (format!("abcdef.0123456789abcdef@sha256:{pin}"), "does not know this token"),
        (format!("{bearer}@sha256:{}", "0".repeat(64)), "CA certificate is not the one whose sha256 the token names"),
        (bearer.to_owned(), "--token"),
    ];
    for (wrong, words) in rows {
        cluster.join(1, "machine-1", &wrong);
        let said = cluster.refusal(1);
        assert!(said.contains(words), "{wrong}: {said}");
    }
    assert!(cluster.kubectl().objects("nodes", "").is_empty(), "nothing joined");
}
