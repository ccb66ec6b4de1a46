//! `mote image`: the image store from the command line. One function per verb; what is printed on stdout is for people unless
//! `--output json` is given; progress goes to stderr.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use mote_images::{
    ArchiveFormat, BlobPolicy, Cancel, Compression, Credentials, Damage, Error, GcPolicy, Image, ImageConfig,
    PackLayer, PackSpec, Platform, PullOptions, Reference, Registries, Store,
};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::flags::{self, Given};
use super::registries;
use crate::progress::{Shown, bytes_text};

/// Status after SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;
/// Between a signal and the end by force.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

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

/// Everything that may stand on the command line of any verb.
#[derive(Default)]
struct Args {
    data_dir: Option<PathBuf>,
    json: bool,
    words: Vec<String>,
    platform: Option<Platform>,
    blobs: BlobPolicy,
    repair: bool,
    gc: GcPolicy,
    format: ArchiveFormat,
    registries: Registries,
    user: Option<String>,
    password_file: Option<PathBuf>,
    name: Option<Reference>,
    layers: Vec<PackLayer>,
    files: Vec<(String, PathBuf, u32)>,
    config: ImageConfig,
    uncompressed: bool,
}

/// Runs `mote image …`; the parser stands behind `image`.
pub(super) fn run(parser: lexopt::Parser) -> ExitCode {
    match parse(parser) {
        Ok(None) => {
            let registry_flags: Vec<_> = registries::FLAGS.iter().collect();
            print!("{HELP}{}", flags::lines(&registry_flags));
            ExitCode::SUCCESS
        }
        Ok(Some((verb, args))) => match execute(&verb, args) {
            Ok(code) => code,
            Err(Failure::Usage(why)) => super::usage(&why),
            Err(Failure::Image(Error::Cancelled)) => {
                eprintln!("mote: interrupted; the next pull goes on from here");
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

fn parse(mut parser: lexopt::Parser) -> Result<Option<(String, Args)>, lexopt::Error> {
    let mut args = Args::default();
    let mut verb = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("data-dir") => args.data_dir = Some(parser.value()?.into()),
            Long("output") | Short('o') => match parser.value()?.string()?.as_str() {
                "json" => args.json = true,
                other => return Err(format!("unknown output format {other:?}; it is json or nothing").into()),
            },
            Long("platform") => args.platform = Some(parsed(&mut parser)?),
            Long("keep-blobs") => args.blobs = BlobPolicy::Keep,
            Long("drop-blobs") => args.blobs = BlobPolicy::Drop,
            Long("repair") => args.repair = true,
            Long("format") => args.format = parsed(&mut parser)?,
            Long("high") => args.gc.high_percent = percent(&mut parser)?,
            Long("low") => args.gc.low_percent = percent(&mut parser)?,
            Long("even-local") => args.gc.even_local = true,
            Long(name) if registries::find(name).is_some() => {
                let flag = registries::find(name);
                let value = Given::new(parser.value()?);
                flag.map_or(Ok(()), |flag| (flag.set)(&mut args.registries, value))?;
            }
            Long("user") => args.user = Some(parser.value()?.string()?),
            Long("password-file") => args.password_file = Some(parser.value()?.into()),
            Long("name") => args.name = Some(parsed(&mut parser)?),
            Long("layer") => args.layers.push(PackLayer::Dir(parser.value()?.into())),
            Long("file") => args.files.push(file(&parser.value()?.string()?)?),
            Long("config") => args.config = config(&PathBuf::from(parser.value()?))?,
            Long("cmd") => args.config.cmd.push(parser.value()?.string()?),
            Long("entrypoint") => args.config.entrypoint.push(parser.value()?.string()?),
            Long("env") => args.config.env.push(parser.value()?.string()?),
            Long("user-in-image") => args.config.user = parser.value()?.string()?,
            Long("workdir") => args.config.working_dir = parser.value()?.string()?,
            Long("expose") => args.config.exposed_ports.push(parser.value()?.string()?),
            Long("stop-signal") => args.config.stop_signal = parser.value()?.string()?,
            Long("label") => {
                let label = parser.value()?.string()?;
                let (name, value) = label.split_once('=').ok_or("a label is NAME=VALUE")?;
                args.config.labels.push((name.to_owned(), value.to_owned()));
            }
            Long("compression") => match parser.value()?.string()?.as_str() {
                "gzip" => args.uncompressed = false,
                "none" => args.uncompressed = true,
                other => return Err(format!("unknown compression {other:?}").into()),
            },
            Value(word) if verb.is_none() => verb = Some(word.string()?),
            Value(word) => args.words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    verb.map(|verb| Some((verb, args))).ok_or_else(|| {
        "which verb? pull, ls, df, rm, pin, unpin, prune, gc, verify, import, export, push or pack".into()
    })
}

fn percent(parser: &mut lexopt::Parser) -> Result<u8, lexopt::Error> {
    let text = parser.value()?.string()?;
    text.parse().ok().filter(|percent| *percent <= 100).ok_or_else(|| format!("{text:?} is no percentage").into())
}

fn parsed<T: std::str::FromStr<Err = Error>>(parser: &mut lexopt::Parser) -> Result<T, lexopt::Error> {
    parser.value()?.string()?.parse().map_err(|e: Error| e.to_string().into())
}

/// An image configuration (OCI image specification, "config.md") from a file; what it says of layers does not count.
fn config(path: &std::path::Path) -> Result<ImageConfig, lexopt::Error> {
    let what = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| format!("read {what}: {e}"))?;
    let (mut config, _) = ImageConfig::parse(&bytes, &what).map_err(|e| e.to_string())?;
    if config.platform.architecture.is_empty() {
        config.platform = Platform::host();
    }
    Ok(config)
}

/// `PATH=FILE[:MODE]`
fn file(text: &str) -> Result<(String, PathBuf, u32), lexopt::Error> {
    let (path, source) = text.split_once('=').ok_or("a file is PATH=FILE[:MODE]")?;
    let (source, mode) = match source.rsplit_once(':') {
        Some((source, mode)) => (source, u32::from_str_radix(mode, 8).map_err(|_| "a mode is octal, 0755")?),
        None => (source, 0o755),
    };
    Ok((path.to_owned(), source.into(), mode))
}

fn execute(verb: &str, args: Args) -> Result<ExitCode, Failure> {
    let usage = |why: &str| Failure::Usage(format!("image {verb}: {why}"));
    let cancel = on_interrupt();
    let data_dir = args.data_dir.clone().unwrap_or_else(super::data_dir);
    let mut args = args;
    args.registries = std::mem::take(&mut args.registries).completed(&data_dir);
    let store = Store::open(&data_dir.join("images"))?;
    match (verb, args.words.as_slice()) {
        ("pull", [text]) => {
            let reference: Reference = text.parse()?;
            let image = store.pull(&reference, &pull_options(&args)?, &Shown::new(""), &cancel)?;
            show(&[image], args.json);
        }
        ("ls" | "list", []) => {
            show(&store.list()?, args.json);
            if !args.json {
                let usage = store.usage()?;
                println!("on disk: {}", bytes_text(usage.layers + usage.blobs + usage.partial));
            }
        }
        ("df", []) => disk(&store, args.json)?,
        ("pin" | "unpin", [_, ..]) => {
            for text in &args.words {
                store.pin(&text.parse()?, verb == "pin")?;
            }
        }
        ("gc", []) => collect(&store, &args, &cancel)?,
        ("rm", [_, ..]) => {
            for text in &args.words {
                store.remove(&text.parse()?)?;
                println!("forgot {text}");
            }
        }
        ("prune", []) => println!("freed {}", bytes_text(store.prune()?)),
        ("verify", []) => return verify(&store, &args, &cancel),
        ("import", [path]) => {
            let platform = args.platform.clone().unwrap_or_else(Platform::host);
            let images = store.import_with(
                path.as_ref(),
                args.name.as_ref(),
                &platform,
                args.blobs,
                &Shown::new(""),
                &cancel,
            )?;
            show(&images, args.json);
        }
        ("export", [texts @ .., path]) if !texts.is_empty() => {
            let references: Vec<Reference> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            let options = pull_options(&args)?;
            let mut loans = Vec::new(); // until the file is whole
            for reference in &references {
                loans.push(store.borrow_blobs(reference, &options, &Shown::new(""), &cancel)?);
            }
            store.export_as(&references, path.as_ref(), args.format, &cancel)?;
        }
        ("push", [from, rest @ ..]) if rest.len() < 2 => {
            let from: Reference = from.parse()?;
            let to = rest.first().map_or_else(|| Ok(from.clone()), |to| to.parse())?;
            let mut options = pull_options(&args)?;
            // One registry's credentials are not for another's.
            options.credentials = options.credentials.filter(|_| from.registry() == to.registry());
            let digest = store.push(&from, &to, credentials(&args)?, &options, &Shown::new(""), &cancel)?;
            println!("{to} {digest}");
        }
        ("pack", [text]) => {
            let mut layers = args.layers;
            if !args.files.is_empty() {
                layers.push(PackLayer::Files(args.files));
            }
            if layers.is_empty() {
                return Err(usage("give it at least one --layer DIR or --file PATH=FILE"));
            }
            let mtime = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            let platform = args.platform.unwrap_or_else(|| args.config.platform.clone());
            let config = ImageConfig { platform, ..args.config };
            let compression = if args.uncompressed { Compression::None } else { Compression::Gzip };
            let image =
                store.pack(&text.parse()?, PackSpec { config, layers, compression, mtime: Some(mtime) }, &cancel)?;
            show(&[image], args.json);
        }
        (
            "pull" | "ls" | "list" | "df" | "rm" | "pin" | "unpin" | "prune" | "gc" | "verify" | "import" | "export"
            | "push" | "pack",
            _,
        ) => {
            return Err(usage("wrong number of words"));
        }
        _ => return Err(usage("no such verb")),
    }
    Ok(ExitCode::SUCCESS)
}

fn credentials(args: &Args) -> Result<Option<Credentials>, Failure> {
    let (Some(user), Some(path)) = (&args.user, &args.password_file) else {
        return if args.user.is_none() && args.password_file.is_none() {
            Ok(None)
        } else {
            Err(Failure::Usage("--user and --password-file belong together".to_owned()))
        };
    };
    let password =
        std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("read {}: {e}", path.display())))?;
    Ok(Some(Credentials {
        username: user.clone(),
        password: password.trim_end_matches(['\n', '\r']).to_owned(),
        identity_token: None,
    }))
}

fn pull_options(args: &Args) -> Result<PullOptions, Failure> {
    Ok(PullOptions {
        platform: args.platform.clone().unwrap_or_else(Platform::machine),
        credentials: credentials(args)?,
        registries: args.registries.clone(),
        blobs: args.blobs,
        durable: true,
    })
}

fn verify(store: &Store, args: &Args, cancel: &Cancel) -> Result<ExitCode, Failure> {
    let found = store.verify(&mote_images::Silent, cancel)?;
    let left = if args.repair && !found.is_empty() {
        store.repair(&found, &pull_options(args)?, &Shown::new(""), cancel)?
    } else {
        found.clone()
    };
    if args.json {
        let list = |damage: &[Damage]| -> Vec<_> {
            damage.iter().map(|found| json!({ "what": found.part.to_string(), "why": found.why })).collect()
        };
        println!("{}", json!({ "damage": list(&found), "left": list(&left) }));
    } else {
        found.iter().for_each(|found| println!("{}: {}", found.part, found.why));
        match (found.is_empty(), left.is_empty()) {
            (true, _) => println!("all is as it was written"),
            (false, true) => println!("all of it is repaired"),
            (false, false) if args.repair => {
                left.iter().for_each(|left| println!("not repaired: {}: {}", left.part, left.why));
            }
            (false, false) => {}
        }
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn disk(store: &Store, as_json: bool) -> Result<(), Failure> {
    let (usage, space) = (store.usage()?, store.space()?);
    let rows = [
        ("layers", usage.layers),
        ("blobs", usage.blobs),
        ("partial", usage.partial),
        ("unused", usage.unused),
        ("disk", space.total),
        ("available", space.available),
    ];
    if as_json {
        println!("{}", json!(rows.iter().map(|(name, bytes)| (*name, *bytes)).collect::<BTreeMap<_, _>>()));
        return Ok(());
    }
    for ((name, bytes), what) in rows.iter().zip([
        "unpacked, shared ones once",
        "documents and kept compressed layers",
        "begun transfers",
        "of that could go with `mote image prune`",
        "the file system under it",
        "",
    ]) {
        println!("{}", format!("{name:9}  {:>9}  {what}", bytes_text(*bytes)).trim_end());
    }
    Ok(())
}

fn collect(store: &Store, args: &Args, cancel: &Cancel) -> Result<(), Failure> {
    if args.gc.low_percent >= args.gc.high_percent {
        return Err(Failure::Usage("image gc: --low must be below --high".to_owned()));
    }
    let swept = store.sweep_images(&args.gc, &|reference, digest| {
        mote_images::can_fetch(reference, digest, &args.registries, cancel)
    })?;
    if args.json {
        println!("{}", json!({ "images": swept.images, "freed": swept.freed, "wanted": swept.wanted }));
    } else {
        swept.images.iter().for_each(|image| println!("deleted {image}"));
        println!("freed {} of {}", bytes_text(swept.freed), bytes_text(swept.wanted));
    }
    Ok(())
}

fn show(images: &[Image], as_json: bool) {
    if as_json {
        let list: Vec<_> = images
            .iter()
            .map(|image| {
                let layers: Vec<_> = image.layers.iter().map(|layer| json!({ "diffID": layer.diff_id.to_string(), "path": layer.path })).collect();
                json!({ "reference": image.reference.to_string(), "id": image.id.to_string(), "digest": image.resolved.to_string(),
                    "platform": image.config.platform.to_string(), "size": image.size, "layers": layers })
            })
            .collect();
        println!("{}", json!({ "images": list }));
        return;
    }
    let width = images.iter().map(|image| image.reference.familiar().len()).max().unwrap_or(0).max(9);
    println!("{:width$}  {:12}  {:14}  {:>6}  {:>9}", "REFERENCE", "ID", "PLATFORM", "LAYERS", "SIZE");
    for image in images {
        let id: String = image.id.hex().chars().take(12).collect();
        let platform = image.config.platform.to_string();
        println!(
            "{:width$}  {id:12}  {platform:14}  {:>6}  {:>9}",
            image.reference.familiar(),
            image.layers.len(),
            bytes_text(image.size)
        );
    }
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
                std::process::exit(INTERRUPTED.into());
            });
            let _ = set.wait();
            std::process::exit(INTERRUPTED.into());
        });
    }
    cancel
}
