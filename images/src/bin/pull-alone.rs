//! `pull-alone STORE REF [--volatile] [--docker-config FILE]`: a pull as a process of its own, with nothing around it: to be measured, looked
//! at under a profiler, killed, or given an environment of its own by the tests. Prints the manifest's digest. Not part of what is installed.

use std::process::ExitCode;

use mote_images::{Cancel, Error, Image, PullOptions, Silent, Store};

fn main() -> ExitCode {
    let mut words = Vec::new();
    let mut options = PullOptions::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--volatile" => options.durable = false,
            "--docker-config" => options.registries.docker_config = args.next().map(Into::into),
            _ => words.push(arg),
        }
    }
    let [dir, reference] = words.as_slice() else {
        eprintln!("usage: pull-alone STORE REF [--volatile] [--docker-config FILE]");
        return ExitCode::from(2);
    };
    match pull(dir, reference, &options) {
        Ok(image) => {
            println!("{}", image.manifest);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn pull(dir: &str, reference: &str, options: &PullOptions) -> Result<Image, Error> {
    Store::open(dir.as_ref())?.pull(&reference.parse()?, options, &Silent, &Cancel::default())
}
