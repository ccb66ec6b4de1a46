//! Where a control plane keeps its state, and how it is backed up: flags of `mote up`, `mote server` and `mote snapshot`. Those of etcd have
//! kube-apiserver's names.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Flag, Given, put};

/// What was said; nothing is the data folder, and no backups.
#[derive(Default)]
pub(super) struct Storage {
    servers: Vec<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    prefix: Option<String>,
    /// Zero: never.
    compact_every: Option<Duration>,
    backup_every: Option<Duration>,
    backup_keep: Option<usize>,
    backup_folder: Option<PathBuf>,
}

/// Backups kept unless something else is said.
#[cfg(feature = "minicp")]
const KEEP: usize = 7;

/// `90s`, `30m`, `6h`, `1d`; a number alone is seconds. At least a minute: each time everything is copied.
fn duration(given: &Given) -> Result<Duration, String> {
    let text: String = given.parse()?;
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(number.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("want a number and s, m, h or d".into()),
    };
    let seconds = number.parse::<u32>().map_err(|e| e.to_string()).map(|n| u64::from(n) * unit)?;
    if seconds < 60 { Err("want a minute or more".into()) } else { Ok(Duration::from_secs(seconds)) }
}

/// So many of them say where an etcd is and how to be let in.
#[cfg(feature = "minicp")]
pub(super) const ETCD: usize = 5;

/// All of them; those of etcd first.
pub(super) static FLAGS: [Flag<Storage>; 9] = [
    Flag {
        name: "etcd-servers",
        value: "URL,URL",
        about: "keep the state in this etcd v3, not in the data folder",
        set: |s, v| {
            let all: String = v.parse()?;
            put(&mut s.servers, all.split(',').map(str::to_owned).collect())
        },
    },
    Flag {
        name: "etcd-cafile",
        value: "FILE",
        about: "certificates that https members are judged by",
        set: |s, v| put(&mut s.ca, Some(v.path())),
    },
    Flag {
        name: "etcd-certfile",
        value: "FILE",
        about: "certificate shown to them",
        set: |s, v| put(&mut s.cert, Some(v.path())),
    },
    Flag { name: "etcd-keyfile", value: "FILE", about: "its key", set: |s, v| put(&mut s.key, Some(v.path())) },
    Flag {
        name: "etcd-prefix",
        value: "PATH",
        about: "in front of every key (default /registry)",
        set: |s, v| v.parse().map(|prefix| s.prefix = Some(prefix)),
    },
    Flag {
        name: "etcd-compaction-interval",
        value: "TIME",
        about: "how often etcd is told to forget what is older than that (default 5m; 0: never)",
        set: |s, v| {
            let never = v.parse::<String>()? == "0";
            let every = if never { Duration::ZERO } else { duration(&v)? };
            put(&mut s.compact_every, Some(every))
        },
    },
    Flag {
        name: "backup-interval",
        value: "TIME",
        about: "back the state up so often: 30m, 6h, 1d (default: never)",
        set: |s, v| duration(&v).map(|every| s.backup_every = Some(every)),
    },
    Flag {
        name: "backup-keep",
        value: "N",
        about: "backups kept (default 7)",
        set: |s, v| match v.parse()? {
            0 => Err("want 1 or more".into()),
            n => put(&mut s.backup_keep, Some(n)),
        },
    },
    Flag {
        name: "backup-dir",
        value: "DIR",
        about: "where they lie (default: backups in the data folder)",
        set: |s, v| put(&mut s.backup_folder, Some(v.path())),
    },
];

impl Storage {
    /// That the flags go together.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let files = [&self.ca, &self.cert, &self.key].iter().any(|file| file.is_some());
        if self.servers.is_empty() && (files || self.prefix.is_some() || self.compact_every.is_some()) {
            return Err("--etcd-servers is needed for the other flags of etcd");
        }
        if self.backup_every.is_none() && (self.backup_keep.is_some() || self.backup_folder.is_some()) {
            return Err("--backup-interval is needed for the other flags of backups");
        }
        Ok(())
    }

    /// The etcd that was named.
    #[cfg(feature = "minicp")]
    pub(super) fn etcd(&self) -> Option<minicp::EtcdConfig> {
        if self.servers.is_empty() {
            return None;
        }
        let mut config = minicp::EtcdConfig::new(self.servers.clone());
        (config.ca_file, config.cert_file, config.key_file) = (self.ca.clone(), self.cert.clone(), self.key.clone());
        config.prefix = self.prefix.clone().unwrap_or(config.prefix);
        if let Some(every) = self.compact_every {
            config.compact_every = Some(every).filter(|every| !every.is_zero());
        }
        Some(config)
    }

    /// The backups that were asked for. `data`: the data folder.
    #[cfg(feature = "minicp")]
    pub(super) fn backups(&self, data: &std::path::Path) -> Option<minicp::Schedule> {
        Some(minicp::Schedule {
            every: self.backup_every?,
            keep: self.backup_keep.unwrap_or(KEEP),
            folder: self.backup_folder.clone().unwrap_or_else(|| data.join("backups")),
        })
    }
}

#[cfg(all(test, feature = "minicp"))]
mod tests {
    use super::*;
    use crate::cli::flags::{Stop, read};

    fn of(args: &[&str]) -> Result<Storage, String> {
        let mut storage = Storage::default();
        let flags: Vec<_> = FLAGS.iter().collect();
        read(&mut lexopt::Parser::from_args(args), &flags, &mut storage).map_err(|stop| match stop {
            Stop::Help => "help".into(),
            Stop::Usage(why) => why,
        })?;
        storage.check()?;
        Ok(storage)
    }

    #[test]
    fn etcd_is_named_as_kube_apiserver_names_it() {
        let of = |args: &[&str]| of(args).unwrap().etcd();
        assert!(of(&[]).is_none());
        let both =
            of(&["--etcd-servers=https://a:2379,https://b:2379", "--etcd-cafile=c", "--etcd-prefix=/p"]).unwrap();
        assert_eq!((both.servers.len(), both.prefix.as_str(), both.ca_file), (2, "/p", Some("c".into())));
        let every =
            |time| of(&["--etcd-servers=http://a:1", "--etcd-compaction-interval", time]).unwrap().compact_every;
        assert_eq!((every("0"), every("10m")), (None, Some(Duration::from_secs(600))));
        assert_eq!(of(&["--etcd-servers=http://a:1"]).unwrap().compact_every, Some(Duration::from_secs(300)));
    }

    #[test]
    fn backups_are_made_when_asked_for() {
        let of = |args: &[&str]| of(args).unwrap().backups("/d".as_ref());
        assert!(of(&[]).is_none());
        let default = minicp::Schedule { every: Duration::from_secs(21_600), keep: KEEP, folder: "/d/backups".into() };
        assert_eq!(of(&["--backup-interval", "6h"]), Some(default));
        let chosen = minicp::Schedule { every: Duration::from_secs(60), keep: 2, folder: "/b".into() };
        assert_eq!(of(&["--backup-interval=60", "--backup-keep=2", "--backup-dir=/b"]), Some(chosen));
    }

    #[test]
    fn wrong_values_are_told() {
        for (args, part) in [
            (&["--backup-interval", "6w"][..], "--backup-interval \"6w\": want a number and s, m, h or d"),
            (&["--backup-interval", "59"], "--backup-interval \"59\": want a minute"),
            (&["--backup-keep", "0"], "--backup-keep \"0\": want 1"),
            (&["--backup-keep", "3"], "--backup-interval is needed"),
            (&["--etcd-prefix", "/x"], "--etcd-servers is needed"),
        ] {
            let why = of(args).err().unwrap_or_default();
            assert!(why.starts_with(part), "{args:?}: {why}");
        }
    }
}
