//! runc's command line on our stages: `create start state kill delete run list features spec`. Used by `mote-oci` and `mote oci`.
//!
//! No process of ours stays: `create` leaves the container's own first process, held before exec at a FIFO.

mod run;
mod state;

use crate::container::valid_id;
use lexopt::prelude::*;
use serde_json::json;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: mote-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND
  create [--bundle DIR] [--pid-file FILE] ID     make a container, held before its program
  start ID                                       let it run
  run [--bundle DIR] [--pid-file FILE] [--detach] ID
  state ID                                       what it is, as JSON
  kill [--all] ID [SIGNAL]                       default TERM
  delete [--force] ID
  list [--quiet] [--format table|json]
  spec [--bundle DIR]                            write an example config.json
  features                                       what this runtime can, as JSON
";
const ROOT: &str = "/run/mote-oci";

/// What the whole command line said.
pub(crate) struct Args {
    pub(crate) root: PathBuf,
    pub(crate) bundle: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) force: bool,
    pub(crate) all: bool,
    pub(crate) quiet: bool,
    pub(crate) format: String,
    log: Option<PathBuf>,
    log_json: bool,
    version: bool,
    help: bool,
    /// Command, id, signal.
    pub(crate) words: Vec<String>,
}

/// `args` without the program's name. Runs to the end; must be called from a single-threaded program.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args = match parse(args) {
        Ok(args) => args,
        Err(e) => {
            eprintln!("mote-oci: {e}");
            return ExitCode::FAILURE;
        }
    };
    match dispatch(&args) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            complain(&args, &message);
            ExitCode::FAILURE
        }
    }
}

/// To stderr, and to the log file engines read the reason from.
fn complain(args: &Args, message: &str) {
    eprintln!("mote-oci: {message}");
    let Some(path) = &args.log else { return };
    let now = crate::keeper::timestamp_now();
    let line = if args.log_json {
        json!({"level": "error", "msg": message, "time": now}).to_string()
    } else {
        format!("time={now:?} level=error msg={message:?}")
    };
    if let Ok(mut file) = std::fs::File::options().append(true).create(true).open(path) {
        let _ = writeln!(file, "{line}"); // said on stderr already
    }
}

/// A warning, as runc gives it.
pub(crate) fn warn(message: &str) {
    eprintln!("mote-oci: warning: {message}");
}

fn parse(raw: Vec<OsString>) -> Result<Args, lexopt::Error> {
    let mut args = Args {
        root: ROOT.into(),
        bundle: ".".into(),
        pid_file: None,
        detach: false,
        force: false,
        all: false,
        quiet: false,
        format: "table".into(),
        log: None,
        log_json: false,
        version: false,
        help: false,
        words: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_args(raw);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("root") => args.root = parser.value()?.into(),
            Short('b') | Long("bundle") => args.bundle = parser.value()?.into(),
            Long("pid-file") => args.pid_file = Some(parser.value()?.into()),
            Short('d') | Long("detach") => args.detach = true,
            // crun and runc both have -f, with different meanings.
            Short('f') if args.words.first().is_some_and(|w| w == "list") => args.format = parser.value()?.string()?,
            Short('f') | Long("force") => args.force = true,
            Short('a') | Long("all") => args.all = true,
            Short('q') | Long("quiet") => args.quiet = true,
            Long("format") => args.format = parser.value()?.string()?,
            Long("log") => args.log = Some(parser.value()?.into()),
            Long("log-format") => args.log_json = parser.value()?.string()? == "json",
            Long("rootless" | "criu" | "console-socket" | "preserve-fds") => {
                parser.value()?;
            }
            Long("systemd-cgroup" | "debug" | "no-pivot" | "no-new-keyring" | "keep" | "no-subreaper") => {}
            Short('v') | Long("version") => args.version = true,
            Short('h') | Long("help") => args.help = true,
            Value(word) => args.words.push(word.string()?),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(args)
}

fn dispatch(args: &Args) -> Result<u8, String> {
    if args.version {
        println!("mote-oci version {}\nspec: 1.2.0", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    }
    let command = args.words.first().map(String::as_str).unwrap_or_default();
    if args.help || command.is_empty() || command == "help" {
        print!("{USAGE}");
        return Ok(u8::from(command.is_empty() && !args.help));
    }
    match command {
        "list" => return state::list(args).map(|()| 0),
        "features" => {
            println!("{}", features());
            return Ok(0);
        }
        "spec" => return spec(args).map(|()| 0),
        _ => {}
    }
    let id = args.words.get(1).ok_or_else(|| format!("{command}: needs a container id"))?;
    if !valid_id(id) {
        return Err(format!("container id {id:?}: invalid"));
    }
    let most = if command == "kill" { 3 } else { 2 };
    if args.words.len() > most {
        return Err(format!("{command}: too many arguments"));
    }
    match command {
        "create" => run::create(args, id).map(|()| 0),
        "start" => run::start(args, id).map(|()| 0),
        "run" => run::run(args, id),
        "state" => state::print(args, id).map(|()| 0),
        "kill" => state::kill(args, id).map(|()| 0),
        "delete" => state::delete(args, id).map(|()| 0),
        _ => Err(format!("{command}: no such command (see mote-oci --help)")),
    }
}

fn features() -> String {
    let capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0", "hooks": [],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": true}, "apparmor": {"enabled": false}, "selinux": {"enabled": false}, "intelRdt": {"enabled": false}
        }
    })
    .to_string()
}

fn spec(args: &Args) -> Result<(), String> {
    let path = args.bundle.join("config.json");
    if path.exists() {
        return Err(format!("write {}: exists already", path.display()));
    }
    std::fs::write(&path, format!("{:#}\n", example())).map_err(|e| format!("write {}: {e}", path.display()))
}

/// runc's example: `sh` in a private everything.
pub fn example() -> serde_json::Value {
    use crate::container::defaults;
    let mounts: Vec<_> = defaults::mounts()
        .into_iter()
        .map(|m| json!({"destination": m.destination, "type": m.fstype, "source": m.source, "options": m.options}))
        .collect();
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": [defaults::PATH, "TERM=xterm"], "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "mote",
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": defaults::masked_paths(), "readonlyPaths": defaults::readonly_paths()
        }
    })
}
