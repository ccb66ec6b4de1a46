//! The store: images, their documents, their unpacked layers. One per `<data-dir>/images`; any number of processes share it.

use std::path::{Path, PathBuf};

use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, PackSpec, PullOptions, Reference, Registries};

/// A handle on the store of one folder; clones share it.
#[derive(Clone)]
pub struct Store;

/// An image whose every layer is in the store.
#[derive(Clone)]
pub struct Image {
    pub reference: Reference,
    /// Digest of the configuration: the image's identity (`imageID` of a container status).
    pub id: Digest,
    /// Digest of the manifest of this platform.
    pub manifest: Digest,
    /// Bytes of the files of all layers.
    pub size: u64,
    /// Base first.
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
}

/// One unpacked layer: a lower folder for overlayfs.
#[derive(Clone)]
pub struct Layer {
    pub diff_id: DiffId,
    pub path: PathBuf,
}

/// What `verify` found wrong.
pub struct Damage {
    /// `image REF`, `layer sha256:…`, `blob sha256:…`.
    pub what: String,
    pub why: String,
}

/// Bytes on disk.
pub struct Usage {
    /// Of unpacked layers (shared ones once).
    pub layers: u64,
    /// Of manifests, configurations and kept compressed layers.
    pub blobs: u64,
    /// Of layers no image and no lease needs: what `prune` would free.
    pub unused: u64,
}

impl Store {
    /// Opens the store in `dir`, makes it if it is not there, sweeps what a crash left.
    pub fn open(_dir: &Path) -> Result<Store, Error> {
        todo!()
    }
    /// The image, if all of it is here.
    pub fn find(&self, _reference: &Reference) -> Result<Option<Image>, Error> {
        todo!()
    }
    /// Makes the image be here: asks the registry, fetches and unpacks what is missing.
    pub fn pull(
        &self,
        _reference: &Reference,
        _options: &PullOptions,
        _observer: &dyn Observer,
        _cancel: &Cancel,
    ) -> Result<Image, Error> {
        todo!()
    }
    /// Every image, by reference.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        todo!()
    }
    /// Forgets the image; its layers go with `prune` unless another image or a lease holds them.
    pub fn remove(&self, _reference: &Reference) -> Result<(), Error> {
        todo!()
    }
    /// Keeps the layers of `image` while `owner` (a container id: `[A-Za-z0-9._-]`) lives, also over restarts. Idempotent.
    pub fn lease(&self, _owner: &str, _image: &Image) -> Result<(), Error> {
        todo!()
    }
    /// Ends a lease; no error if there was none.
    pub fn release(&self, _owner: &str) -> Result<(), Error> {
        todo!()
    }
    /// Owners of all leases.
    pub fn leases(&self) -> Result<Vec<String>, Error> {
        todo!()
    }
    /// Deletes layers and blobs that no image and no lease needs; bytes freed.
    pub fn prune(&self) -> Result<u64, Error> {
        todo!()
    }
    /// Reads everything and compares it with what was written.
    pub fn verify(&self, _observer: &dyn Observer, _cancel: &Cancel) -> Result<Vec<Damage>, Error> {
        todo!()
    }
    /// Bytes on disk.
    pub fn usage(&self) -> Result<Usage, Error> {
        todo!()
    }
    /// Builds an image into the store under `reference`. The same input gives the same bytes.
    pub fn pack(&self, _reference: &Reference, _spec: PackSpec, _cancel: &Cancel) -> Result<Image, Error> {
        todo!()
    }
    /// Uploads an image of the store.
    pub fn push(
        &self,
        _from: &Reference,
        _to: &Reference,
        _registries: &Registries,
        _observer: &dyn Observer,
        _cancel: &Cancel,
    ) -> Result<Digest, Error> {
        todo!()
    }
    /// Imports a docker-archive, an oci-archive or an OCI layout folder; `name` where the archive names nothing (or to choose another).
    pub fn import(
        &self,
        _path: &Path,
        _name: Option<&Reference>,
        _observer: &dyn Observer,
        _cancel: &Cancel,
    ) -> Result<Vec<Image>, Error> {
        todo!()
    }
    /// Writes an image as oci-archive (`.tar`), which skopeo, podman and containerd read.
    pub fn export(&self, _reference: &Reference, _to: &Path, _cancel: &Cancel) -> Result<(), Error> {
        todo!()
    }
}
