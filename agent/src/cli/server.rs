//! `mote server`: the control plane alone. `mote token`: how a node joins it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use super::options::{Patience, Stop, block_on, path, signalled, stopped, value};
use crate::instance::{Instance, write_secret};

const HELP: &str = "\
mote server: the control plane alone; nodes join it by `mote agent`

usage: mote server [OPTIONS]

  --data-dir DIR           state (default /var/lib/mote)
  --listen ADDR:PORT       the Kubernetes API (default 0.0.0.0:6443)
  --advertise ADDR         the address nodes reach it at (default: the address of the default route's link)
  --write-kubeconfig FILE  write the kubeconfig there as well as to DIR/kubeconfig
  --cluster-cidr CIDR      addresses of pods (default 10.42.0.0/16)
  --service-cidr CIDR      addresses of Services (default 10.43.0.0/16)
";

const TOKEN_HELP: &str = "\
mote token: print the token by which nodes join

usage: mote token [--data-dir DIR]
";

struct Options {
    data_dir: PathBuf,
    listen: SocketAddr,
    advertise: Option<IpAddr>,
    kubeconfig: Option<PathBuf>,
    cluster_cidr: minicp::Cidr,
    service_cidr: minicp::Cidr,
    patience: Patience,
}

fn read(parser: &mut lexopt::Parser) -> Result<Options, Stop> {
    let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6443);
    let default = minicp::Config::new(PathBuf::new(), listen);
    let mut options = Options {
        data_dir: super::data_dir(),
        listen,
        advertise: None,
        kubeconfig: None,
        cluster_cidr: default.cluster_cidr,
        service_cidr: default.service_cidr,
        patience: Patience::default(),
    };
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("data-dir") => options.data_dir = path(parser)?,
            lexopt::Arg::Long("listen") => options.listen = value(parser, "--listen")?,
            lexopt::Arg::Long("advertise") => options.advertise = Some(value(parser, "--advertise")?),
            lexopt::Arg::Long("write-kubeconfig") => options.kubeconfig = Some(path(parser)?),
            lexopt::Arg::Long("cluster-cidr") => options.cluster_cidr = value(parser, "--cluster-cidr")?,
            lexopt::Arg::Long("service-cidr") => options.service_cidr = value(parser, "--service-cidr")?,
            lexopt::Arg::Long("node-monitor-grace-period") => {
                options.patience.grace = Some(value(parser, "--node-monitor-grace-period")?);
            }
            lexopt::Arg::Long("default-not-ready-toleration-seconds") => {
                options.patience.not_ready = Some(value(parser, "--default-not-ready-toleration-seconds")?);
            }
            lexopt::Arg::Long("default-unreachable-toleration-seconds") => {
                options.patience.unreachable = Some(value(parser, "--default-unreachable-toleration-seconds")?);
            }
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Err(Stop::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match read(&mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{HELP}{}", Patience::HELP)),
    };
    crate::logger::start(log::LevelFilter::Info);
    let done = Instance::open(&options.data_dir).and_then(|instance| {
        let _lock = instance.lock_or_say()?;
        block_on(serve(&options, &instance))?
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

async fn serve(options: &Options, instance: &Instance) -> Result<(), String> {
    let stop = signalled();
    let mut config = minicp::Config::new(instance.data.clone(), options.listen);
    config.cluster_cidr = options.cluster_cidr;
    config.service_cidr = options.service_cidr;
    if let Some(address) = options.advertise {
        config.advertise = address;
    } else if options.listen.ip().is_unspecified()
        && let Ok(Some(address)) = crate::net::node_address()
    {
        config.advertise = IpAddr::V4(address);
    }
    options.patience.apply(&mut config);
    let server = minicp::Server::start(config, Rc::new(minicp::SystemClock)).await;
    let server = server.map_err(|e| format!("start control plane: {e}"))?;
    let kubeconfig = instance.data.join("kubeconfig");
    for file in options.kubeconfig.iter().chain([&kubeconfig]) {
        write_secret(file, &server.admin_kubeconfig())?;
    }
    let token = server.join_token();
    write_secret(&token_file(&instance.data), &format!("{token}\n"))?;
    println!("Kubernetes API   {}", server.url());
    println!("kubeconfig       {}", options.kubeconfig.as_ref().unwrap_or(&kubeconfig).display());
    println!("data             {}", instance.data.display());
    println!("\nOn another machine:  mote agent --server {} --token {token}\n", server.url());
    stop.await;
    server.stop().await;
    println!("the control plane has ended");
    Ok(())
}

fn token_file(data: &Path) -> PathBuf {
    data.join("join-token")
}

/// Prints the join token of a data folder.
pub(super) fn token(mut parser: lexopt::Parser) -> ExitCode {
    let mut dir = super::data_dir();
    let parsed = (|| -> Result<(), Stop> {
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Long("data-dir") => dir = path(&mut parser)?,
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Err(Stop::Help),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(())
    })();
    if let Err(stop) = parsed {
        return stopped(stop, TOKEN_HELP);
    }
    let file = token_file(&dir);
    match std::fs::read_to_string(&file) {
        Ok(token) => {
            print!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::failed(&format!("read {}: {error} (has `mote server` run with this data folder?)", file.display()))
        }
    }
}
