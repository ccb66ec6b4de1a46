//! `mote snapshot`: backups of a control plane's store from the command line, while it runs or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use minicp::store::snapshot::{Snapshot, SnapshotError, Summary};
use mote_api::tree::{Value as Tree, json};
use mote_runtime::show;

use super::flags::Given;
use super::process::block_on;
use super::storage::{self, Storage};

const HELP: &str = "\
mote snapshot: backups of the state of a control plane

usage: mote snapshot save FILE         everything durable at one moment, also while the control plane runs
       mote snapshot restore FILE      into the data folder, which must not hold a store yet
       mote snapshot verify FILE       compare every checksum, look at every value, say what is in it

  --data-dir DIR     of the control plane (default /var/lib/mote)
  --etcd-servers URL,URL, --etcd-cafile, --etcd-certfile, --etcd-keyfile, --etcd-prefix
                     as of `mote server`: save from this etcd, or restore into it, instead of the data folder
  --output json      for scripts

Leases and Events are not kept. Secrets are in the file as they are in the store: encrypted if DIR/encryption.yaml says so.
The keys are never in it: keep DIR/pki and DIR/encryption.yaml (they hardly ever change) in a safe place of their own, and put
them into the new data folder before the first start. Without pki/ every kubeconfig, node and token is of a cluster that is no more.
A restored store goes on a billion revisions later, so that clients list again. In an etcd the revisions are etcd's: restart what watches.
What was saved from one kind of store may be restored into the other. Backups on a schedule: `mote server --backup-interval`.
";

/// What stands on the command line.
#[derive(Default)]
struct Args {
    data_dir: Option<PathBuf>,
    json: bool,
    storage: Storage,
    verb: String,
    file: PathBuf,
}

/// Runs `mote snapshot …`; the parser stands behind `snapshot`.
pub(super) fn run(parser: lexopt::Parser) -> ExitCode {
    let args = match parse(parser) {
        Ok(Some(args)) => args,
        Ok(None) => {
            mote_runtime::print(format_args!("{HELP}"));
            return ExitCode::SUCCESS;
        }
        Err(why) => return super::usage(&why.to_string()),
    };
    crate::logger::start(log::LevelFilter::Warn);
    let data = args.data_dir.clone().unwrap_or_else(super::data_dir);
    let done = match args.verb.as_str() {
        "save" => save(&data, &args),
        "restore" => restore(&data, &args),
        _ => Snapshot::read(&args.file).map(|s| told(&s.summary(), &args.file)).map_err(|e| format!("verify: {e}")),
    };
    match done {
        Ok((_, answer)) if args.json => show!("{answer}"),
        Ok((text, _)) => show!("{text}"),
        Err(why) => return super::failed(&why),
    }
    ExitCode::SUCCESS
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Args>, lexopt::Error> {
    let mut args = Args::default();
    let mut words = Vec::new();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("data-dir") => args.data_dir = Some(parser.value()?.into()),
            Long("output") | Short('o') => args.json = super::json(&mut parser)?,
            Long(name) => {
                let etcd = storage::FLAGS.iter().take(storage::ETCD).find(|flag| flag.name == name);
                let flag = etcd.ok_or_else(|| Long(name).unexpected())?;
                let given = parser.value()?;
                let shown = given.to_string_lossy().into_owned();
                let wrong = |why| format!("--{} {shown:?}: {why}", flag.name);
                (flag.set)(&mut args.storage, Given::new(given)).map_err(wrong)?;
            }
            Value(word) => words.push(word),
            other => return Err(other.unexpected()),
        }
    }
    let mut words = words.into_iter();
    args.verb = words.next().ok_or("save, restore or verify?")?.string()?;
    if !matches!(args.verb.as_str(), "save" | "restore" | "verify") {
        return Err(format!("unknown verb {:?}: save, restore or verify", args.verb).into());
    }
    args.file = words.next().ok_or("which FILE?")?.into();
    args.storage.check()?;
    match words.next() {
        None => Ok(Some(args)),
        Some(more) => Err(format!("unexpected argument {more:?}").into()),
    }
}

/// For people and for scripts.
type Answer = (String, Tree);

fn told(summary: &Summary, file: &Path) -> Answer {
    let mut text = format!(
        "{}: revision {}, {} objects of {} bytes, {} encrypted",
        file.display(),
        summary.revision,
        summary.entries,
        summary.bytes,
        summary.encrypted
    );
    let mut resources = serde_json::Map::new();
    for (resource, count) in &summary.resources {
        text.push_str(&format!("\n  {count:6} {resource}"));
        resources.insert(resource.clone(), (*count).into());
    }
    let answer = json!({"file": file.display().to_string(), "revision": summary.revision.0, "objects": summary.entries,
        "bytes": summary.bytes, "encrypted": summary.encrypted, "resources": resources});
    (text, answer)
}

/// What `with` does with etcd, to its end.
fn on_etcd<T>(with: impl Future<Output = Result<T, SnapshotError>>) -> Result<T, String> {
    block_on(with)?.map_err(|e| e.to_string())
}

fn save(data: &Path, args: &Args) -> Result<Answer, String> {
    let failed = |e: &dyn std::fmt::Display| format!("save: {e}");
    let saved = match args.storage.etcd() {
        Some(etcd) => on_etcd(Snapshot::of_etcd(&etcd)).map_err(|e| failed(&e))?,
        None => Snapshot::of_folder(&data.join("store")).map_err(|e| failed(&e))?,
    };
    saved.write(&args.file).map_err(|e| failed(&e))?;
    // What is on the disk now, not what was meant to be.
    let read = Snapshot::read(&args.file).map_err(|e| failed(&e))?;
    Ok(told(&read.summary(), &args.file))
}

fn restore(data: &Path, args: &Args) -> Result<Answer, String> {
    let failed = |e: &dyn std::fmt::Display| format!("restore: {e}");
    let read = Snapshot::read(&args.file).map_err(|e| failed(&e))?;
    minicp::pki::files::make_private_dir(data).map_err(|e| failed(&format!("make {}: {e}", data.display())))?;
    let (revision, place) = match args.storage.etcd() {
        Some(etcd) => {
            let revision = on_etcd(read.restore_etcd(&etcd)).map_err(|e| failed(&e))?;
            (revision, format!("{} under {}", etcd.servers.join(", "), etcd.prefix))
        }
        None => {
            let folder = data.join("store");
            (read.restore(&folder).map_err(|e| failed(&e))?, folder.display().to_string())
        }
    };
    let summary = read.summary();
    let mut text = format!(
        "{} objects of {} are in {place}; it goes on from revision {revision}",
        summary.entries,
        args.file.display(),
    );
    let mut missing = Vec::new();
    if !data.join("pki/ca.key").exists() {
        missing.push("pki");
        text.push_str(&format!(
            "\nno {}: put the one of the lost control plane there before the start, or its nodes, kubeconfigs and tokens are worth nothing",
            data.join("pki").display()
        ));
    }
    if summary.encrypted > 0 && !data.join("encryption.yaml").exists() {
        missing.push("encryption.yaml");
        text.push_str(&format!(
            "\n{} objects are encrypted: put encryption.yaml with their keys into {}, or the control plane will not start",
            summary.encrypted,
            data.display()
        ));
    }
    let answer = json!({"file": args.file.display().to_string(), "revision": revision.0, "objects": summary.entries, "missing": missing});
    Ok((text, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let of = |words: &[&str]| {
            parse(lexopt::Parser::from_args(words)).map(|args| args.map(|a| a.verb)).map_err(|e| e.to_string())
        };
        assert_eq!(of(&["save", "f", "--data-dir", "d", "-o", "json"]), Ok(Some("save".into())));
        assert_eq!(
            of(&["restore", "f", "--etcd-servers", "http://a:1", "--etcd-prefix=/p"]),
            Ok(Some("restore".into()))
        );
        assert_eq!(of(&["--help"]), Ok(None));
        for bad in [
            &[][..],
            &["save"],
            &["drop", "f"],
            &["save", "f", "g"],
            &["verify", "f", "-o", "yaml"],
            &["--x"],
            &["save", "f", "--etcd-prefix", "/p"],
            &["save", "f", "--backup-keep", "2"],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
