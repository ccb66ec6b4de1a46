//! The command line as one table: which flags there are, for which command, and whether a value follows.

use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

/// Commands (empty = all), short name, long name, whether a value follows.
type Flag = (&'static str, char, &'static str, bool);

/// A command's own meaning of a letter stands before the general one.
const FLAGS: &[Flag] = &[
    ("list ps", 'f', "format", true),
    ("list", 'q', "quiet", false),
    ("delete", 'f', "force", false),
    ("kill", 'a', "all", false),
    ("spec", '-', "rootless", false),
    ("events", '-', "interval", true),
    ("events", '-', "stats", false),
    ("exec", '-', "cwd", true),
    ("exec", 'e', "env", true),
    ("exec", 't', "tty", false),
    ("exec", 'u', "user", true),
    ("exec", 'g', "additional-gids", true),
    ("exec", 'p', "process", true),
    ("exec", '-', "process-label", true),
    ("exec", '-', "apparmor", true),
    ("exec", '-', "no-new-privs", false),
    ("exec", 'c', "cap", true),
    ("exec", '-', "cgroup", true),
    ("exec", '-', "ignore-paused", false),
    ("run exec", 'd', "detach", false),
    ("run", '-', "keep", false),
    ("run", '-', "no-subreaper", false),
    ("create run spec", 'b', "bundle", true),
    ("create run exec", '-', "console-socket", true),
    ("create run exec", '-', "pidfd-socket", true),
    ("create run exec", '-', "pid-file", true),
    ("create run exec", '-', "preserve-fds", true),
    ("create run", '-', "no-pivot", false),
    ("create run", '-', "no-new-keyring", false),
    ("update", 'r', "resources", true),
    ("update", '-', "blkio-weight", true),
    ("update", '-', "cpu-burst", true),
    ("update", '-', "cpu-idle", true),
    ("update", '-', "cpu-period", true),
    ("update", '-', "cpu-quota", true),
    ("update", '-', "cpu-rt-period", true),
    ("update", '-', "cpu-rt-runtime", true),
    ("update", '-', "cpu-share", true),
    ("update", '-', "cpuset-cpus", true),
    ("update", '-', "cpuset-mems", true),
    ("update", '-', "kernel-memory", true),
    ("update", '-', "kernel-memory-tcp", true),
    ("update", '-', "l3-cache-schema", true),
    ("update", '-', "mem-bw-schema", true),
    ("update", '-', "memory", true),
    ("update", '-', "memory-reservation", true),
    ("update", '-', "memory-swap", true),
    ("update", '-', "pids-limit", true),
    ("", '-', "root", true),
    ("", '-', "log", true),
    ("", '-', "log-format", true),
    ("", '-', "debug", false),
    ("", '-', "systemd-cgroup", false),
    ("", '-', "rootless", true),
    ("", '-', "criu", true),
    ("", 'v', "version", false),
    ("", 'h', "help", false),
];

/// What the whole command line said.
#[derive(Default)]
pub(crate) struct Args {
    options: Vec<(&'static str, OsString)>,
    /// Command, id, and what follows.
    pub(crate) words: Vec<String>,
}

impl Args {
    /// The last value given.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rfind(|(n, _)| *n == name).and_then(|(_, v)| v.to_str())
    }
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(n, _)| *n == name).filter_map(|(_, v)| v.to_str())
    }
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.options.iter().rfind(|(n, _)| *n == name).map(|(_, v)| v.into())
    }
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v != "false")
    }
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, String> {
        let parse = |v: &str| v.parse().map_err(|_| format!("--{name} {v}: not a number"));
        self.value(name).map(parse).transpose()
    }
    /// Where containers are remembered.
    pub(crate) fn root(&self) -> PathBuf {
        let own = || match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !nix::unistd::geteuid().is_root() => PathBuf::from(dir).join("mote-oci"),
            _ => "/run/mote-oci".into(),
        };
        self.path("root").unwrap_or_else(own)
    }
    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("bundle").unwrap_or_else(|| ".".into())
    }
}

fn find(command: &str, is: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    let valid = |f: &&Flag| f.0.is_empty() || f.0.split(' ').any(|c| c == command);
    FLAGS.iter().filter(valid).find(|f| is(f))
}

/// `raw` without the program's name.
pub(crate) fn parse(raw: Vec<OsString>) -> Result<Args, String> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_args(raw);
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        let command = args.words.first().map(String::as_str).unwrap_or_default();
        let (flag, said) = match arg {
            Short(letter) => (find(command, |f| f.1 == letter && letter != '-'), format!("-{letter}")),
            Long(name) => (find(command, |f| f.2 == name), format!("--{name}")),
            Value(word) => {
                args.words.push(word.into_string().map_err(|w| format!("{}: not UTF-8", w.display()))?);
                // From the id of an exec on, everything is the program's.
                if args.words.len() == 2 && args.words.first().is_some_and(|c| c == "exec") {
                    let rest = parser.raw_args().map_err(|e| e.to_string())?;
                    for word in rest {
                        args.words.push(word.into_string().map_err(|w| format!("{}: not UTF-8", w.display()))?);
                    }
                }
                continue;
            }
        };
        let Some((_, _, name, valued)) = flag else { return Err(format!("flag provided but not defined: {said}")) };
        let value = if *valued {
            parser.value().map_err(|e| e.to_string())?
        } else {
            parser.optional_value().unwrap_or_default()
        };
        args.options.push((name, value));
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, String> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn flags_stand_before_and_after_the_id() {
        let args = parsed("--root /r --debug --log-format=json delete x --force").unwrap();
        assert_eq!(args.words, ["delete", "x"]);
        assert!(args.flag("force") && args.flag("debug") && !args.flag("detach"));
        assert_eq!((args.root(), args.value("log-format")), ("/r".into(), Some("json")));
        assert!(!parsed("--systemd-cgroup=false list").unwrap().flag("systemd-cgroup"));
    }

    #[test]
    fn an_execs_own_flags_are_not_ours() {
        let args = parsed("exec -d -e A=1 --env B=2 id sh -c -e --tty").unwrap();
        assert_eq!(args.words, ["exec", "id", "sh", "-c", "-e", "--tty"]);
        assert_eq!(args.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert!(args.flag("detach") && !args.flag("tty"));
    }

    #[test]
    fn a_letter_means_what_its_command_says() {
        assert_eq!(parsed("list -f json").unwrap().value("format"), Some("json"));
        assert!(parsed("delete -f x").unwrap().flag("force"));
        assert!(parsed("state -f x").is_err());
        assert!(parsed("--rootless auto spec --rootless").unwrap().flag("rootless"));
        assert!(parsed("run --pid-file").is_err());
    }
}
