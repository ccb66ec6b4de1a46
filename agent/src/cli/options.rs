//! What `mote up`, `mote server` and `mote agent` may be told: one table, each row with the commands that take it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mote_images::{GcPolicy, Registries};

use super::flags::{self, Flag, Given, Stop, put};
use super::registries;
use super::storage::{self, Storage};
use crate::instance::host_name;
use crate::join::Token;
use crate::net::Cidr;

/// A long-running command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// Control plane and node.
    Up,
    /// The control plane alone.
    Server,
    /// The node alone.
    Agent,
}
use Command::{Agent, Server, Up};

/// What was said, and the defaults of what was not.
pub(super) struct Options {
    pub(super) data_dir: PathBuf,
    pub(super) cluster_cidr: Cidr,
    pub(super) service_cidr: Cidr,
    pub(super) control_plane: ControlPlane,
    pub(super) node: Node,
    pub(super) join: Join,
    pub(super) apply: Vec<PathBuf>,
    pub(super) demo: bool,
    /// Address ranges were chosen here.
    ranges: bool,
}

/// Of the control plane: `up` and `server`. What is `None` is as upstream has it.
pub(super) struct ControlPlane {
    pub(super) listen: SocketAddr,
    pub(super) advertise: Option<IpAddr>,
    pub(super) kubeconfig: Option<PathBuf>,
    grace_seconds: Option<u32>,
    not_ready_seconds: Option<u32>,
    unreachable_seconds: Option<u32>,
    connections_max: Option<usize>,
    storage: Storage,
}

/// Of the node: `up` and `agent`.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) cgroup_parent: String,
    pub(super) manifests: Option<PathBuf>,
    pub(super) image_gc: GcPolicy,
    pub(super) image_gc_every: Duration,
    pub(super) registries: Registries,
}

/// Whose node it is: `agent`.
pub(super) struct Join {
    pub(super) server: Option<String>,
    pub(super) token: Option<Token>,
    pub(super) standalone: bool,
    pub(super) kubelet_port: u16,
}

type Row = (&'static [Command], Flag<Options>);

const fn row(
    of: &'static [Command],
    name: &'static str,
    value: &'static str,
    about: &'static str,
    set: fn(&mut Options, Given) -> Result<(), String>,
) -> Row {
    (of, Flag { name, value, about, set })
}

/// The row of one of the registries' flags.
#[allow(clippy::indexing_slicing)] // at compile time
const fn registry(at: usize, set: fn(&mut Options, Given) -> Result<(), String>) -> Row {
    let Flag { name, value, about, .. } = registries::FLAGS[at];
    row(&[Up, Agent], name, value, about, set)
}

/// The row of one of the flags of where the state is kept.
#[allow(clippy::indexing_slicing)] // at compile time
const fn storage(at: usize, set: fn(&mut Options, Given) -> Result<(), String>) -> Row {
    let Flag { name, value, about, .. } = storage::FLAGS[at];
    row(&[Up, Server], name, value, about, set)
}

/// A share of a disk.
fn percent(given: &Given) -> Result<u8, String> {
    match given.parse()? {
        share @ 1..=100 => Ok(share),
        _ => Err("want 1 to 100".into()),
    }
}

/// Names, texts and effects of all flags. Those of the control plane's patience are named as upstream's.
static FLAGS: &[Row] = &[
    row(&[Up, Server, Agent], "data-dir", "DIR", "state of this instance (default /var/lib/mote)", |o, v| {
        put(&mut o.data_dir, v.path())
    }),
    row(&[Agent], "server", "URL", "https://HOST:PORT of the Kubernetes API", |o, v| {
        v.parse().map(|url| o.join.server = Some(url))
    }),
    row(&[Agent], "token", "TOKEN", "needed once; the node's own certificate is kept in DIR/agent", |o, v| {
        v.parse().map(|token| o.join.token = Some(token))
    }),
    row(&[Agent], "standalone", "", "no control plane", |o, _| put(&mut o.join.standalone, true)),
    row(&[Up], "listen", "ADDR:PORT", "the Kubernetes API (default 127.0.0.1:6443)", |o, v| {
        v.parse().map(|at| o.control_plane.listen = at)
    }),
    row(&[Server], "listen", "ADDR:PORT", "the Kubernetes API (default 0.0.0.0:6443)", |o, v| {
        v.parse().map(|at| o.control_plane.listen = at)
    }),
    row(
        &[Up, Server],
        "advertise",
        "ADDR",
        "the address nodes reach it at (default: --listen's; for 0.0.0.0 the node's)",
        |o, v| v.parse().map(|ip| o.control_plane.advertise = Some(ip)),
    ),
    row(
        &[Up, Server],
        "write-kubeconfig",
        "FILE",
        "write the kubeconfig there as well as to DIR/kubeconfig",
        |o, v| put(&mut o.control_plane.kubeconfig, Some(v.path())),
    ),
    row(&[Up, Agent], "node-name", "NAME", "default: this machine's name", |o, v| {
        let name: String = v.parse()?;
        mote_api::meta::dns_subdomain(&name).map_err(|why| why.to_string())?;
        o.node.name = name;
        Ok(())
    }),
    row(&[Up, Agent], "node-ip", "ADDR", "default: the address of the default route's link", |o, v| {
        v.parse().map(|ip| o.node.ip = Some(ip))
    }),
    row(&[Agent], "kubelet-port", "PORT", "for logs (default 10250; any free one if it is taken)", |o, v| {
        v.parse().map(|port| o.join.kubelet_port = port)
    }),
    row(&[Up, Server], "cluster-cidr", "CIDR", "addresses of pods (default 10.42.0.0/16)", |o, v| {
        v.parse().map(|range| o.cluster_cidr = range)
    }),
    row(&[Up, Server], "service-cidr", "CIDR", "addresses of Services (default 10.43.0.0/16)", |o, v| {
        v.parse().map(|range| o.service_cidr = range)
    }),
    row(&[Agent], "cluster-cidr", "CIDR", "addresses of pods, --standalone only (default 10.42.0.0/16)", |o, v| {
        o.ranges = true;
        v.parse().map(|range| o.cluster_cidr = range)
    }),
    row(&[Agent], "service-cidr", "CIDR", "addresses of Services, --standalone only (default 10.43.0.0/16)", |o, v| {
        o.ranges = true;
        v.parse().map(|range| o.service_cidr = range)
    }),
    row(&[Up, Agent], "cgroup-parent", "NAME", "control group of all pods (default mote)", |o, v| {
        o.node.cgroup_parent = v.parse()?;
        let sane = super::sane_group(&o.node.cgroup_parent);
        if sane { Ok(()) } else { Err("not a relative path of a control group".into()) }
    }),
    row(&[Up, Agent], "manifests", "DIR", "static pods: YAML and JSON files", |o, v| {
        put(&mut o.node.manifests, Some(v.path()))
    }),
    row(&[Up], "apply", "FILE", "apply it when the API is ready (may be repeated)", |o, v| {
        o.apply.push(v.path());
        Ok(())
    }),
    row(
        &[Up, Agent],
        "image-gc-high-threshold",
        "PERCENT",
        "disk use at which unused images go (default 85)",
        |o, v| percent(&v).map(|share| o.node.image_gc.high_percent = share),
    ),
    row(&[Up, Agent], "image-gc-low-threshold", "PERCENT", "disk use at which no more go (default 80)", |o, v| {
        percent(&v).map(|share| o.node.image_gc.low_percent = share)
    }),
    row(&[Up, Agent], "image-gc-minimum-age", "SECONDS", "younger images stay (default 120)", |o, v| {
        v.parse().map(|seconds| o.node.image_gc.age_min = Duration::from_secs(seconds))
    }),
    row(&[Up, Agent], "image-gc-period", "SECONDS", "between two looks at the disk (default 300)", |o, v| {
        v.parse().map(|seconds: u64| o.node.image_gc_every = Duration::from_secs(seconds.max(1)))
    }),
    registry(0, |o, v| (registries::FLAGS[0].set)(&mut o.node.registries, v)),
    registry(1, |o, v| (registries::FLAGS[1].set)(&mut o.node.registries, v)),
    registry(2, |o, v| (registries::FLAGS[2].set)(&mut o.node.registries, v)),
    registry(3, |o, v| (registries::FLAGS[3].set)(&mut o.node.registries, v)),
    registry(4, |o, v| (registries::FLAGS[4].set)(&mut o.node.registries, v)),
    row(&[Up], "demo", "", "a hello page from an image made of this executable; Ctrl-C removes everything", |o, _| {
        put(&mut o.demo, true)
    }),
    row(
        &[Up, Server],
        "node-monitor-grace-period",
        "SECONDS",
        "a node silent for so long is NotReady (default 40; it speaks every 10)",
        |o, v| v.parse().map(|n| o.control_plane.grace_seconds = Some(n)),
    ),
    row(
        &[Up, Server],
        "default-not-ready-toleration-seconds",
        "SECONDS",
        "how long pods stay on a node that is not ready (default 300)",
        |o, v| v.parse().map(|n| o.control_plane.not_ready_seconds = Some(n)),
    ),
    row(
        &[Up, Server],
        "default-unreachable-toleration-seconds",
        "SECONDS",
        "how long pods stay on a node that is silent (default 300)",
        |o, v| v.parse().map(|n| o.control_plane.unreachable_seconds = Some(n)),
    ),
    row(
        &[Up, Server],
        "max-connections",
        "N",
        "to the Kubernetes API at once, three quarters of them of one address (default 2048)",
        |o, v| match v.parse()? {
            0..16 => Err("want 16 or more".into()),
            n => put(&mut o.control_plane.connections_max, Some(n)),
        },
    ),
    storage(0, |o, v| (storage::FLAGS[0].set)(&mut o.control_plane.storage, v)),
    storage(1, |o, v| (storage::FLAGS[1].set)(&mut o.control_plane.storage, v)),
    storage(2, |o, v| (storage::FLAGS[2].set)(&mut o.control_plane.storage, v)),
    storage(3, |o, v| (storage::FLAGS[3].set)(&mut o.control_plane.storage, v)),
    storage(4, |o, v| (storage::FLAGS[4].set)(&mut o.control_plane.storage, v)),
    storage(5, |o, v| (storage::FLAGS[5].set)(&mut o.control_plane.storage, v)),
    storage(6, |o, v| (storage::FLAGS[6].set)(&mut o.control_plane.storage, v)),
    storage(7, |o, v| (storage::FLAGS[7].set)(&mut o.control_plane.storage, v)),
    storage(8, |o, v| (storage::FLAGS[8].set)(&mut o.control_plane.storage, v)),
];

fn flags(command: Command) -> Vec<&'static Flag<Options>> {
    FLAGS.iter().filter(|(of, _)| of.contains(&command)).map(|(_, flag)| flag).collect()
}

/// The lines of the command's `--help` that tell its flags.
pub(super) fn help(command: Command) -> String {
    flags::lines(&flags(command))
}

impl Options {
    fn new(command: Command) -> Options {
        let ip = if command == Server { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        Options {
            data_dir: super::data_dir(),
            cluster_cidr: Cidr::new(Ipv4Addr::new(10, 42, 0, 0), 16),
            service_cidr: Cidr::new(Ipv4Addr::new(10, 43, 0, 0), 16),
            control_plane: ControlPlane {
                listen: SocketAddr::new(ip.into(), 6443),
                advertise: None,
                kubeconfig: None,
                grace_seconds: None,
                not_ready_seconds: None,
                unreachable_seconds: None,
                connections_max: None,
                storage: Storage::default(),
            },
            node: Node {
                name: host_name(),
                ip: None,
                cgroup_parent: "mote".into(),
                manifests: None,
                image_gc: GcPolicy::default(),
                image_gc_every: crate::image_gc::EVERY,
                registries: Registries::default(),
            },
            join: Join { server: None, token: None, standalone: false, kubelet_port: 10250 },
            apply: Vec::new(),
            demo: false,
            ranges: false,
        }
    }

    /// The command line of `command`, each value checked, and that they go together.
    pub(super) fn read(command: Command, parser: &mut lexopt::Parser) -> Result<Options, Stop> {
        let mut options = Options::new(command);
        flags::read(parser, &flags(command), &mut options)?;
        options.check(command).map_err(|why| Stop::Usage(why.into()))?;
        Ok(options)
    }

    fn check(&self, command: Command) -> Result<(), &'static str> {
        self.control_plane.storage.check()?;
        if self.cluster_cidr.contains(self.service_cidr.base()) || self.service_cidr.contains(self.cluster_cidr.base())
        {
            return Err("--cluster-cidr and --service-cidr overlap");
        }
        if self.node.image_gc.low_percent >= self.node.image_gc.high_percent {
            return Err("--image-gc-low-threshold must be below --image-gc-high-threshold");
        }
        if command != Agent {
            return Ok(());
        }
        match (self.join.standalone, &self.join.server) {
            (true, Some(_)) | (false, None) => Err("either --server URL or --standalone is needed"),
            (true, None) if self.node.manifests.is_none() => Err("--standalone needs --manifests DIR"),
            (false, Some(_)) if self.ranges => {
                Err("--cluster-cidr and --service-cidr are the control plane's to say: give them to it")
            }
            _ => Ok(()),
        }
    }

    /// How the control plane is to run. `data` is its folder.
    #[cfg(feature = "minicp")]
    pub(super) fn config(&self, data: PathBuf) -> Result<minicp::Config, String> {
        let chosen = &self.control_plane;
        let mut config = minicp::Config::new(data, chosen.listen);
        let range = |cidr: Cidr| cidr.to_string().parse().map_err(|e: minicp::config::CidrError| e.to_string());
        config.cluster_cidr = range(self.cluster_cidr)?;
        config.service_cidr = range(self.service_cidr)?;
        let seconds = |field: &mut i64, chosen: Option<u32>| *field = chosen.map_or(*field, i64::from);
        seconds(&mut config.node_grace_seconds, chosen.grace_seconds);
        seconds(&mut config.not_ready_seconds, chosen.not_ready_seconds);
        seconds(&mut config.unreachable_seconds, chosen.unreachable_seconds);
        config.connections_max = chosen.connections_max.unwrap_or(config.connections_max);
        (config.etcd, config.backup) = (chosen.storage.etcd(), chosen.storage.backups(&config.data_dir));
        if let Some(address) = chosen.advertise {
            config.advertise = address;
        } else if chosen.listen.ip().is_unspecified() {
            let found = crate::net::node_address().map_err(|e| format!("find this machine's address: {e}"));
            let known = self.node.ip.map_or_else(|| found, |ip| Ok(Some(ip)))?;
            config.advertise = known.map_or(config.advertise, IpAddr::V4);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: Command, args: &[&str]) -> Result<Options, String> {
        Options::read(command, &mut lexopt::Parser::from_args(args)).map_err(|stop| match stop {
            Stop::Help => "help".into(),
            Stop::Usage(why) => why,
        })
    }

    #[test]
    fn help_tells_the_defaults_there_are() {
        for (command, args) in [(Up, &[][..]), (Server, &[]), (Agent, &["--standalone", "--manifests", "m"])] {
            let (options, help) = (of(command, args).unwrap(), help(command));
            let mut defaults = vec![
                options.data_dir.display().to_string(),
                options.cluster_cidr.to_string(),
                options.service_cidr.to_string(),
            ];
            if command != Agent {
                defaults.push(options.control_plane.listen.to_string());
                let config = options.config(PathBuf::new()).unwrap();
                defaults.extend([config.node_grace_seconds, config.not_ready_seconds].map(|n| n.to_string()));
                defaults.push(config.connections_max.to_string());
            }
            if command != Server {
                defaults.push(options.node.cgroup_parent.clone());
            }
            for default in defaults {
                assert!(
                    help.contains(&format!("(default {default}")) || help.contains(&format!("(default {default})")),
                    "{command:?}: {default}\n{help}"
                );
            }
        }
    }

    #[test]
    fn a_command_takes_its_own_flags_only() {
        assert!(of(Up, &["--demo"]).unwrap().demo);
        assert_eq!(of(Server, &["--demo"]).err().unwrap(), "invalid option '--demo'");
        assert_eq!(of(Up, &["--server", "x"]).err().unwrap(), "invalid option '--server'");
        assert_eq!(of(Server, &[]).unwrap().control_plane.listen.to_string(), "0.0.0.0:6443");
        assert_eq!(of(Up, &[]).unwrap().control_plane.listen.to_string(), "127.0.0.1:6443");
    }

    #[test]
    fn wrong_values_are_told_in_one_line() {
        for (command, args, part) in [
            (Up, &["--listen", "nonsense"][..], "--listen \"nonsense\": "),
            (Server, &["--cluster-cidr", "10.0.0.0/99"], "--cluster-cidr \"10.0.0.0/99\": "),
            (Up, &["--node-name", "A_B"], "--node-name \"A_B\": "),
            (Agent, &["--cgroup-parent", "../x"], "--cgroup-parent \"../x\": not a relative path"),
            (Up, &["--cluster-cidr", "10.0.0.0/8"], "--cluster-cidr and --service-cidr overlap"),
            (Up, &["--service-cidr", "10.42.128.0/20"], "--cluster-cidr and --service-cidr overlap"),
            (Agent, &[], "either --server URL or --standalone"),
            (Agent, &["--standalone", "--server", "https://x:1"], "either --server URL or --standalone"),
            (Agent, &["--standalone"], "--standalone needs"),
            (
                Agent,
                &["--server", "https://x:1", "--cluster-cidr", "10.9.0.0/16"],
                "--cluster-cidr and --service-cidr are",
            ),
            (Server, &["--node-monitor-grace-period", "-1"], "--node-monitor-grace-period \"-1\": "),
            (Server, &["--max-connections", "15"], "--max-connections \"15\": want 16"),
        ] {
            let why = of(command, args).err().unwrap();
            assert!(why.starts_with(part) && !why.contains('\n'), "{args:?}: {why}");
        }
    }
}
