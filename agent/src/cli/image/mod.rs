//! `mote image`: the image store from the command line. One function per verb; what is printed on stdout is for people unless
//! `--output json` is given; progress goes to stderr.

use std::path::Path;
use std::process::ExitCode;

use mote_images::{Cancel, Compression, Damage, Error, ImageConfig, PackLayer, PackSpec, Platform, Reference, Store};
use mote_runtime::show;
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::{flags, registries};
use crate::progress::{Shown, bytes_text};
use args::{Args, parse};

mod args;
mod show;

/// Status after SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;
/// Between a signal and the end by force.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

const VERBS: &[&str] =
    &["pull", "ls", "list", "df", "rm", "pin", "unpin", "prune", "gc", "verify", "import", "export", "push", "pack"];

const HELP: &str = "mote image: the image store

usage: mote image pull REF [--platform OS/ARCH[/VARIANT]] [--keep-blobs | --drop-blobs] 
                           [--user NAME --password-file FILE] [registry options]
                                   a pull that was cut off, killed or lost its power goes on where it stopped
       mote image ls               images and what they take on the disk
       mote image df               what the store takes on the disk, and what could go
       mote image rm REF...        forget images (their layers go with `prune`)
       mote image pin REF...       no sweep takes them, however full the disk is; `unpin` takes that back
       mote image prune            delete what no image and no container needs
       mote image gc [--high PERCENT] [--low PERCENT] [--even-local]
                                   if the disk is fuller than --high (85), delete images, least recently used first, until it is
                                   below --low (80); never what no registry has, unless --even-local
       mote image verify [--repair]     compare everything with its checksums; fetch anew what is damaged (options as for pull)
       mote image import FILE|DIR [--name REF] [--keep-blobs | --drop-blobs]
                                   docker-archive, oci-archive (compressed or not), OCI layout
       mote image export REF... FILE [--format oci-archive|docker-archive|oci]
                                   (options as for pull: dropped layers are fetched; what images share is in the file once)
       mote image push REF [TO]         (options as for pull)
       mote image pack REF --layer DIR... [--config FILE] [--cmd WORD]... [--entrypoint WORD]... [--env NAME=VALUE]... [--user-in-image USER]
                           [--workdir DIR] [--expose PORT/tcp]... [--label NAME=VALUE]... [--stop-signal SIG] [--compression gzip|none]
                           [--platform ...] [--file PATH=FILE[:MODE]]...   (times are SOURCE_DATE_EPOCH, or 0;
                                   --config is an OCI image configuration, changed by what stands behind it)

  --data-dir DIR     default /var/lib/mote
  --output json      for scripts (ls, df, pull, pack, import, verify, gc)

Compressed layers are dropped after unpacking unless the disk is large and half empty, or --keep-blobs says so.
Ctrl-C ends with status 130; what has come is kept.
";

/// Runs `mote image …`; the parser stands behind `image`.
pub(super) fn run(parser: lexopt::Parser) -> ExitCode {
    crate::net::sys::lean_heap(); // the window of one zstd layer is not kept while the next one has its own
    match parse(parser) {
        Ok(None) => {
            let registry_flags: Vec<_> = registries::FLAGS.iter().collect();
            mote_runtime::print(format_args!("{HELP}{}", flags::lines(&registry_flags)));
            ExitCode::SUCCESS
        }
        Ok(Some((verb, args))) => match execute(&verb, args) {
            Ok(code) => code,
            Err(Failure::Usage(why)) => super::usage(&why),
            Err(Failure::Image(Error::Cancelled)) => {
                say_interrupted();
                ExitCode::from(INTERRUPTED)
            }
            Err(Failure::Image(e)) => super::failed(&e),
        },
        Err(e) => super::usage(&e.to_string()),
    }
}

enum Failure {
    Usage(String),
    Image(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Image(e)
    }
}

fn execute(verb: &str, mut args: Args) -> Result<ExitCode, Failure> {
    let cancel = on_interrupt();
    let data_dir = args.data_dir.clone().unwrap_or_else(super::data_dir);
    args.registries = std::mem::take(&mut args.registries).completed(&data_dir);
    let store = Store::open(&data_dir.join("images"))?;
    let words = std::mem::take(&mut args.words);
    match (verb, words.as_slice()) {
        ("pull", [text]) => {
            let image = store.pull(&text.parse()?, &args.pull_options()?, &Shown::new(""), &cancel)?;
            show::images(&[image], args.json);
        }
        ("ls" | "list", []) => {
            show::images(&store.list()?, args.json);
            if !args.json {
                let usage = store.usage()?;
                show!("on disk: {}", bytes_text(usage.layers + usage.blobs + usage.partial));
            }
        }
        ("df", []) => show::disk(&store, args.json)?,
        ("pin" | "unpin", [_, ..]) => {
            for text in &words {
                store.pin(&text.parse()?, verb == "pin")?;
            }
        }
        ("gc", []) => collect(&store, &args, &cancel)?,
        ("rm", [_, ..]) => {
            for text in &words {
                store.remove(&text.parse()?)?;
                show!("forgot {text}");
            }
        }
        ("prune", []) => show!("freed {}", bytes_text(store.prune()?)),
        ("verify", []) => return verify(&store, &args, &cancel),
        ("import", [path]) => import(&store, path.as_ref(), &args, &cancel)?,
        ("export", [texts @ .., path]) if !texts.is_empty() => export(&store, texts, path.as_ref(), &args, &cancel)?,
        ("push", [from]) => push(&store, from, from, &args, &cancel)?,
        ("push", [from, to]) => push(&store, from, to, &args, &cancel)?,
        ("pack", [text]) => pack(&store, text, args, &cancel)?,
        (verb, _) if VERBS.contains(&verb) => {
            return Err(Failure::Usage(format!("image {verb}: wrong number of words")));
        }
        _ => return Err(Failure::Usage(format!("image {verb}: no such verb"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn import(store: &Store, path: &Path, args: &Args, cancel: &Cancel) -> Result<(), Failure> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let images = store.import_with(path, args.name.as_ref(), &platform, args.blobs, &Shown::new(""), cancel)?;
    show::images(&images, args.json);
    Ok(())
}

fn export(store: &Store, texts: &[String], path: &Path, args: &Args, cancel: &Cancel) -> Result<(), Failure> {
    let references: Vec<Reference> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let options = args.pull_options()?;
    let mut loans = Vec::new(); // until the file is whole
    for reference in &references {
        loans.push(store.borrow_blobs(reference, &options, &Shown::new(""), cancel)?);
    }
    Ok(store.export_as(&references, path, args.format, cancel)?)
}

fn push(store: &Store, from: &str, to: &str, args: &Args, cancel: &Cancel) -> Result<(), Failure> {
    let (from, to): (Reference, Reference) = (from.parse()?, to.parse()?);
    let mut options = args.pull_options()?;
    // One registry's credentials are not for another's.
    options.credentials = options.credentials.filter(|_| from.registry() == to.registry());
    let digest = store.push(&from, &to, args.credentials()?, &options, &Shown::new(""), cancel)?;
    show!("{to} {digest}");
    Ok(())
}

fn pack(store: &Store, text: &str, args: Args, cancel: &Cancel) -> Result<(), Failure> {
    let mut layers = args.layers;
    if !args.files.is_empty() {
        layers.push(PackLayer::Files(args.files));
    }
    if layers.is_empty() {
        return Err(Failure::Usage("image pack: give it at least one --layer DIR or --file PATH=FILE".to_owned()));
    }
    let mtime = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let platform = args.platform.unwrap_or_else(|| args.config.platform.clone());
    let config = ImageConfig { platform, ..args.config };
    let compression = if args.uncompressed { Compression::None } else { Compression::Gzip };
    let image = store.pack(&text.parse()?, PackSpec { config, layers, compression, mtime: Some(mtime) }, cancel)?;
    show::images(&[image], args.json);
    Ok(())
}

fn verify(store: &Store, args: &Args, cancel: &Cancel) -> Result<ExitCode, Failure> {
    let found = store.verify(&mote_images::Silent, cancel)?;
    let left = if args.repair && !found.is_empty() {
        store.repair(&found, &args.pull_options()?, &Shown::new(""), cancel)?
    } else {
        found.clone()
    };
    if args.json {
        let list = |damage: &[Damage]| -> Vec<_> {
            damage.iter().map(|found| json!({ "what": found.part.to_string(), "why": found.why })).collect()
        };
        show!("{}", json!({ "damage": list(&found), "left": list(&left) }));
    } else {
        found.iter().for_each(|found| show!("{}: {}", found.part, found.why));
        match (found.is_empty(), left.is_empty()) {
            (true, _) => show!("all is as it was written"),
            (false, true) => show!("all of it is repaired"),
            (false, false) if args.repair => {
                left.iter().for_each(|left| show!("not repaired: {}: {}", left.part, left.why));
            }
            (false, false) => {}
        }
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn collect(store: &Store, args: &Args, cancel: &Cancel) -> Result<(), Failure> {
    if args.gc.low_percent >= args.gc.high_percent {
        return Err(Failure::Usage("image gc: --low must be below --high".to_owned()));
    }
    let swept = store.sweep_images(&args.gc, &|reference, digest| {
        mote_images::can_fetch(reference, digest, &args.registries, cancel)
    })?;
    if args.json {
        show!("{}", json!({ "images": swept.images, "freed": swept.freed, "wanted": swept.wanted }));
    } else {
        swept.images.iter().for_each(|image| show!("deleted {image}"));
        show!("freed {} of {}", bytes_text(swept.freed), bytes_text(swept.wanted));
    }
    Ok(())
}

fn say_interrupted() {
    eprintln!("mote: interrupted; the next pull goes on from here");
}

/// Ctrl-C and SIGTERM set the flag. A read that waits for a silent link does not see it, so the process ends anyway a moment later, or
/// at a second signal: what is unfinished lies where the next start finds it or sweeps it, whichever way this one ends.
fn on_interrupt() -> Cancel {
    let cancel = Cancel::default();
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    if set.thread_block().is_ok() {
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            if set.wait().is_err() {
                return;
            }
            cancel.cancel();
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                say_interrupted();
                std::process::exit(INTERRUPTED.into());
            });
            let _ = set.wait();
            std::process::exit(INTERRUPTED.into());
        });
    }
    cancel
}
