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
        cluster.start(0, &server);
        until("the server's kubeconfig", 15, || kubeconfig.exists().then_some(()));
        let data = cluster.machines[0].traces.data_dir.clone();
        let token = until("a join token", 10, || {
            let out = Command::new(mote()).args(["token", "--data-dir"]).arg(&data).output().expect("mote token");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.split_whitespace().find(|word| word.contains("@sha256:")).map(str::to_owned)
        });
        for index in 1..=agents {
            let data = cluster.machines[index].traces.data_dir.clone();
            let arguments = pack_arguments("busybox");
            let mut pack = vec!["image", "pack", "--data-dir", data.to_str().expect("UTF-8")];
            pack.extend(arguments.iter().map(String::as_str));
            pack.push(IMAGE);
            run(mote().to_str().expect("UTF-8"), &pack);
            let (name, parent) =
                (cluster.machines[index].name.clone(), cluster.machines[index].traces.cgroup_parent.clone());
            cluster.start(
                index,
                &[
                    "agent",
                    "--server",
                    "https://192.168.77.1:6443",
                    "--token",
                    &token,
                    "--node-name",
                    &name,
                    "--cgroup-parent",
                    &parent,
                    "--cluster-cidr",
                    &cluster_cidr,
                    "--service-cidr",
                    &service_cidr,
                ],
            );
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

    fn start(&mut self, index: usize, arguments: &[&str]) {
        let log = fs::File::create(self.dir.path().join(format!("{index}.log"))).expect("log");
        let machine = &mut self.machines[index];
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
            machine.traces.remove_by_force();
            let _ = Command::new("ip").args(["netns", "del", &machine.netns]).output();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
    }
}

/// `replicas` web servers spread over the nodes that leave a dead node after one second.
fn web(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      tolerations:\n      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}\n      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}\n      containers:\n      - name: main\n        image: {IMAGE}\n        imagePullPolicy: IfNotPresent\n        command: [httpd, -f, -p, '8080', -h, /www]\n        resources: {{requests: {{cpu: 50m}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

fn ready_on(pods: &[Value]) -> BTreeSet<String> {
    pods.iter()
        .filter(|pod| condition(pod, "Ready"))
        .filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
        .collect()
}

fn fetch(cluster: &Cluster, index: usize, host: &str, port: u16) -> bool {
    let netns = cluster.netns(index);
    let out = Command::new("nsenter")
        .arg(format!("--net={}", netns.display()))
        .args(["curl", "-s", "--noproxy", "*", "-m", "3", &format!("http://{host}:{port}/")])
        .output()
        .expect("curl");
    String::from_utf8_lossy(&out.stdout).contains("busybox")
}

#[test]
fn two_agents_join_by_token_and_their_pods_reach_each_other() {
    let cluster = Cluster::up(2);
    cluster.kubectl().apply(&web(4));
    until("pods ready on both machines", 60, || {
        let pods = cluster.pods();
        (ready_on(&pods).len() == 2 && pods.iter().all(|pod| condition(pod, "Ready"))).then_some(())
    });
    for pod in cluster.pods() {
        let ip = pod["status"]["podIP"].as_str().expect("address").to_owned();
        for index in [1, 2] {
            until(&format!("machine {index} to reach pod {ip}"), 15, || {
                fetch(&cluster, index, &ip, 8080).then_some(())
            });
        }
        let name = pod["metadata"]["name"].as_str().expect("name");
        cluster.kubectl().ok(&["logs", name]); // the server asks the machine of the pod
    }
    let service = cluster.kubectl().object("service", "web").expect("service");
    let ip = service["spec"]["clusterIP"].as_str().expect("cluster IP").to_owned();
    for index in [1, 2] {
        until(&format!("machine {index} to reach the Service"), 15, || fetch(&cluster, index, &ip, 80).then_some(()));
    }
}

#[test]
fn a_dead_machine_turns_not_ready_and_its_pods_are_made_elsewhere() {
    let mut cluster = Cluster::up(2);
    cluster.kubectl().apply(&web(2));
    until("two pods ready", 60, || {
        (cluster.pods().iter().filter(|pod| condition(pod, "Ready")).count() == 2).then_some(())
    });
    cluster.kill(2);
    let dead = cluster.machines[2].name.clone();
    until("the dead machine to be NotReady", 90, || {
        cluster.kubectl().object("node", &dead).filter(|node| !condition(node, "Ready")).map(|_| ())
    });
    let alive = cluster.machines[1].name.clone();
    until("two pods ready on the other machine", 60, || {
        let pods = cluster.pods();
        let there = pods.iter().filter(|pod| condition(pod, "Ready") && pod["spec"]["nodeName"] == alive.as_str());
        (there.count() == 2).then_some(())
    });
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
    let wrong = format!("abcdef.0123456789abcdef@sha256:{}", "0".repeat(64));
    let (name, parent) = (cluster.machines[1].name.clone(), cluster.machines[1].traces.cgroup_parent.clone());
    cluster.start(
        1,
        &[
            "agent",
            "--server",
            "https://192.168.77.1:6443",
            "--token",
            &wrong,
            "--node-name",
            &name,
            "--cgroup-parent",
            &parent,
        ],
    );
    until("the agent to say what is wrong", 20, || {
        let log = cluster.log(1);
        (log.contains("certificate") || log.contains("sha256")).then_some(())
    });
    assert!(cluster.kubectl().objects("nodes", "").is_empty(), "nothing joined");
}
