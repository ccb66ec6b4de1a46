//! `mote snapshot`: backups of a control plane's store from the command line, while it runs or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use minicp::store::snapshot::{Snapshot, Summary};
use mote_api::tree::{Value as Tree, json};

const HELP: &str = "\
mote snapshot: backups of the state of a control plane

usage: mote snapshot save FILE         everything durable at one moment, also while the control plane runs
       mote snapshot restore FILE      into the data folder, which must not hold a store yet
       mote snapshot verify FILE       compare every checksum, look at every value, say what is in it

  --data-dir DIR     of the control plane (default /var/lib/mote)
  --output json      for scripts

Leases and Events are not kept. Secrets are in the file as they are in the store: encrypted if DIR/encryption.yaml says so.
The keys are never in it: keep DIR/pki and DIR/encryption.yaml (they hardly ever change) in a safe place of their own, and put
them into the new data folder before the first start. Without pki/ every kubeconfig, node and token is of a cluster that is no more.
A restored store goes on a billion revisions later, so that clients list again. Backups on a schedule: `mote server --backup-interval`.
";

/// What stands on the command line.
#[derive(Default)]
struct Args {
    data_dir: Option<PathBuf>,
    json: bool,
    verb: String,
    file: PathBuf,
}

/// Runs `mote snapshot …`; the parser stands behind `snapshot`.
pub(super) fn run(parser: lexopt::Parser) -> ExitCode {
    let args = match parse(parser) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => return super::usage(&why.to_string()),
    };
    crate::logger::start(log::LevelFilter::Warn);
    let data = args.data_dir.clone().unwrap_or_else(super::data_dir);
    let done = match args.verb.as_str() {
        "save" => save(&data, &args.file),
        "restore" => restore(&data, &args.file),
        _ => Snapshot::read(&args.file).map(|s| told(&s.summary(), &args.file)).map_err(|e| format!("verify: {e}")),
    };
    match done {
        Ok((_, answer)) if args.json => println!("{answer}"),
        Ok((text, _)) => println!("{text}"),
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

fn save(data: &Path, file: &Path) -> Result<Answer, String> {
    let saved = Snapshot::of_folder(&data.join("store")).map_err(|e| format!("save: {e}"))?;
    saved.write(file).map_err(|e| format!("save: {e}"))?;
    // What is on the disk now, not what was meant to be.
    let read = Snapshot::read(file).map_err(|e| format!("save: {e}"))?;
    Ok(told(&read.summary(), file))
}

fn restore(data: &Path, file: &Path) -> Result<Answer, String> {
    let failed = |e: &dyn std::fmt::Display| format!("restore: {e}");
    let read = Snapshot::read(file).map_err(|e| failed(&e))?;
    minicp::pki::files::make_private_dir(data).map_err(|e| failed(&format!("make {}: {e}", data.display())))?;
    let revision = read.restore(&data.join("store")).map_err(|e| failed(&e))?;
    let summary = read.summary();
    let mut text = format!(
        "{} objects of {} are in {}; it goes on from revision {revision}",
        summary.entries,
        file.display(),
        data.join("store").display()
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
    let answer = json!({"file": file.display().to_string(), "revision": revision.0, "objects": summary.entries, "missing": missing});
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
        assert_eq!(of(&["--help"]), Ok(None));
        for bad in [&[][..], &["save"], &["drop", "f"], &["save", "f", "g"], &["verify", "f", "-o", "yaml"], &["--x"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
