//! `mote image`: the image store from the command line. One function per verb; what is printed on stdout is for people unless
//! `--output json` is given; progress goes to stderr.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use mote_images::{
    Cancel, Compression, Credentials, Error, Image, ImageConfig, PackLayer, PackSpec, Platform, PullOptions, Reference,
    Registries, Store,
};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::options::{REGISTRY_HELP, is_registry_flag, registry_flag};
use crate::progress::{Shown, bytes_text};

const HELP: &str = "mote image: the image store

usage: mote image pull REF [--platform OS/ARCH[/VARIANT]] [--keep-blobs]
                           [--user NAME --password-file FILE] [registry options]
       mote image ls
       mote image rm REF...            forget images (their layers go with `prune`)
       mote image prune                delete what no image and no container needs
       mote image verify               compare everything with its checksums
       mote image import FILE|DIR [--name REF]     docker-archive, oci-archive, OCI layout
       mote image export REF FILE      as oci-archive
       mote image push REF [TO]        (options as for pull)
       mote image pack REF --layer DIR... [--cmd WORD]... [--entrypoint WORD]... [--env NAME=VALUE]... [--user-in-image USER]
                           [--workdir DIR] [--expose PORT/tcp]... [--label NAME=VALUE]... [--stop-signal SIG] [--compression gzip|none]
                           [--platform ...] [--file PATH=FILE[:MODE]]...   (times are SOURCE_DATE_EPOCH, or 0)

  --data-dir DIR     default /var/lib/mote
  --output json      for scripts (ls, pull, pack, import, verify)
";

/// Everything that may stand on the command line of any verb.
#[derive(Default)]
struct Args {
    data_dir: Option<PathBuf>,
    json: bool,
    words: Vec<String>,
    platform: Option<Platform>,
    keep_blobs: bool,
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
            print!("{HELP}{REGISTRY_HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some((verb, args))) => match execute(&verb, args) {
            Ok(code) => code,
            Err(Failure::Usage(why)) => super::usage(&why),
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
            Long("keep-blobs") => args.keep_blobs = true,
            Long(name) if is_registry_flag(name) => {
                let name = name.to_owned();
                registry_flag(&name, &mut parser, &mut args.registries)?;
            }
            Long("user") => args.user = Some(parser.value()?.string()?),
            Long("password-file") => args.password_file = Some(parser.value()?.into()),
            Long("name") => args.name = Some(parsed(&mut parser)?),
            Long("layer") => args.layers.push(PackLayer::Dir(parser.value()?.into())),
            Long("file") => args.files.push(file(&parser.value()?.string()?)?),
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
    verb.map(|verb| Some((verb, args)))
        .ok_or_else(|| "which verb? pull, ls, rm, prune, verify, import, export, push or pack".into())
}

fn parsed<T: std::str::FromStr<Err = Error>>(parser: &mut lexopt::Parser) -> Result<T, lexopt::Error> {
    parser.value()?.string()?.parse().map_err(|e: Error| e.to_string().into())
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
    let registries = args.registries.clone().completed(&data_dir);
    let store = Store::open(&data_dir.join("images"))?;
    match (verb, args.words.as_slice()) {
        ("pull", [text]) => {
            let reference: Reference = text.parse()?;
            let options = PullOptions {
                platform: args.platform.clone().unwrap_or_else(Platform::machine),
                credentials: credentials(&args)?,
                registries,
                keep_blobs: args.keep_blobs,
                durable: true,
            };
            let image = store.pull(&reference, &options, &Shown::new(""), &cancel)?;
            show(&[image], args.json);
        }
        ("ls" | "list", []) => show(&store.list()?, args.json),
        ("rm", [_, ..]) => {
            for text in &args.words {
                store.remove(&text.parse()?)?;
                println!("forgot {text}");
            }
        }
        ("prune", []) => println!("freed {}", bytes_text(store.prune()?)),
        ("verify", []) => return verify(&store, &cancel, args.json),
        ("import", [path]) => {
            let platform = args.platform.clone().unwrap_or_else(Platform::host);
            let images = store.import(path.as_ref(), args.name.as_ref(), &platform, &Shown::new(""), &cancel)?;
            show(&images, args.json);
        }
        ("export", [text, path]) => store.export(&text.parse()?, path.as_ref(), &cancel)?,
        ("push", [from, rest @ ..]) if rest.len() < 2 => {
            let from: Reference = from.parse()?;
            let to = rest.first().map_or_else(|| Ok(from.clone()), |to| to.parse())?;
            let digest = store.push(&from, &to, credentials(&args)?, &registries, &Shown::new(""), &cancel)?;
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
            let config = ImageConfig { platform: args.platform.unwrap_or_else(Platform::host), ..args.config };
            let compression = if args.uncompressed { Compression::None } else { Compression::Gzip };
            let image =
                store.pack(&text.parse()?, PackSpec { config, layers, compression, mtime: Some(mtime) }, &cancel)?;
            show(&[image], args.json);
        }
        ("pull" | "ls" | "list" | "rm" | "prune" | "verify" | "import" | "export" | "push" | "pack", _) => {
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

fn verify(store: &Store, cancel: &Cancel, as_json: bool) -> Result<ExitCode, Failure> {
    let damage = store.verify(&mote_images::Silent, cancel)?;
    if as_json {
        let list: Vec<_> = damage.iter().map(|found| json!({ "what": found.what, "why": found.why })).collect();
        println!("{}", json!({ "damage": list }));
    } else {
        damage.iter().for_each(|found| println!("{}: {}", found.what, found.why));
        if damage.is_empty() {
            println!("all is as it was written");
        }
    }
    Ok(if damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// Ctrl-C and SIGTERM set the flag; a second one ends the process at once. Work in progress lies in the store's tmp folder and is
/// swept, whichever way it ends.
fn on_interrupt() -> Cancel {
    let cancel = Cancel::default();
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    if set.thread_block().is_ok() {
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            for times in 0.. {
                if set.wait().is_err() {
                    return;
                }
                if times > 0 {
                    std::process::exit(130);
                }
                cancel.cancel();
            }
        });
    }
    cancel
}
