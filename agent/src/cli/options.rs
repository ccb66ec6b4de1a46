//! What the subcommands' parsers share.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::ValueExt;

/// Why a command ends before it began.
pub(crate) enum Stop {
    /// `--help`
    Help,
    /// It was not understood.
    Usage(String),
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Stop {
        Stop::Usage(error.to_string())
    }
}

/// The exit code of a command that ended early.
pub(crate) fn stopped(stop: Stop, help: &str) -> ExitCode {
    match stop {
        Stop::Help => {
            print!("{help}");
            ExitCode::SUCCESS
        }
        Stop::Usage(why) => super::usage(&why),
    }
}

/// The next value, parsed; the error names the flag.
pub(crate) fn value<T: FromStr>(parser: &mut lexopt::Parser, flag: &str) -> Result<T, Stop>
where
    T::Err: std::fmt::Display,
{
    let text = parser.value()?.string()?;
    text.parse().map_err(|e| Stop::Usage(format!("{flag} {text:?}: {e}")))
}

/// The next value as a share of a disk, 1 to 100.
pub(crate) fn percent(parser: &mut lexopt::Parser, flag: &str) -> Result<u8, Stop> {
    match value(parser, flag)? {
        percent @ 1..=100u8 => Ok(percent),
        other => Err(Stop::Usage(format!("{flag} {other}: want 1 to 100"))),
    }
}

/// The low mark is where a sweep stops that began at the high one.
pub(crate) fn check_image_gc(policy: &mote_images::GcPolicy) -> Result<(), Stop> {
    if policy.low_percent < policy.high_percent {
        return Ok(());
    }
    Err(Stop::Usage(format!(
        "--image-gc-low-threshold {} must be below --image-gc-high-threshold {}",
        policy.low_percent, policy.high_percent
    )))
}

/// The next value as a path.
pub(crate) fn path(parser: &mut lexopt::Parser) -> Result<PathBuf, Stop> {
    Ok(PathBuf::from(parser.value()?))
}

/// Everything but root fails somewhere later, less clearly.
pub(crate) fn need_root(what: &str) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(format!("{what} needs root: it makes namespaces, mounts, control groups and network links (try sudo)"))
    }
}

/// How long a silent node is waited for; what is not said is as upstream has it. The flags are named as upstream's.
#[derive(Default)]
pub(crate) struct Patience {
    pub(crate) grace: Option<u32>,
    pub(crate) not_ready: Option<u32>,
    pub(crate) unreachable: Option<u32>,
}

impl Patience {
    pub(crate) const HELP: &str = "\
  --node-monitor-grace-period SECONDS               a node silent for so long is NotReady (default 40; it speaks every 10)
  --default-not-ready-toleration-seconds SECONDS    how long pods stay on a node that is not ready (default 300)
  --default-unreachable-toleration-seconds SECONDS  how long pods stay on a node that is silent (default 300)
";

    pub(crate) fn apply(&self, config: &mut minicp::Config) {
        let set = |field: &mut i64, chosen: Option<u32>| *field = chosen.map_or(*field, i64::from);
        set(&mut config.node_grace_seconds, self.grace);
        set(&mut config.not_ready_seconds, self.not_ready);
        set(&mut config.unreachable_seconds, self.unreachable);
    }
}

/// The runtime every long-running command uses: one thread, few blocking ones that go when idle.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()
        .map_err(|e| format!("start tokio: {e}"))?;
    let output = tokio::task::LocalSet::new().block_on(&runtime, future);
    // A pull that still runs must not hold us up; its store survives that.
    runtime.shutdown_background();
    Ok(output)
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// The flags of every command that asks registries.
pub(crate) const REGISTRY_HELP: &str =
    "  --plain-http HOST:PORT   a registry reached without TLS (may be repeated; loopback needs no mention)
  --ca FILE                trust anchors (PEM) beside the system's
  --hosts-dir DIR          mirrors and certificates by registry, laid out as containerd's certs.d (may be repeated;
                           default: certs.d in the data folder, /etc/containerd/certs.d, /etc/docker/certs.d)
  --docker-config FILE     credentials and credential helpers (default ~/.docker/config.json)
  --image-policy FILE      which images are taken, by whose signature: containers-policy.json(5)
                           (default: policy.json in the data folder, if there is one)
";

/// Is it one of [`REGISTRY_HELP`]'s?
pub(crate) fn is_registry_flag(name: &str) -> bool {
    matches!(name, "plain-http" | "ca" | "hosts-dir" | "docker-config" | "image-policy")
}

/// Takes the value of such a flag.
pub(crate) fn registry_flag(
    name: &str,
    parser: &mut lexopt::Parser,
    registries: &mut mote_images::Registries,
) -> Result<(), lexopt::Error> {
    let value = parser.value()?;
    match name {
        "plain-http" => registries.plain_http.push(value.string()?),
        "ca" => {
            let path = PathBuf::from(value);
            let pem = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
            registries.ca_pem.extend(pem);
        }
        "hosts-dir" => registries.hosts_dirs.push(value.into()),
        "docker-config" => registries.docker_config = Some(value.into()),
        _ => registries.policy = Some(value.into()),
    }
    Ok(())
}
