//! What goes when the disk fills up. [`plan`] decides, pure; [`Store::sweep_images`] and [`Store::prune`] observe and carry out.
//!
//! Cheapest first: beginnings of layers nobody waits for; layers and documents no image needs; compressed copies that a registry has
//! too; then whole images, least recently used first. Never: what a container or running work holds, what is pinned, and what could
//! not be fetched again: packed or imported images, and those whose registry does not answer, unless told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use super::hold::Names;
use super::layout::Space;
use super::layout::Work;
use super::{Inner, Store, usage};
use crate::file::names;
use crate::{Digest, Error, Reference};

/// When to delete, and what for. The defaults are the kubelet's (`imageGCHighThresholdPercent`, `imageGCLowThresholdPercent`,
/// `imageMinimumGCAge`, `imageMaximumGCAge`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GcPolicy {
    /// Use of the disk, percent, from which on images go.
    pub high_percent: u8,
    /// Use of the disk, percent, to get down to.
    pub low_percent: u8,
    /// Younger images stay.
    pub age_min: Duration,
    /// Images that were not used for so long go even on an empty disk.
    pub age_max: Option<Duration>,
    /// Take also what cannot be fetched again.
    pub even_local: bool,
}

impl Default for GcPolicy {
    fn default() -> GcPolicy {
        GcPolicy {
            high_percent: 85,
            low_percent: 80,
            age_min: Duration::from_secs(120),
            age_max: None,
            even_local: false,
        }
    }
}

/// An image as a sweep sees it.
#[derive(Clone, Default)]
pub struct Candidate {
    pub reference: String,
    /// What a registry would be asked for; `None`: nobody to ask.
    pub source: Option<(Reference, Digest)>,
    pub names: Names,
    /// Those of `names` that are compressed layers.
    pub compressed: BTreeSet<String>,
    pub pinned: bool,
    /// Seconds since its last use.
    pub idle_seconds: u64,
    /// Packed or imported here, or its registry said no.
    pub is_local: bool,
}

/// What a sweep knows.
pub struct Facts {
    pub space: Space,
    pub images: Vec<Candidate>,
    /// Bytes on disk, by name.
    pub layers: BTreeMap<String, u64>,
    pub blobs: BTreeMap<String, u64>,
    pub partial_bytes: u64,
    /// Held by containers and running work.
    pub leased: Names,
}

/// One thing to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Beginnings of layers.
    Partials,
    Image(String),
    Layer(String),
    Blob(String),
}

/// What a sweep does.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Bytes that go.
    pub frees: u64,
    /// Bytes that were to go.
    pub wanted: u64,
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    /// References of the images that went.
    pub images: Vec<String>,
    pub freed: u64,
    /// Bytes that were to go, by the policy.
    pub wanted: u64,
}

/// Chooses what goes to bring the disk under the policy's low mark, once it is over the high one.
pub fn plan(facts: &Facts, policy: &GcPolicy) -> Plan {
    let wanted = mark(&facts.space, policy);
    let mut sweep = Sweep { facts, users: users(facts), plan: Plan { wanted, ..Plan::default() } };
    let is_old = |image: &&Candidate| policy.age_max.is_some_and(|max| image.idle_seconds > max.as_secs());
    let may_go = |image: &&Candidate| {
        !image.pinned && (policy.even_local || !image.is_local) && image.idle_seconds >= policy.age_min.as_secs()
    };
    let mut images: Vec<&Candidate> = facts.images.iter().filter(may_go).collect();
    images.sort_by_key(|image| (std::cmp::Reverse(image.idle_seconds), &image.reference));
    for image in images.iter().filter(|image| is_old(image)) {
        sweep.image(image);
    }
    if wanted > sweep.plan.frees {
        sweep.unneeded();
    }
    for image in facts.images.iter().filter(|image| !image.is_local) {
        for name in image.compressed.iter().filter(|name| !facts.leased.blobs.contains(*name)) {
            let shared_by_local = facts.images.iter().any(|other| other.is_local && other.compressed.contains(name));
            if sweep.is_short() && !shared_by_local {
                sweep.blob(name);
            }
        }
    }
    for image in images {
        if sweep.is_short() {
            sweep.image(image);
        }
    }
    sweep.plan
}

/// Bytes above the low mark; none below the high one.
fn mark(space: &Space, policy: &GcPolicy) -> u64 {
    let used = space.total.saturating_sub(space.available);
    let mark = |percent: u8| space.total / 100 * u64::from(percent);
    if used >= mark(policy.high_percent) { used.saturating_sub(mark(policy.low_percent)) } else { 0 }
}

/// Chooses all that nobody needs.
pub fn plan_prune(facts: &Facts) -> Plan {
    let mut sweep = Sweep { facts, users: users(facts), plan: Plan::default() };
    sweep.unneeded();
    sweep.plan
}

/// How many images have each name.
fn users(facts: &Facts) -> BTreeMap<&str, usize> {
    let mut users = BTreeMap::new();
    for image in &facts.images {
        for name in image.names.layers.iter().chain(&image.names.blobs).chain(&image.compressed) {
            *users.entry(name.as_str()).or_default() += 1;
        }
    }
    users
}

struct Sweep<'a> {
    facts: &'a Facts,
    users: BTreeMap<&'a str, usize>,
    plan: Plan,
}

impl<'a> Sweep<'a> {
    fn is_short(&self) -> bool {
        self.plan.frees < self.plan.wanted
    }

    fn take(&mut self, step: Step, bytes: u64) {
        if !self.plan.steps.contains(&step) {
            self.plan.frees = self.plan.frees.saturating_add(bytes);
            self.plan.steps.push(step);
        }
    }

    fn layer(&mut self, name: &str) {
        if let Some(bytes) = self.facts.layers.get(name)
            && !self.facts.leased.layers.contains(name)
        {
            self.take(Step::Layer(name.to_owned()), *bytes);
        }
    }

    fn blob(&mut self, name: &str) {
        if let Some(bytes) = self.facts.blobs.get(name)
            && !self.facts.leased.blobs.contains(name)
        {
            self.take(Step::Blob(name.to_owned()), *bytes);
        }
    }

    fn unneeded(&mut self) {
        if self.facts.partial_bytes > 0 {
            self.take(Step::Partials, self.facts.partial_bytes);
        }
        for name in self.facts.layers.keys() {
            if !self.users.contains_key(name.as_str()) {
                self.layer(name);
            }
        }
        for name in self.facts.blobs.keys() {
            if !self.users.contains_key(name.as_str()) {
                self.blob(name);
            }
        }
    }

    /// An image and what only it has; not if a container uses it.
    fn image(&mut self, image: &'a Candidate) {
        let step = Step::Image(image.reference.clone());
        let in_use = image.names.layers.iter().all(|layer| self.facts.leased.layers.contains(layer));
        if (in_use && !image.names.layers.is_empty()) || self.plan.steps.contains(&step) {
            return;
        }
        self.take(step, 0);
        for name in image.names.layers.iter().chain(&image.names.blobs).chain(&image.compressed) {
            let Some(count) = self.users.get_mut(name.as_str()) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            if image.names.layers.contains(name) { self.layer(name) } else { self.blob(name) }
        }
    }
}

impl Store {
    /// Deletes layers and blobs that no image, no lease and no running work needs; bytes freed.
    pub fn prune(&self) -> Result<u64, Error> {
        let deleting = self.inner.delete_soon()?;
        let plan = plan_prune(&self.inner.facts()?);
        self.inner.carry_out(&plan, deleting)?;
        Ok(plan.frees)
    }

    /// Sweeps as the policy says. `can_fetch` is asked before an image goes whether its registry would give it again.
    pub fn sweep_images(
        &self,
        policy: &GcPolicy,
        can_fetch: &dyn Fn(&Reference, &Digest) -> bool,
    ) -> Result<Swept, Error> {
        let inner = &*self.inner;
        if policy.age_max.is_none() && mark(&inner.layout.space()?, policy) == 0 {
            return Ok(Swept::default()); // without a walk through all layers
        }
        let (mut yes, mut no) = (BTreeSet::new(), BTreeSet::new());
        // The registries are asked without a lock; each round settles at least one image.
        loop {
            let deleting = inner.delete_soon()?;
            let mut facts = inner.facts()?;
            for image in &mut facts.images {
                image.is_local |= no.contains(&image.reference);
            }
            let plan = plan(&facts, policy);
            let goes: Vec<String> = plan.steps.iter().filter_map(Step::image).collect();
            let asked = |image: &&Candidate| !image.is_local && !yes.contains(&image.reference);
            let unasked = facts.images.iter().filter(asked).find(|image| goes.contains(&image.reference));
            let Some(image) = unasked else {
                inner.carry_out(&plan, deleting)?;
                return Ok(Swept { images: goes, freed: plan.frees, wanted: plan.wanted });
            };
            drop(deleting);
            let can = image.source.as_ref().is_some_and(|(reference, digest)| can_fetch(reference, digest));
            if can { &mut yes } else { &mut no }.insert(image.reference.clone());
        }
    }

    /// How full the file system under the store is.
    pub fn space(&self) -> Result<Space, Error> {
        self.inner.layout.space()
    }
}

impl Step {
    fn image(&self) -> Option<String> {
        if let Step::Image(reference) = self { Some(reference.clone()) } else { None }
    }
}

impl Inner {
    /// Keeps writers out, after waiting a moment for those who are at it.
    fn delete_soon(&self) -> Result<std::fs::File, Error> {
        for _ in 0..40 {
            if let Some(deleting) = self.deleting()? {
                return Ok(deleting);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let by = "a running import, pack or export".to_owned();
        Err(Error::InUse { what: "image store".to_owned(), by })
    }

    fn facts(&self) -> Result<Facts, Error> {
        let compressed = self.compressed()?;
        self.needed()?; // refuses where a record cannot be read
        let mut images = Vec::new();
        for record in self.image_records()? {
            let own = Names::of(&record);
            let reference: Reference = record.reference.parse()?;
            let path = self.layout.image(&reference);
            let used = path.metadata().and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
            images.push(Candidate {
                pinned: self.pin_path(&reference).symlink_metadata().is_ok(),
                source: (!record.local).then_some((reference, record.resolved)),
                reference: record.reference,
                compressed: own.layers.iter().filter_map(|layer| compressed.get(layer).cloned()).collect(),
                names: own,
                idle_seconds: used.elapsed().unwrap_or_default().as_secs(),
                is_local: record.local,
            });
        }
        let sizes = |folder: &str| -> Result<BTreeMap<String, u64>, Error> {
            let dir = self.layout.dir(folder);
            names(&dir)?.into_iter().map(|name| Ok((name.clone(), usage::disk_bytes(&dir.join(name))?))).collect()
        };
        Ok(Facts {
            space: self.layout.space()?,
            images,
            layers: sizes("layers")?,
            blobs: sizes("blobs")?,
            partial_bytes: sizes("partial")?.values().sum(),
            leased: self.leased()?,
        })
    }

    /// Names first, for good, while writers are kept out; what had them is deleted after, without the lock.
    fn carry_out(&self, plan: &Plan, deleting: std::fs::File) -> Result<(), Error> {
        let disk = &*self.layout.disk;
        let mut aside: Vec<Work> = Vec::new();
        let images: Vec<String> = plan.steps.iter().filter_map(Step::image).collect();
        for reference in &images {
            let path = self.layout.image(&reference.parse()?);
            disk.unlink(&path).map_err(|e| Error::io("delete", &path, e))?;
        }
        if !images.is_empty() {
            let dir = self.layout.dir("images");
            disk.sync_folder(&dir).map_err(|e| Error::io("sync", &dir, e))?;
        }
        for step in &plan.steps {
            let from = match step {
                Step::Layer(name) => self.layout.dir("layers").join(name),
                Step::Blob(name) => self.layout.dir("blobs").join(name),
                Step::Image(_) | Step::Partials => continue,
            };
            let work = self.layout.fresh()?;
            disk.rename(&from, &work.0.join("gone")).map_err(|e| Error::io("rename", &from, e))?;
            aside.push(work);
        }
        // Signatures go with the document they are about.
        let (dir, needed) = (self.layout.dir("signatures"), self.needed()?.blobs);
        for name in names(&dir)?.iter().filter(|name| !needed.contains(*name)) {
            disk.unlink(&dir.join(name)).map_err(|e| Error::io("delete", dir.join(name), e))?;
        }
        drop(deleting);
        if plan.steps.contains(&Step::Partials) {
            self.sweep_partials(true)?;
        }
        aside.into_iter().try_for_each(Work::remove)
    }
}

#[cfg(test)]
mod tests;
