//! `mote up`: control plane and node in one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use super::options::{
    Patience, REGISTRY_HELP, Stop, block_on, check_image_gc, is_registry_flag, need_root, path, percent, registry_flag,
    signalled, stopped, value,
};
use crate::agent::Agent;
use crate::client::{Client, Connector};
use crate::instance::{Instance, host_name, write_secret};
use crate::net::{self, Cidr};
use crate::run::{self, Running, Start};
use crate::{apply, demo};

/// How often to look for the pod network, which comes within a second of the first start.
const NETWORK_EVERY: Duration = Duration::from_millis(50);

const HELP: &str = "\
mote up: a whole Kubernetes in this process, its containers beside it

usage: mote up [OPTIONS]

  --data-dir DIR           state of this instance (default /var/lib/mote)
  --listen ADDR:PORT       the Kubernetes API (default 127.0.0.1:6443)
  --write-kubeconfig FILE  write the kubeconfig there as well as to DIR/kubeconfig
  --node-name NAME         default: this machine's name
  --node-ip ADDR           default: the address of the default route's link
  --cluster-cidr CIDR      addresses of pods (default 10.42.0.0/16)
  --service-cidr CIDR      addresses of Services (default 10.43.0.0/16)
  --cgroup-parent NAME     control group of all pods (default mote)
  --manifests DIR          static pods: YAML and JSON files
  --apply FILE             apply it when the API is ready (may be repeated)
  --image-gc-high-threshold PERCENT  disk use at which unused images go (default 85)
  --image-gc-low-threshold PERCENT   disk use at which no more go (default 80)
  --demo                   a hello page from an image made of this executable; Ctrl-C removes everything
";

const END: &str = "
Ctrl-C or SIGTERM ends control plane and agent; containers go on, and the next `mote up` finds them. `mote down` ends them.
";

struct Options {
    data_dir: PathBuf,
    listen: SocketAddr,
    kubeconfig: Option<PathBuf>,
    node_name: String,
    node_ip: Option<Ipv4Addr>,
    cluster_cidr: Cidr,
    service_cidr: Cidr,
    cgroup_parent: String,
    manifests: Option<PathBuf>,
    apply: Vec<PathBuf>,
    image_gc: mote_images::GcPolicy,
    registries: mote_images::Registries,
    demo: bool,
    patience: Patience,
}

impl Options {
    fn read(parser: &mut lexopt::Parser) -> Result<Options, Stop> {
        let mut options = Options {
            data_dir: super::data_dir(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443),
            kubeconfig: None,
            node_name: host_name(),
            node_ip: None,
            cluster_cidr: Cidr::new(Ipv4Addr::new(10, 42, 0, 0), 16),
            service_cidr: Cidr::new(Ipv4Addr::new(10, 43, 0, 0), 16),
            cgroup_parent: "mote".into(),
            manifests: None,
            apply: Vec::new(),
            image_gc: mote_images::GcPolicy::default(),
            registries: mote_images::Registries::default(),
            demo: false,
            patience: Patience::default(),
        };
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Long("data-dir") => options.data_dir = path(parser)?,
                lexopt::Arg::Long("listen") => options.listen = value(parser, "--listen")?,
                lexopt::Arg::Long("write-kubeconfig") => options.kubeconfig = Some(path(parser)?),
                lexopt::Arg::Long("node-name") => options.node_name = value(parser, "--node-name")?,
                lexopt::Arg::Long("node-ip") => options.node_ip = Some(value(parser, "--node-ip")?),
                lexopt::Arg::Long("cluster-cidr") => options.cluster_cidr = value(parser, "--cluster-cidr")?,
                lexopt::Arg::Long("service-cidr") => options.service_cidr = value(parser, "--service-cidr")?,
                lexopt::Arg::Long("cgroup-parent") => options.cgroup_parent = value(parser, "--cgroup-parent")?,
                lexopt::Arg::Long("manifests") => options.manifests = Some(path(parser)?),
                lexopt::Arg::Long("apply") => options.apply.push(path(parser)?),
                lexopt::Arg::Long("image-gc-high-threshold") => {
                    options.image_gc.high_percent = percent(parser, "--image-gc-high-threshold")?;
                }
                lexopt::Arg::Long("image-gc-low-threshold") => {
                    options.image_gc.low_percent = percent(parser, "--image-gc-low-threshold")?;
                }
                lexopt::Arg::Long(name) if is_registry_flag(name) => {
                    let name = name.to_owned();
                    registry_flag(&name, parser, &mut options.registries)?;
                }
                lexopt::Arg::Long("node-monitor-grace-period") => {
                    options.patience.grace = Some(value(parser, "--node-monitor-grace-period")?);
                }
                lexopt::Arg::Long("default-not-ready-toleration-seconds") => {
                    options.patience.not_ready = Some(value(parser, "--default-not-ready-toleration-seconds")?);
                }
                lexopt::Arg::Long("default-unreachable-toleration-seconds") => {
                    options.patience.unreachable = Some(value(parser, "--default-unreachable-toleration-seconds")?);
                }
                lexopt::Arg::Long("demo") => options.demo = true,
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Err(Stop::Help),
                other => return Err(other.unexpected().into()),
            }
        }
        mote_api::meta::dns_subdomain(&options.node_name)
            .map_err(|why| Stop::Usage(format!("--node-name {:?}: {why}", options.node_name)))?;
        if !super::sane_group(&options.cgroup_parent) {
            return Err(Stop::Usage(format!(
                "--cgroup-parent {:?}: not a relative path of a control group",
                options.cgroup_parent
            )));
        }
        check_image_gc(&options.image_gc)?;
        Ok(options)
    }
}

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match Options::read(&mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{HELP}{REGISTRY_HELP}{}{END}", Patience::HELP)),
    };
    crate::logger::start(log::LevelFilter::Info);
    let done = need_root("mote up").and_then(|()| Instance::open(&options.data_dir)).and_then(|instance| {
        let _lock = instance.lock_or_say()?;
        block_on(up(&options, &instance))?
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

async fn up(options: &Options, instance: &Instance) -> Result<(), String> {
    let stop = signalled();
    tokio::pin!(stop);
    let server = start_server(options, instance).await?;
    let kubeconfig = instance.data.join("kubeconfig");
    for file in options.kubeconfig.iter().chain([&kubeconfig]) {
        write_secret(file, &server.admin_kubeconfig())?;
    }
    write_secret(&instance.data.join("join-token"), &format!("{}\n", server.join_token()))?;
    let dial = {
        let (server, user) = (server.clone(), minicp::UserInfo::node(&options.node_name));
        Connector::Memory(Rc::new(move || server.connect(user.clone())))
    };
    let running = run::start(Start {
        instance,
        node_name: options.node_name.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        cluster_cidr: options.cluster_cidr,
        service_cidr: options.service_cidr,
        domain: "cluster.local".into(),
        client: Some(Rc::new(Client::new(dial))),
        manifests: options.manifests.clone(),
        node_ip: options.node_ip,
        kubelet_port: 0,
        image_gc: options.image_gc,
        registries: options.registries.clone().completed(&instance.data),
    })
    .await?;
    let agent = running.agent.clone();
    server.set_local_node(&options.node_name, Rc::new(move || crate::server::dial(&agent)));
    tokio::task::spawn_local(serve_pods(server.clone(), running.agent.clone()));
    let admin = {
        let server = server.clone();
        Client::new(Connector::Memory(Rc::new(move || server.connect(minicp::UserInfo::admin()))))
    };
    let config = options.kubeconfig.as_ref().unwrap_or(&kubeconfig);
    println!("Kubernetes API   {}", server.url());
    println!("kubeconfig       {}", config.display());
    println!("node             {}", options.node_name);
    println!("data             {}", instance.data.display());
    println!("\nTry:  export KUBECONFIG={}\n      kubectl get nodes\n", config.display());
    let ready = begin(options, &running, &admin, instance);
    let failed = tokio::select! {
        result = ready => {
            let failed = result.err();
            if let Some(why) = &failed {
                eprintln!("mote: {why}");
            }
            if failed.is_some() && options.demo {
                failed
            } else {
                (&mut stop).await;
                None
            }
        }
        () = &mut stop => None,
    };
    if options.demo {
        println!("\nremoving the demo");
        remove_demo(&running, &admin).await;
        running.agent.closing.set(true);
        log::set_max_level(log::LevelFilter::Error);
        server.stop().await;
        running.agent.keeper.leave();
        super::down::clear(instance, Duration::from_secs(5)).await?;
    } else {
        running.agent.closing.set(true);
        log::set_max_level(log::LevelFilter::Error); // watches that end are no news now
        let pods = running.agent.pods();
        server.stop().await;
        println!(
            "\ncontrol plane and agent have ended; {pods} pod{} go{} on",
            if pods == 1 { "" } else { "s" },
            if pods == 1 { "es" } else { "" }
        );
        println!(
            "`mote up` with the same --data-dir takes over again, `mote down --data-dir {}` ends the pods",
            instance.data.display()
        );
    }
    match failed {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

async fn start_server(options: &Options, instance: &Instance) -> Result<minicp::Server, String> {
    let mut config = minicp::Config::new(instance.data.clone(), options.listen);
    let convert = |cidr: Cidr| cidr.to_string().parse().map_err(|e: minicp::config::CidrError| e.to_string());
    config.cluster_cidr = convert(options.cluster_cidr)?;
    config.service_cidr = convert(options.service_cidr)?;
    options.patience.apply(&mut config);
    if options.listen.ip().is_unspecified() {
        let known = options.node_ip.or(net::node_address().map_err(|e| format!("find the node's address: {e}"))?);
        config.advertise = known.map_or(config.advertise, IpAddr::V4);
    }
    minicp::Server::start(config, Rc::new(minicp::SystemClock)).await.map_err(|e| format!("start control plane: {e}"))
}

/// A control plane on loopback alone is out of the pods' reach: as soon as there is a pod network, it answers at its gateway too.
async fn serve_pods(server: minicp::Server, agent: Rc<Agent>) {
    if !server.is_local() {
        return;
    }
    let mut network = agent.network.borrow().clone();
    while network.is_none() {
        tokio::time::sleep(NETWORK_EVERY).await;
        network = agent.network.borrow().clone();
    }
    let Some(gateway) = network.map(|network| network.gateway()) else { return };
    if let Err(error) = server.serve_pods_at(IpAddr::V4(gateway)).await {
        log::error!("{error}; pods do not reach the Kubernetes API");
    }
}

/// What is to happen once the node is there.
async fn begin(options: &Options, running: &Running, admin: &Client, instance: &Instance) -> Result<(), String> {
    running.registered.notified().await;
    let mut wrong = Vec::new();
    for file in &options.apply {
        wrong.extend(apply::file(admin, file).await);
    }
    if options.demo {
        let store = running.agent.images.clone();
        let exe = std::env::current_exe().map_err(|e| format!("find our own executable: {e}"))?;
        tokio::task::spawn_blocking(move || demo::pack(&store, &exe)).await.map_err(|e| e.to_string())??;
        let addresses = demo::run(admin).await?;
        println!(
            "\nThe demo is ready; open  {}\n(Ctrl-C removes it; data in {})",
            addresses.join("  or  "),
            instance.data.display()
        );
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\nmote: ")) }
}

/// Deletes the demo's objects, so that the next start does not bring them back.
async fn remove_demo(running: &Running, admin: &Client) {
    let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    for target in ["/apis/apps/v1/namespaces/default/deployments/hello", "/api/v1/namespaces/default/services/hello"] {
        if let Err(error) = admin.delete(target, &options).await {
            log::debug!("delete {target}: {error}");
        }
    }
    // The garbage collector takes the pods; a moment for it and for us, then `clear` takes the rest.
    let gone = async {
        while running.agent.pods() > 0 {
            running.agent.ended.notified().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), gone).await;
}
