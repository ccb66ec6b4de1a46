//! Export: oci-archive, docker-archive, or an OCI layout folder, as skopeo, podman, docker and containerd read them, of one image or several;
//! the same images give the same bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::digest::Hasher;
use crate::layer::codec::Decoder;
use crate::layer::hashing::Hashing;
use crate::limits::LAYER_TAR_BYTES_MAX;
use crate::pack::open;
use crate::push::Whole;
use crate::store::{Inner, Store};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Reference};

/// What an export looks like.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ArchiveFormat {
    /// An OCI layout in a tar; layers stay compressed, so the digests are those of the registry.
    #[default]
    OciArchive,
    /// What `docker save` writes and `docker load` reads: layers uncompressed.
    DockerArchive,
    /// An OCI layout as a folder, which must not be there yet.
    OciLayout,
}

impl std::str::FromStr for ArchiveFormat {
    type Err = Error;
    fn from_str(text: &str) -> Result<ArchiveFormat, Error> {
        match text {
            "oci-archive" => Ok(ArchiveFormat::OciArchive),
            "docker-archive" => Ok(ArchiveFormat::DockerArchive),
            "oci" | "oci-layout" => Ok(ArchiveFormat::OciLayout),
            _ => Err(Error::refused(format!("format {text:?}"), "it is oci-archive, docker-archive or oci")),
        }
    }
}

impl Store {
    /// Writes an image as oci-archive.
    pub fn export(&self, reference: &Reference, to: &Path, cancel: &Cancel) -> Result<(), Error> {
        self.export_as(std::slice::from_ref(reference), to, ArchiveFormat::OciArchive, cancel)
    }

    /// Writes images as one file or folder, which appears only when it is whole; what they share is in it once. Needs the compressed
    /// layers ([`Store::borrow_blobs`]).
    pub fn export_as(
        &self,
        references: &[Reference],
        to: &Path,
        format: ArchiveFormat,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let mut images: Vec<(&Reference, Whole)> = Vec::new();
        for reference in references {
            if !images.iter().any(|(known, _)| *known == reference) {
                images.push((reference, Whole::with_layers(inner, reference)?));
            }
        }
        if format == ArchiveFormat::OciLayout && to.symlink_metadata().is_ok() {
            return Err(Error::refused(to.display().to_string(), "it exists already"));
        }
        let mut part = to.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let job = Job { inner, images: &images, cancel };
        let done = job.write(&part, format).and_then(|()| {
            let parent = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let renamed = std::fs::rename(&part, to).and_then(|()| File::open(parent)?.sync_all());
            renamed.map_err(|e| Error::io("rename to", to, e))
        });
        if done.is_err() {
            let _ = std::fs::remove_file(&part).or_else(|_| std::fs::remove_dir_all(&part));
        }
        done
    }
}

struct Job<'a> {
    inner: &'a Inner,
    images: &'a [(&'a Reference, Whole)],
    cancel: &'a Cancel,
}

impl Job<'_> {
    fn write(&self, part: &Path, format: ArchiveFormat) -> Result<(), Error> {
        let mut out = Sink::new(part, format)?;
        match format {
            ArchiveFormat::DockerArchive => self.docker(&mut out)?,
            ArchiveFormat::OciArchive | ArchiveFormat::OciLayout => self.layout(&mut out)?,
        }
        out.finish()
    }

    fn layout(&self, out: &mut Sink) -> Result<(), Error> {
        let offer = |(reference, whole): &(&Reference, Whole)| {
            // A bare tag is what skopeo and docker write; among several images it would not tell them apart.
            let short = reference.tag().unwrap_or("latest").to_owned();
            let name = if self.images.len() == 1 { short } else { reference.familiar() };
            json!({
                "mediaType": whole.media_type,
                "digest": whole.digest.to_string(),
                "size": whole.bytes.len(),
                "annotations": {
                    "io.containerd.image.name": reference.to_string(),
                    "org.opencontainers.image.ref.name": name,
                },
            })
        };
        let offers: Vec<_> = self.images.iter().map(offer).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": crate::manifest::OCI_INDEX, "manifests": offers });
        out.folder("blobs/")?;
        out.folder("blobs/sha256/")?;
        out.document("index.json", index.to_string().as_bytes())?;
        out.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut written = BTreeSet::new();
        for (_, whole) in self.images {
            if written.insert(whole.digest) {
                out.document(&format!("blobs/sha256/{}", whole.digest.hex()), &whole.bytes)?;
            }
            for descriptor in [&whole.manifest.config].into_iter().chain(&whole.manifest.layers) {
                self.cancel.check()?;
                if written.insert(descriptor.digest) {
                    let name = format!("blobs/sha256/{}", descriptor.digest.hex());
                    out.file(&name, descriptor.size, &mut open(&self.inner.layout.blob(&descriptor.digest))?)?;
                }
            }
        }
        Ok(())
    }

    fn docker(&self, out: &mut Sink) -> Result<(), Error> {
        let mut saved: Vec<Saved> = Vec::new();
        for (reference, whole) in self.images {
            let tags = reference.tag().map(|_| reference.familiar());
            // The same image under another name.
            if let Some(known) = saved.iter_mut().find(|known| known.config_digest == whole.manifest.config.digest) {
                known.tags.extend(tags);
                continue;
            }
            let config_digest = whole.manifest.config.digest;
            let config = self.inner.read_blob(&config_digest)?.unwrap_or_default();
            let (_, diff_ids) = ImageConfig::parse(&config, &reference.to_string())?;
            let layers = whole.manifest.layers.iter().map(|layer| layer.digest).zip(diff_ids).collect();
            saved.push(Saved { config_digest, config, tags: tags.into_iter().collect(), layers });
        }
        let list: Vec<_> = saved
            .iter()
            .map(|image| {
                let layers: Vec<String> = image.layers.iter().map(|(_, diff_id)| archived(diff_id)).collect();
                json!({ "Config": format!("{}.json", image.config_digest.hex()), "RepoTags": image.tags, "Layers": layers })
            })
            .collect();
        out.document("manifest.json", serde_json::Value::from(list).to_string().as_bytes())?;
        let mut written = BTreeSet::new();
        for image in &saved {
            out.document(&format!("{}.json", image.config_digest.hex()), &image.config)?;
            for (blob, diff_id) in &image.layers {
                self.cancel.check()?;
                if written.insert(*diff_id) {
                    self.plain_layer(out, blob, diff_id)?;
                }
            }
        }
        Ok(())
    }

    /// A layer as docker-archive has it: not compressed.
    fn plain_layer(&self, out: &mut Sink, blob: &Digest, diff_id: &DiffId) -> Result<(), Error> {
        let path = self.inner.layout.blob(blob);
        let inflate = Decoder::new(BufReader::new(open(&path)?)).map_err(|e| Error::io("read", &path, e))?;
        let mut plain = Hashing::new(inflate, LAYER_TAR_BYTES_MAX);
        out.file_of_any_length(&archived(diff_id), &mut plain)?;
        match plain.finish().0.map(Hasher::diff_id) {
            Some(found) if found != *diff_id => {
                Err(Error::corrupt(format!("blob {blob}"), format!("inflates to {found}, not to {diff_id}")))
            }
            _ => Ok(()),
        }
    }
}

/// One image of a docker-archive.
struct Saved {
    config_digest: Digest,
    config: Vec<u8>,
    tags: Vec<String>,
    /// Compressed and plain names, base first.
    layers: Vec<(Digest, DiffId)>,
}

fn archived(diff_id: &DiffId) -> String {
    format!("{}.tar", diff_id.hex())
}

/// A tar or a folder in the making.
enum Sink {
    Tar { out: BufWriter<File>, path: PathBuf },
    Folder(PathBuf),
}

impl Sink {
    fn new(path: &Path, format: ArchiveFormat) -> Result<Sink, Error> {
        if format == ArchiveFormat::OciLayout {
            std::fs::create_dir(path).map_err(|e| Error::io("create", path, e))?;
            return Ok(Sink::Folder(path.to_owned()));
        }
        let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
        Ok(Sink::Tar { out: BufWriter::new(file), path: path.to_owned() })
    }

    fn folder(&mut self, name: &str) -> Result<(), Error> {
        match self {
            Sink::Tar { out, path } => {
                header(out, name, tar::EntryType::Directory, 0).map_err(|e| Error::io("write", path, e))
            }
            Sink::Folder(dir) => {
                std::fs::create_dir(dir.join(name)).map_err(|e| Error::io("create", dir.join(name), e))
            }
        }
    }

    fn document(&mut self, name: &str, mut bytes: &[u8]) -> Result<(), Error> {
        self.file(name, bytes.len() as u64, &mut bytes)
    }

    fn file(&mut self, name: &str, size: u64, bytes: &mut impl Read) -> Result<(), Error> {
        let mut write = |out: &mut dyn Write| {
            let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
            (io::copy(&mut bytes.take(size), out)? == size).then_some(()).ok_or_else(short)
        };
        match self {
            Sink::Tar { out, path } => {
                let done = header(out, name, tar::EntryType::Regular, size).and_then(|()| write(out));
                done.and_then(|()| pad(out, size)).map_err(|e| Error::io("write", path, e))
            }
            Sink::Folder(dir) => {
                let path = dir.join(name);
                let done = File::create(&path).and_then(|mut file| {
                    write(&mut file)?;
                    file.sync_all()
                });
                done.map_err(|e| Error::io("write", &path, e))
            }
        }
    }

    /// The header is written again when the length is known.
    fn file_of_any_length(&mut self, name: &str, bytes: &mut impl Read) -> Result<(), Error> {
        let Sink::Tar { out, path } = self else {
            return Err(Error::refused(name, "a folder takes no uncompressed layers"));
        };
        let mut write = || -> io::Result<()> {
            let at = out.stream_position()?;
            header(out, name, tar::EntryType::Regular, 0)?;
            let size = io::copy(bytes, out)?;
            pad(out, size)?;
            let end = out.stream_position()?;
            out.seek(SeekFrom::Start(at))?;
            header(out, name, tar::EntryType::Regular, size)?;
            out.seek(SeekFrom::Start(end)).map(drop)
        };
        write().map_err(|e| Error::io("write", &*path, e))
    }

    fn finish(self) -> Result<(), Error> {
        match self {
            Sink::Tar { mut out, path } => {
                let done =
                    out.write_all(&[0; 1024]).and_then(|()| out.into_inner().map_err(|e| e.into_error())?.sync_all());
                done.map_err(|e| Error::io("write", &path, e))
            }
            Sink::Folder(dir) => {
                let sync = |path: &Path| File::open(path)?.sync_all();
                ["blobs/sha256", "blobs", ""]
                    .iter()
                    .try_for_each(|name| sync(&dir.join(name)))
                    .map_err(|e| Error::io("sync", &dir, e))
            }
        }
    }
}

/// A ustar header; sizes above its octal field (8 GiB) in GNU's binary form.
fn header(out: &mut impl Write, name: &str, kind: tar::EntryType, size: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
    out.write_all([0u8; 512].get(..rest).unwrap_or_default())
}
