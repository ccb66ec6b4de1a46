//! `mote agent`: a node of another machine's control plane, or of none.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use super::options::{
    REGISTRY_HELP, Stop, block_on, check_image_gc, is_registry_flag, need_root, path, percent, registry_flag,
    signalled, stopped, value,
};
use crate::client::Client;
use crate::instance::{Instance, host_name};
use crate::join::{self, Files, Token};
use crate::net::Cidr;
use crate::run::{self, Start};
use crate::server::tls;

const HELP: &str = "\
mote agent: this machine as a node

usage: mote agent --server URL --token TOKEN [OPTIONS]     join a control plane (`mote token` there prints the token)
       mote agent --standalone --manifests DIR [OPTIONS]   run the pods of a folder, with no control plane

  --data-dir DIR           state of this node (default /var/lib/mote)
  --server URL             https://HOST:PORT of the Kubernetes API
  --token TOKEN            needed once; the node's own certificate is kept in DIR/agent
  --standalone             no control plane
  --manifests DIR          static pods: YAML and JSON files
  --node-name NAME         default: this machine's name
  --node-ip ADDR           default: the address of the default route's link
  --kubelet-port PORT      for logs (default 10250; any free one if it is taken)
  --cluster-cidr CIDR      addresses of pods, --standalone only (default 10.42.0.0/16)
  --service-cidr CIDR      addresses of Services, --standalone only (default 10.43.0.0/16)
  --cgroup-parent NAME     control group of all pods (default mote)
  --image-gc-high-threshold PERCENT  disk use at which unused images go (default 85)
  --image-gc-low-threshold PERCENT   disk use at which no more go (default 80)
";

const END: &str = "
Ctrl-C or SIGTERM ends the agent; containers go on. `mote down` ends them.
";

struct Options {
    data_dir: PathBuf,
    server: Option<String>,
    token: Option<Token>,
    standalone: bool,
    manifests: Option<PathBuf>,
    node_name: String,
    node_ip: Option<Ipv4Addr>,
    kubelet_port: u16,
    cluster_cidr: Option<Cidr>,
    service_cidr: Option<Cidr>,
    cgroup_parent: String,
    image_gc: mote_images::GcPolicy,
    registries: mote_images::Registries,
}

fn read(parser: &mut lexopt::Parser) -> Result<Options, Stop> {
    let mut options = Options {
        data_dir: super::data_dir(),
        server: None,
        token: None,
        standalone: false,
        manifests: None,
        node_name: host_name(),
        node_ip: None,
        kubelet_port: 10250,
        cluster_cidr: None,
        service_cidr: None,
        cgroup_parent: "mote".into(),
        image_gc: mote_images::GcPolicy::default(),
        registries: mote_images::Registries::default(),
    };
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("data-dir") => options.data_dir = path(parser)?,
            lexopt::Arg::Long("server") => options.server = Some(value(parser, "--server")?),
            lexopt::Arg::Long("token") => options.token = Some(value(parser, "--token")?),
            lexopt::Arg::Long("standalone") => options.standalone = true,
            lexopt::Arg::Long("manifests") => options.manifests = Some(path(parser)?),
            lexopt::Arg::Long("node-name") => options.node_name = value(parser, "--node-name")?,
            lexopt::Arg::Long("node-ip") => options.node_ip = Some(value(parser, "--node-ip")?),
            lexopt::Arg::Long("kubelet-port") => options.kubelet_port = value(parser, "--kubelet-port")?,
            lexopt::Arg::Long("cluster-cidr") => options.cluster_cidr = Some(value(parser, "--cluster-cidr")?),
            lexopt::Arg::Long("service-cidr") => options.service_cidr = Some(value(parser, "--service-cidr")?),
            lexopt::Arg::Long("cgroup-parent") => options.cgroup_parent = value(parser, "--cgroup-parent")?,
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
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Err(Stop::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    if options.standalone == options.server.is_some() {
        return Err(Stop::Usage("either --server URL or --standalone is needed".into()));
    }
    if options.standalone && options.manifests.is_none() {
        return Err(Stop::Usage("--standalone needs --manifests DIR".into()));
    }
    if options.server.is_some() && (options.cluster_cidr.is_some() || options.service_cidr.is_some()) {
        return Err(Stop::Usage(
            "--cluster-cidr and --service-cidr are the control plane's to say: give them to it".into(),
        ));
    }
    if !super::sane_group(&options.cgroup_parent) {
        return Err(Stop::Usage(format!(
            "--cgroup-parent {:?}: not a relative path of a control group",
            options.cgroup_parent
        )));
    }
    mote_api::meta::dns_subdomain(&options.node_name)
        .map_err(|why| Stop::Usage(format!("--node-name {:?}: {why}", options.node_name)))?;
    check_image_gc(&options.image_gc)?;
    Ok(options)
}

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match read(&mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{HELP}{REGISTRY_HELP}{END}")),
    };
    crate::logger::start(log::LevelFilter::Info);
    let done = need_root("mote agent").and_then(|()| Instance::open(&options.data_dir)).and_then(|instance| {
        let _lock = instance.lock_or_say()?;
        block_on(agent(options, &instance))?
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

async fn agent(options: Options, instance: &Instance) -> Result<(), String> {
    let stop = signalled();
    tokio::pin!(stop);
    let range = |chosen: Option<Cidr>, second| chosen.unwrap_or(Cidr::new(Ipv4Addr::new(10, second, 0, 0), 16));
    let mut ranges = (range(options.cluster_cidr, 42), range(options.service_cidr, 43));
    let mut client = None;
    let mut kubelet = None;
    let node_ip = match options.node_ip {
        Some(ip) => Some(ip),
        None => crate::net::node_address().map_err(|e| format!("find the node's address: {e}"))?,
    };
    if let Some(server) = &options.server {
        let ip = node_ip.unwrap_or(Ipv4Addr::LOCALHOST).to_string();
        let connector = join::connector(&instance.data, server, options.token.as_ref(), &options.node_name, &ip);
        let connector = tokio::select! {
            connector = connector => connector.map_err(|why| format!("join {server}: {why}"))?,
            () = &mut stop => return Ok(()),
        };
        let joined = Rc::new(Client::new(connector));
        ranges = tokio::select! {
            ranges = join::ranges(&instance.data, &joined) => ranges,
            () = &mut stop => return Ok(()),
        };
        client = Some(joined);
        let files = Files::new(&instance.data);
        let acceptor = tls::acceptor(files.ca()?, files.identity("kubelet")?)?;
        kubelet = Some((tls::bind(options.kubelet_port).await?, acceptor));
    }
    let running = run::start(Start {
        instance,
        node_name: options.node_name.clone(),
        cgroup_parent: options.cgroup_parent,
        cluster_cidr: ranges.0,
        service_cidr: ranges.1,
        domain: "cluster.local".into(),
        client,
        manifests: options.manifests.clone(),
        node_ip,
        kubelet_port: kubelet.as_ref().map_or(0, |((_, port), _)| *port),
        image_gc: options.image_gc,
        registries: options.registries.completed(&instance.data),
    })
    .await?;
    println!("node             {}", options.node_name);
    println!("data             {}", instance.data.display());
    match &options.server {
        Some(server) => println!("control plane    {server}"),
        None => println!(
            "no control plane; static pods of {}",
            options.manifests.as_deref().unwrap_or(&instance.data).display()
        ),
    }
    if let Some(((listener, port), acceptor)) = kubelet {
        println!("kubelet port     {port}");
        tokio::task::spawn_local(tls::serve(running.agent.clone(), listener, acceptor));
    }
    stop.await;
    running.agent.closing.set(true);
    println!(
        "\nthe agent has ended; its containers go on (`mote down --data-dir {}` ends them)",
        instance.data.display()
    );
    Ok(())
}
