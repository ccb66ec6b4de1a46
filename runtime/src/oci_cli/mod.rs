//! runc's command line on our stages. Used by `mote-oci` and `mote oci`.
//!
//! No process of ours stays: `create` leaves the container's own first process, held before exec at a FIFO.

mod args;
mod delete;
mod events;
mod exec;
mod foreground;
mod run;
mod spec;
mod state;
mod update;

use crate::container::valid_id;
use crate::show;
use args::Args;
use serde_json::json;
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

pub use spec::example;

const USAGE: &str = "usage: mote-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup] [--rootless MODE] COMMAND
  create [--bundle DIR] [--console-socket PATH] [--pid-file FILE] [--no-pivot] [--no-new-keyring] [--preserve-fds N] ID
                                                 make a container, held before its program
  start ID                                       let it run
  run [flags of create] [--detach] [--keep] ID   both; in the foreground, and away afterwards
  exec [--process FILE] [--tty] [--detach] [--console-socket PATH] [--pid-file FILE] [--cwd DIR] [--env NAME=VALUE]
       [--user UID[:GID]] [--additional-gids GID] [--cap CAP] [--no-new-privs] [--ignore-paused] ID [PROGRAM ...]
  state ID                                       what it is, as JSON
  kill [--all] ID [SIGNAL]                       default TERM
  delete [--force] ID
  pause ID, resume ID
  ps [--format table|json] ID [PS-OPTIONS]
  list [--quiet] [--format table|json]
  events [--stats] [--interval SECONDS] ID       what it uses, and when memory ran out
  update [--resources FILE] [--memory BYTES] [--cpu-quota US] [--pids-limit N] ... ID
  spec [--bundle DIR] [--rootless]               write an example config.json
  features                                       what this runtime can, as JSON
";

/// Exit code of an exec that did not come to run its program.
const EXEC_FAILED: u8 = 255;

/// `args` without the program's name. Runs to the end; must be called from a single-threaded program.
pub fn main(args: Vec<OsString>) -> ExitCode {
    ExitCode::from(code(args))
}

/// The same, as a number.
pub fn code(args: Vec<OsString>) -> u8 {
    let args = match args::parse(args) {
        Ok(args) => args,
        Err(e) => {
            eprintln!("mote-oci: {e}");
            return 1;
        }
    };
    let result = open_log(&args).and_then(|()| dispatch(&args));
    match result {
        Ok(code) => code,
        Err(message) => {
            say("error", &message);
            if args.words.first().is_some_and(|c| c == "exec") { EXEC_FAILED } else { 1 }
        }
    }
}

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log { file: None, json: false, quiet: false }) };
}

struct Log {
    /// Engines read reasons from it.
    file: Option<File>,
    json: bool,
    /// Our stderr becomes the container's: what is no error would stand in its log.
    quiet: bool,
}

fn open_log(args: &Args) -> Result<(), String> {
    let json = match args.value("log-format") {
        None | Some("text" | "") => false,
        Some("json") => true,
        Some(other) => return Err(format!("invalid log-format: {other}")),
    };
    let open = |path: std::path::PathBuf| {
        File::options().append(true).create(true).open(&path).map_err(|e| format!("open {}: {e}", path.display()))
    };
    let file = args.path("log").filter(|p| !p.as_os_str().is_empty()).map(open).transpose()?;
    let quiet = args.words.first().is_some_and(|c| c == "create" || c == "exec") && !args.flag("debug");
    LOG.with(|log| *log.borrow_mut() = Log { file, json, quiet });
    Ok(())
}

/// To the log file, if there is one; errors always to stderr, warnings there without a log where it is not the container's.
fn say(level: &str, message: &str) {
    LOG.with(|log| {
        let Log { file, json, quiet } = &*log.borrow();
        if level == "error" || (file.is_none() && !quiet) {
            let (prefix, colon) = if level == "error" { ("", "") } else { (level, ": ") };
            eprintln!("mote-oci: {prefix}{colon}{message}");
        }
        let Some(mut file) = file.as_ref() else { return };
        let now = crate::keeper::timestamp_now();
        let line = if *json {
            json!({"level": level, "msg": message, "time": now}).to_string()
        } else {
            format!("time={now:?} level={level} msg={message:?}")
        };
        let _ = writeln!(file, "{line}"); // nowhere left to tell
    });
}

/// A warning, as runc gives it.
pub(crate) fn warn(message: &str) {
    say("warning", message);
}

type Command = fn(&Args, &str) -> Result<u8, String>;

/// Name, whether words may follow the id, what it does.
const COMMANDS: [(&str, bool, Command); 14] = [
    ("create", false, run::create),
    ("start", false, run::start),
    ("run", false, run::run),
    ("exec", true, exec::exec),
    ("state", false, state::print),
    ("kill", true, state::kill),
    ("delete", false, delete::delete),
    ("pause", false, state::pause),
    ("resume", false, state::resume),
    ("ps", true, state::ps),
    ("events", false, events::events),
    ("update", false, update::update),
    ("checkpoint", true, no_checkpoints),
    ("restore", true, no_checkpoints),
];

fn no_checkpoints(_: &Args, _: &str) -> Result<u8, String> {
    Err("checkpoints: are not supported".into())
}

/// Commands that print and do nothing else.
const PRINTING: [&str; 8] = ["", "help", "list", "features", "spec", "state", "ps", "events"];

fn dispatch(args: &Args) -> Result<u8, String> {
    let command = args.words.first().map(String::as_str).unwrap_or_default();
    if args.flag("version") || args.flag("help") || PRINTING.contains(&command) {
        crate::end_on_closed_pipe();
    }
    if args.flag("version") {
        show!("mote-oci version {}\nspec: {}", env!("CARGO_PKG_VERSION"), spec::VERSION);
        return Ok(0);
    }
    if args.flag("help") || command.is_empty() || command == "help" {
        crate::print(format_args!("{USAGE}"));
        return Ok(u8::from(command.is_empty() && !args.flag("help")));
    }
    match command {
        "list" => return state::list(args).map(|()| 0),
        "features" => {
            show!("{:#}", spec::features());
            return Ok(0);
        }
        "spec" => return spec::write(args).map(|()| 0),
        _ => {}
    }
    let Some((_, more, run)) = COMMANDS.iter().find(|(name, ..)| *name == command) else {
        return Err(format!("{command}: no such command (see mote-oci --help)"));
    };
    let id = args.words.get(1).ok_or_else(|| format!("{command}: needs a container id"))?;
    if !valid_id(id) {
        return Err(format!("container id {id:?}: invalid"));
    }
    if !more && args.words.len() > 2 {
        return Err(format!("{command}: too many arguments"));
    }
    run(args, id)
}
