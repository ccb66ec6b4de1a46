//! What may stand on the command line of `mote image`, of any verb.

use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use mote_images::{
    ArchiveFormat, BlobPolicy, Credentials, Error, GcPolicy, ImageConfig, PackLayer, Platform, PullOptions, Reference,
    Registries,
};

use super::super::flags::Given;
use super::super::{json, registries};
use super::Failure;

/// Everything that may stand on the command line of any verb.
#[derive(Default)]
pub(super) struct Args {
    pub data_dir: Option<PathBuf>,
    pub json: bool,
    pub words: Vec<String>,
    pub platform: Option<Platform>,
    pub blobs: BlobPolicy,
    pub repair: bool,
    pub gc: GcPolicy,
    pub format: ArchiveFormat,
    pub registries: Registries,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub name: Option<Reference>,
    pub layers: Vec<PackLayer>,
    pub files: Vec<(String, PathBuf, u32)>,
    pub config: ImageConfig,
    pub uncompressed: bool,
}

impl Args {
    /// Who we are to the registry, as far as the command line says.
    pub(super) fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let (Some(user), Some(path)) = (&self.user, &self.password_file) else {
            return if self.user.is_none() && self.password_file.is_none() {
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

    /// How a pull is to be done.
    pub(super) fn pull_options(&self) -> Result<PullOptions, Failure> {
        Ok(PullOptions {
            platform: self.platform.clone().unwrap_or_else(Platform::machine),
            credentials: self.credentials()?,
            registries: self.registries.clone(),
            blobs: self.blobs,
            durable: true,
        })
    }
}

/// Verb and the rest; `None`: help is wanted.
pub(super) fn parse(mut parser: lexopt::Parser) -> Result<Option<(String, Args)>, lexopt::Error> {
    let mut args = Args::default();
    let mut verb = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("data-dir") => args.data_dir = Some(parser.value()?.into()),
            Long("output") | Short('o') => args.json = json(&mut parser)?,
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
fn config(path: &Path) -> Result<ImageConfig, lexopt::Error> {
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
