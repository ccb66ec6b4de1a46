//! `mote agent`: a node of another machine's control plane, or of none.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;

use super::flags::stopped;
use super::options::{Command, Options, help};
use super::process::{block_on, need_root, signalled};
use crate::client::Client;
use crate::instance::Instance;
use crate::join::{self, Files};
use crate::run::{self, Start};
use crate::server::tls;

const USAGE: &str = "\
mote agent: this machine as a node

usage: mote agent --server URL --token TOKEN [OPTIONS]     join a control plane (`mote token` there prints the token)
       mote agent --standalone --manifests DIR [OPTIONS]   run the pods of a folder, with no control plane

";

const END: &str = "
Ctrl-C or SIGTERM ends the agent; containers go on. `mote down` ends them.
";

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match Options::read(Command::Agent, &mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{USAGE}{}{END}", help(Command::Agent))),
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
    let mut ranges = (options.cluster_cidr, options.service_cidr);
    let mut client = None;
    let mut kubelet = None;
    let node_ip = match options.node.ip {
        Some(ip) => Some(ip),
        None => crate::net::node_address().map_err(|e| format!("find the node's address: {e}"))?,
    };
    if let Some(server) = &options.join.server {
        let ip = node_ip.unwrap_or(Ipv4Addr::LOCALHOST).to_string();
        let connector = join::connector(&instance.data, server, options.join.token.as_ref(), &options.node.name, &ip);
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
        kubelet = Some((tls::bind(options.join.kubelet_port).await?, acceptor));
    }
    let running = run::start(Start {
        instance,
        node_name: options.node.name.clone(),
        cgroup_parent: options.node.cgroup_parent,
        cluster_cidr: ranges.0,
        service_cidr: ranges.1,
        domain: "cluster.local".into(),
        client,
        manifests: options.node.manifests.clone(),
        node_ip,
        kubelet_port: kubelet.as_ref().map_or(0, |((_, port), _)| *port),
        image_gc: options.node.image_gc,
        image_gc_every: options.node.image_gc_every,
        registries: options.node.registries.completed(&instance.data),
    })
    .await?;
    say!("node             {}", options.node.name);
    say!("data             {}", instance.data.display());
    match &options.join.server {
        Some(server) => say!("control plane    {server}"),
        None => say!(
            "no control plane; static pods of {}",
            options.node.manifests.as_deref().unwrap_or(&instance.data).display()
        ),
    }
    if let Some(((listener, port), acceptor)) = kubelet {
        say!("kubelet port     {port}");
        tokio::task::spawn_local(tls::serve(running.agent.clone(), listener, acceptor));
    }
    stop.await;
    running.agent.closing.set(true);
    say!("\nthe agent has ended; its containers go on (`mote down --data-dir {}` ends them)", instance.data.display());
    Ok(())
}
