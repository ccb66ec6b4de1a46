//! Making whole again: damaged or missing documents and layers are fetched anew, just those, by digest. What no registry has is left as it
//! is and said.

use std::collections::BTreeSet;
use std::io::Read;

use crate::manifest;
use crate::pull::{PullOptions, Taking, WantedLayer, config_bytes, document, plan, take_in_all};
use crate::registry::blob::Blob;
use crate::registry::client::Client;
use crate::store::record::ImageRecord;
use crate::store::{Damage, Inner, Names, Part, Store};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, Reference, Registries};

/// Whether the registry would give an image again. One that wants other credentials than ours is there, and so are they who have them.
pub fn can_fetch(reference: &Reference, digest: &Digest, registries: &Registries, cancel: &Cancel) -> bool {
    let asked = Client::new(reference, None, registries, cancel)
        .and_then(|client| client.get(&format!("manifests/{digest}"), &[("accept", manifest::accept())]).map(drop));
    match asked {
        Ok(()) | Err(Error::Unauthorized { .. }) => true,
        Err(e) => {
            log::info!("image {reference} stays: {e}");
            false
        }
    }
}

impl Store {
    /// Fetches anew what `verify` found damaged or missing; what is still wrong after that, and why. Layers a container uses are not
    /// replaced under it.
    pub fn repair(
        &self,
        damage: &[Damage],
        options: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Vec<Damage>, Error> {
        let inner = &*self.inner;
        let mut left = Vec::new();
        let leased = inner.leased()?.layers;
        let mut anew: BTreeSet<DiffId> = BTreeSet::new();
        for found in damage {
            match &found.part {
                Part::Layer(diff_id) if leased.contains(&crate::store::layout::layer_name(diff_id)) => {
                    let why = format!("{}; a container uses it: stop it, then repair", found.why);
                    left.push(Damage { part: found.part.clone(), why });
                }
                Part::Layer(diff_id) => drop(anew.insert(*diff_id)),
                // The next pull fetches it from its start.
                Part::Partial(name) => inner.discard_partial(name),
                Part::Record(name) => {
                    let path = inner.layout.dir("images").join(name);
                    inner.layout.disk.unlink(&path).map_err(|e| Error::io("delete", &path, e))?;
                    let why = format!("{}; which image it was is lost: pull it again", found.why);
                    left.push(Damage { part: found.part.clone(), why });
                }
                Part::Blob(_) | Part::Image(_) => {}
            }
        }
        // Links into a layer that is replaced lead to what was there before: the top layers of all its images are made anew.
        let replaced = anew.clone();
        let lost: BTreeSet<&str> = damage
            .iter()
            .filter_map(|found| if let Part::Blob(hex) = &found.part { Some(hex.as_str()) } else { None })
            .collect();
        for hex in &lost {
            // Whatever it was: it is not what its name says.
            let path = inner.layout.dir("blobs").join(hex);
            inner.layout.disk.unlink(&path).map_err(|e| Error::io("delete", &path, e))?;
        }
        let mut restored = BTreeSet::new();
        for record in inner.image_records()? {
            cancel.check()?;
            let is_hurt = record.layers.iter().chain(&record.top).any(|diff_id| replaced.contains(diff_id))
                || Names::of(&record).blobs.iter().any(|hex| lost.contains(hex.as_str()))
                || damage.iter().any(|found| matches!(&found.part, Part::Image(name) if *name == record.reference))
                || !matches!(inner.image(&record), Ok(Some(_)));
            if !is_hurt {
                continue;
            }
            match inner.restore(&record, &anew, options, observer, cancel) {
                Ok(()) => {
                    anew.retain(|diff_id| !record.layers.contains(diff_id) && record.top != Some(*diff_id));
                    restored.insert(record.reference);
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(e) => left.push(Damage { part: Part::Image(record.reference), why: e.to_string() }),
            }
        }
        let _writing = inner.writing()?;
        // Layers of no image: nobody needs them, nobody knows where from.
        for diff_id in anew {
            if !left.iter().any(|found| matches!(found.part, Part::Image(_))) {
                inner.discard(&inner.layout.layer(&diff_id))?;
            }
        }
        Ok(left)
    }
}

impl Inner {
    /// Brings back what an image lacks, and the layers of `anew` even if they are here.
    fn restore(
        &self,
        record: &ImageRecord,
        anew: &BTreeSet<DiffId>,
        options: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let what = record.reference.clone();
        let reference: Reference = what.parse()?;
        let gone = |what: String| {
            let reason = "it was packed or imported here: no registry has it".to_owned();
            Error::NotFound { what, reason }
        };
        let client = Client::new(&reference, options.credentials.clone(), &options.registries, cancel)?;
        let writing = self.writing()?;
        let held = self.hold(&Names::of(record))?;
        drop(writing);
        for digest in [record.resolved, record.manifest] {
            if self.read_blob(&digest)?.is_none() {
                if record.local {
                    return Err(gone(format!("{what}: document {digest}")));
                }
                self.write_blob(&document(self, &client, &digest.to_string())?.0)?;
            }
        }
        let manifest = self.manifest(record)?.ok_or_else(|| gone(what.clone()))?;
        if self.read_blob(&record.config)?.is_none() {
            if record.local {
                return Err(gone(format!("{what}: configuration {}", record.config)));
            }
            self.write_blob(&config_bytes(self, &client, &manifest.config)?)?;
        }
        let config = self.read_blob(&record.config)?.unwrap_or_default();
        let (_, diff_ids) = ImageConfig::parse(&config, &what)?;
        let wanted = plan(&manifest, &diff_ids, &what)?;
        let source = |layer: &WantedLayer, at: u64| -> Result<Box<dyn Read + Send + '_>, Error> {
            if record.local {
                return Err(gone(format!("{what}: layer {}", layer.blob.digest)));
            }
            let blob = Blob::new(&client, &layer.blob.digest, layer.blob.size, layer.index, observer);
            Ok(Box::new(blob.starting_at(at)))
        };
        let how = Taking { keep_blobs: false, spool: !record.local, durable: true, anew: Some(anew) };
        take_in_all(self, record.manifest, &wanted, &source, &how, observer, cancel)?;
        // The top layer is made of links into the others.
        if let Some(top) = record.top {
            let path = self.layout.layer(&top);
            if path.symlink_metadata().is_ok() {
                self.discard(&path)?;
            }
            self.settle_top(&what, &record.layers)?;
        }
        drop(held);
        match self.image(record)? {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(what, "a layer vanished while the image was repaired")),
        }
    }
}
