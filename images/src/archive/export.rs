//! Export: an OCI layout in a tar, as skopeo, podman and containerd read it; the same image gives the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde_json::json;

use crate::pack::open;
use crate::push::Whole;
use crate::store::Store;
use crate::{Cancel, Digest, Error, Reference};

impl Store {
    /// Writes an image as oci-archive. The file appears only when it is whole.
    pub fn export(&self, reference: &Reference, to: &Path, cancel: &Cancel) -> Result<(), Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let whole = Whole::of(inner, reference)?;
        let mut part = to.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = Path::new(&part);
        let done = write(&whole, reference, part, cancel, |digest| inner.layout.blob(digest))
            .and_then(|()| std::fs::rename(part, to).map_err(|e| Error::io("rename to", to, e)));
        if done.is_err() {
            let _ = std::fs::remove_file(part);
        }
        done
    }
}

fn write(
    whole: &Whole,
    reference: &Reference,
    part: &Path,
    cancel: &Cancel,
    blob: impl Fn(&Digest) -> std::path::PathBuf,
) -> Result<(), Error> {
    let fail = |e: io::Error| Error::io("write", part, e);
    let mut out = BufWriter::new(File::create(part).map_err(fail)?);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": crate::manifest::OCI_INDEX,
        "manifests": [{
            "mediaType": whole.media_type,
            "digest": whole.digest.to_string(),
            "size": whole.bytes.len(),
            "annotations": {
                "io.containerd.image.name": reference.to_string(),
                "org.opencontainers.image.ref.name": reference.tag().unwrap_or("latest"),
            },
        }],
    });
    for dir in ["blobs/", "blobs/sha256/"] {
        header(&mut out, dir, tar::EntryType::Directory, 0).map_err(fail)?;
    }
    for (name, bytes) in [
        ("index.json".to_owned(), index.to_string().into_bytes()),
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        (format!("blobs/sha256/{}", whole.digest.hex()), whole.bytes.clone()),
    ] {
        content(&mut out, &name, bytes.len() as u64, &mut bytes.as_slice()).map_err(fail)?;
    }
    let mut written = std::collections::BTreeSet::new();
    for descriptor in [&whole.manifest.config].into_iter().chain(&whole.manifest.layers) {
        cancel.check()?;
        if written.insert(descriptor.digest) {
            let name = format!("blobs/sha256/{}", descriptor.digest.hex());
            content(&mut out, &name, descriptor.size, &mut open(&blob(&descriptor.digest))?).map_err(fail)?;
        }
    }
    out.write_all(&[0; 1024]).map_err(fail)?;
    out.into_inner().map_err(|e| fail(e.into_error()))?.sync_all().map_err(fail)
}

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

fn content(out: &mut impl Write, name: &str, size: u64, bytes: &mut impl Read) -> io::Result<()> {
    header(out, name, tar::EntryType::Regular, size)?;
    if io::copy(&mut bytes.take(size), out)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rest = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
    out.write_all([0u8; 512].get(..rest).unwrap_or_default())
}
