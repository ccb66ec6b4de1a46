//! `mote up`: control plane and node in one process.

use std::net::IpAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use super::flags::stopped;
use super::options::{Command, Options, help};
use super::process::{block_on, need_root, signalled};
use crate::agent::Agent;
use crate::client::{Client, Connector};
use crate::instance::{Instance, write_secret};
use crate::run::{self, Running, Start};
use crate::{apply, demo};

/// How often to look for the pod network, which comes within a second of the first start.
const NETWORK_EVERY: Duration = Duration::from_millis(50);

const USAGE: &str = "\
mote up: a whole Kubernetes in this process, its containers beside it

usage: mote up [OPTIONS]

";

const END: &str = "
Ctrl-C or SIGTERM ends control plane and agent; containers go on, and the next `mote up` finds them. `mote down` ends them.
";

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match Options::read(Command::Up, &mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{USAGE}{}{END}", help(Command::Up))),
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
    for file in options.control_plane.kubeconfig.iter().chain([&kubeconfig]) {
        write_secret(file, &server.admin_kubeconfig())?;
    }
    write_secret(&instance.data.join("join-token"), &format!("{}\n", server.join_token()))?;
    let running = start_node(options, instance, &server).await?;
    let admin = within(&server, minicp::UserInfo::admin());
    let config = options.control_plane.kubeconfig.as_ref().unwrap_or(&kubeconfig);
    say!("Kubernetes API   {}", server.url());
    say!("kubeconfig       {}", config.display());
    say!("node             {}", options.node.name);
    say!("data             {}", instance.data.display());
    say!("\nTry:  export KUBECONFIG={}\n      kubectl get nodes\n", config.display());
    let mut failed = None;
    tokio::select! {
        result = begin(options, &running, &admin, instance) => {
            if let Err(why) = result {
                complain!("mote: {why}");
                failed = Some(why).filter(|_| options.demo);
            }
            if failed.is_none() {
                (&mut stop).await;
            }
        }
        () = &mut stop => {}
    }
    if options.demo {
        say!("\nremoving the demo");
        remove_demo(&running, &admin).await;
    }
    end(options, instance, server, &running).await?;
    failed.map_or(Ok(()), Err)
}

/// A client in this process that the server knows as `user`.
fn within(server: &minicp::Server, user: minicp::UserInfo) -> Client {
    let server = server.clone();
    Client::new(Connector::Memory(Rc::new(move || server.connect(user.clone()))))
}

async fn start_node(options: &Options, instance: &Instance, server: &minicp::Server) -> Result<Running, String> {
    let running = run::start(Start {
        instance,
        node_name: options.node.name.clone(),
        cgroup_parent: options.node.cgroup_parent.clone(),
        cluster_cidr: options.cluster_cidr,
        service_cidr: options.service_cidr,
        domain: "cluster.local".into(),
        client: Some(Rc::new(within(server, minicp::UserInfo::node(&options.node.name)))),
        manifests: options.node.manifests.clone(),
        node_ip: options.node.ip,
        kubelet_port: 0,
        image_gc: options.node.image_gc,
        image_gc_every: options.node.image_gc_every,
        registries: options.node.registries.clone().completed(&instance.data),
    })
    .await?;
    let agent = running.agent.clone();
    server.set_local_node(&options.node.name, Rc::new(move || crate::server::dial(&agent)));
    tokio::task::spawn_local(serve_pods(server.clone(), running.agent.clone()));
    Ok(running)
}

/// Ends control plane and agent. Containers go on, but those of a demo.
async fn end(options: &Options, instance: &Instance, server: minicp::Server, running: &Running) -> Result<(), String> {
    running.agent.closing.set(true);
    log::set_max_level(log::LevelFilter::Error); // watches that end are no news now
    let pods = running.agent.pods();
    server.stop().await;
    if options.demo {
        running.agent.keeper.leave();
        return super::down::clear(instance, Duration::from_secs(5)).await.map(drop);
    }
    let (s, es) = if pods == 1 { ("", "es") } else { ("s", "") };
    say!("\ncontrol plane and agent have ended; {pods} pod{s} go{es} on");
    say!(
        "`mote up` with the same --data-dir takes over again, `mote down --data-dir {}` ends the pods",
        instance.data.display()
    );
    Ok(())
}

async fn start_server(options: &Options, instance: &Instance) -> Result<minicp::Server, String> {
    let config = options.config(instance.data.clone())?;
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
        say!(
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
