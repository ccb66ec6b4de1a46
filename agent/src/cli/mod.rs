//! The command line: one file per subcommand, one table that lists them. A subcommand is `fn(lexopt::Parser) -> ExitCode`; it gets
//! the parser behind its own name, knows `--help` and `--data-dir`, says what it made on stdout and why it failed on stderr.
//!
//! Exit codes: 0 done, 1 failed (the reason is on stderr), 2 the command line was not understood.

use std::path::PathBuf;
use std::process::ExitCode;

mod agent;
mod check;
mod down;
mod flags;
mod hello;
mod image;
mod keeper;
mod options;
mod process;
mod registries;
#[cfg(feature = "minicp")]
mod server;
#[cfg(feature = "minicp")]
mod snapshot;
mod storage;
#[cfg(feature = "minicp")]
mod up;
mod version;

/// Where the state of a node lies unless `--data-dir` says otherwise.
pub const DATA_DIR: &str = "/var/lib/mote";

struct Command {
    name: &'static str,
    about: &'static str,
    hidden: bool,
    run: fn(lexopt::Parser) -> ExitCode,
}

const fn shown(name: &'static str, about: &'static str, run: fn(lexopt::Parser) -> ExitCode) -> Command {
    Command { name, about, hidden: false, run }
}

const fn hidden(name: &'static str, run: fn(lexopt::Parser) -> ExitCode) -> Command {
    Command { name, about: "", hidden: true, run }
}

const COMMANDS: &[Command] = &[
    #[cfg(feature = "minicp")]
    shown("up", "control plane and node in one process", up::run),
    shown("down", "stop every pod of a data folder, and its keeper", down::run),
    #[cfg(feature = "minicp")]
    shown("server", "the control plane alone", server::run),
    shown("agent", "this machine as a node of a control plane, or of none", agent::run),
    #[cfg(feature = "minicp")]
    shown("token", "print the token by which nodes join", server::token),
    #[cfg(feature = "minicp")]
    shown("snapshot", "save, restore, verify the state of a control plane", snapshot::run),
    shown("image", "pull, list, import, export, pack, push, prune, verify images", image::run),
    shown("check", "say what this host lacks", check::run),
    shown("oci", "run OCI bundles with runc's command line", oci),
    shown("version", "say which mote this is", version::run),
    hidden("hello", hello::run),
    hidden("keeper", keeper::run),
];

/// `mote oci`: the same as `mote-oci`.
fn oci(mut parser: lexopt::Parser) -> ExitCode {
    match parser.raw_args() {
        Ok(args) => mote_runtime::oci_cli::main(args.collect()),
        Err(error) => usage(&error.to_string()),
    }
}

/// Commands that go on for others, or change what others have: a closed pipe must not end them.
const STEADY: [&str; 7] = ["up", "down", "server", "agent", "oci", "hello", "keeper"];

/// Entry of the executable.
pub fn main() -> ExitCode {
    let mut parser = lexopt::Parser::from_env();
    let word = parser.next();
    if !matches!(&word, Ok(Some(lexopt::Arg::Value(name))) if STEADY.iter().any(|steady| name == steady)) {
        mote_runtime::end_on_closed_pipe();
    }
    match word {
        Ok(Some(lexopt::Arg::Value(name))) => {
            let name = name.to_string_lossy();
            match COMMANDS.iter().find(|command| command.name == name) {
                Some(command) => (command.run)(parser),
                None => {
                    complain!("mote: unknown command {name:?}; `mote --help` lists them");
                    ExitCode::from(2)
                }
            }
        }
        Ok(None) | Ok(Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h'))) => {
            mote_runtime::print(format_args!("{}", help()));
            ExitCode::SUCCESS
        }
        Ok(Some(lexopt::Arg::Long("version") | lexopt::Arg::Short('V'))) => version::run(parser),
        Ok(Some(other)) => usage(&other.unexpected().to_string()),
        Err(error) => usage(&error.to_string()),
    }
}

fn help() -> String {
    let mut text = String::from("mote: a Kubernetes node in one file\n\nusage: mote COMMAND [OPTIONS]\n\n");
    for command in COMMANDS.iter().filter(|command| !command.hidden) {
        text.push_str(&format!("  {:10} {}\n", command.name, command.about));
    }
    text.push_str("\n`mote COMMAND --help` tells more.\n");
    text
}

/// The command line was not understood.
pub(crate) fn usage(why: &str) -> ExitCode {
    complain!("mote: {why}; try --help");
    ExitCode::from(2)
}

/// The command failed: one line, operation, object and cause.
pub(crate) fn failed(why: &dyn std::fmt::Display) -> ExitCode {
    complain!("mote: {why}");
    ExitCode::FAILURE
}

/// The default data folder.
pub(crate) fn data_dir() -> PathBuf {
    PathBuf::from(DATA_DIR)
}

/// The value of `--output`: what is printed is for scripts.
pub(crate) fn json(parser: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
    match parser.value()?.to_str() {
        Some("json") => Ok(true),
        other => Err(format!("unknown output format {:?}; it is json or nothing", other.unwrap_or_default()).into()),
    }
}

/// A control group below the root that cannot lead anywhere else.
pub(crate) fn sane_group(group: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    !group.is_empty() && group.len() <= 200 && group.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_below_the_root() {
        for (group, sane) in [
            ("mote", true),
            ("a/b.c", true),
            ("", false),
            ("/a", false),
            ("..", false),
            ("a/../b", false),
            ("a b", false),
        ] {
            assert_eq!(sane_group(group), sane, "{group}");
        }
    }
}
