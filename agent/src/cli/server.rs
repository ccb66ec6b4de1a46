//! `mote server`: the control plane alone. `mote token`: how a node joins it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use super::flags::{self, DATA_DIR, stopped};
use super::options::{Command, Options, help};
use super::process::{block_on, open_files_as_allowed, signalled};
use crate::instance::{Instance, write_secret};

const USAGE: &str = "\
mote server: the control plane alone; nodes join it by `mote agent`

usage: mote server [OPTIONS]

";

const TOKEN_USAGE: &str = "\
mote token: print the token by which nodes join

usage: mote token [OPTIONS]

";

/// Runs until it is told to end.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let options = match Options::read(Command::Server, &mut parser) {
        Ok(options) => options,
        Err(stop) => return stopped(stop, &format!("{USAGE}{}", help(Command::Server))),
    };
    crate::logger::start(log::LevelFilter::Info);
    open_files_as_allowed();
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
    let config = options.config(instance.data.clone())?;
    let server = minicp::Server::start(config, Rc::new(minicp::SystemClock)).await;
    let server = server.map_err(|e| format!("start control plane: {e}"))?;
    let kubeconfig = instance.data.join("kubeconfig");
    for file in options.control_plane.kubeconfig.iter().chain([&kubeconfig]) {
        write_secret(file, &server.admin_kubeconfig())?;
    }
    let token = server.join_token();
    write_secret(&token_file(&instance.data), &format!("{token}\n"))?;
    say!("Kubernetes API   {}", server.url());
    say!("kubeconfig       {}", options.control_plane.kubeconfig.as_ref().unwrap_or(&kubeconfig).display());
    say!("data             {}", instance.data.display());
    say!("\nOn another machine:  mote agent --server {} --token {token}\n", server.url());
    stop.await;
    server.stop().await;
    say!("the control plane has ended");
    Ok(())
}

fn token_file(data: &Path) -> PathBuf {
    data.join("join-token")
}

/// Prints the join token of a data folder.
pub(super) fn token(mut parser: lexopt::Parser) -> ExitCode {
    let mut dir = super::data_dir();
    let flags = &[&DATA_DIR];
    if let Err(stop) = flags::read(&mut parser, flags, &mut dir) {
        return stopped(stop, &format!("{TOKEN_USAGE}{}", flags::lines(flags)));
    }
    let file = token_file(&dir);
    match std::fs::read_to_string(&file) {
        Ok(token) => {
            mote_runtime::print(format_args!("{token}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::failed(&format!("read {}: {error} (has `mote server` run with this data folder?)", file.display()))
        }
    }
}
