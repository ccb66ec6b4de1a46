//! The view of an image's layers one upon another, as far as it is needed to answer what single layers leave open
//! ([`super::open`]). Pure: what lies where is asked through [`Stack`]. The answers make the image's top layer: folders with the
//! attributes they have when the layers are unpacked one after another into one folder, and links to files of the layers.
//!
//! What overlayfs does: the attributes of a merged folder are those of its uppermost occurrence; a whiteout, another kind of file or an
//! opaque folder hides what lies below.

use std::collections::BTreeMap;
use std::io;

use super::entry::Inner;
use super::open::Open;
use super::tree::Attributes;

/// What one layer has at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing, and the layers below shine through.
    Nothing,
    /// Nothing, and a folder above (opaque, a whiteout, no folder at all) hides the layers below.
    Hidden,
    Whiteout,
    /// A file, link, device.
    Other,
    Dir {
        /// A folder above it hides what the layers below have here.
        fresh: bool,
        attributes: Attributes,
    },
}

/// Where the layers are looked at; 0 is the base.
pub trait Stack {
    /// What `layer` has at `path`.
    fn look(&mut self, layer: usize, path: &Inner) -> io::Result<Found>;
}

/// A file of a layer.
pub type Place = (usize, Inner);

/// What the image's top layer consists of. The folders hold all parents of what is in it.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Plan {
    pub folders: BTreeMap<Inner, Attributes>,
    pub links: BTreeMap<Inner, Place>,
}

impl Plan {
    /// No top layer is needed.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.links.is_empty()
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    /// A layer could not be looked at.
    #[error("{}: {source}", .path.text())]
    Io { path: Inner, source: io::Error },
    /// The target is nowhere.
    #[error("entry {:?}: hard link to {:?}, which is no file of this layer or those below", .name.text(), .target.text())]
    NoTarget { name: Inner, target: Inner },
}

/// Answers what the layers leave open.
pub fn plan(open: &[Open], stack: &mut impl Stack) -> Result<Plan, Unsettled> {
    let mut view = View { open, stack, links: Vec::new() };
    for (layer, of) in open.iter().enumerate() {
        let mut resolved = BTreeMap::new();
        for (name, target) in &of.links {
            let no_target = || Unsettled::NoTarget { name: name.clone(), target: target.clone() };
            resolved.insert(name.clone(), view.file(layer, target)?.ok_or_else(no_target)?);
        }
        view.links.push(resolved);
    }
    let mut plan = Plan::default();
    for (layer, links) in view.links.clone().into_iter().enumerate() {
        for (name, place) in links {
            if view.shines_through(layer, &name)? {
                plan.links.insert(name, place);
            }
        }
    }
    for path in open.iter().skip(1).flat_map(|of| &of.folders) {
        if !plan.folders.contains_key(path)
            && let Some(Merged { shown, meant }) = view.folder(path)?
            && shown != meant
        {
            plan.folders.insert(path.clone(), meant);
        }
    }
    let inside: Vec<Inner> = plan.folders.keys().chain(plan.links.keys()).cloned().collect();
    for mut path in inside {
        while !path.is_root() {
            path = path.split().0;
            if plan.folders.contains_key(&path) {
                continue;
            }
            let merged = view.folder(&path)?;
            plan.folders.insert(path.clone(), merged.map_or_else(Attributes::plain_folder, |merged| merged.meant));
        }
    }
    Ok(plan)
}

struct View<'a, S> {
    open: &'a [Open],
    stack: &'a mut S,
    /// Open links already answered, per layer.
    links: Vec<BTreeMap<Inner, Place>>,
}

/// A folder as overlayfs would show it, and as it should be.
struct Merged {
    shown: Attributes,
    meant: Attributes,
}

impl<S: Stack> View<'_, S> {
    fn look(&mut self, layer: usize, path: &Inner) -> Result<Found, Unsettled> {
        self.stack.look(layer, path).map_err(|source| Unsettled::Io { path: path.clone(), source })
    }

    /// The file that `path` means to an entry of `layer`: of the layers below, else one that follows later in the same layer.
    fn file(&mut self, layer: usize, path: &Inner) -> Result<Option<Place>, Unsettled> {
        for below in (0..layer).rev() {
            if let Some(place) = self.links.get(below).and_then(|links| links.get(path)) {
                return Ok(Some(place.clone()));
            }
            match self.look(below, path)? {
                Found::Nothing => {}
                Found::Other => return Ok(Some((below, path.clone()))),
                Found::Hidden | Found::Whiteout | Found::Dir { .. } => break,
            }
        }
        Ok((self.look(layer, path)? == Found::Other).then(|| (layer, path.clone())))
    }

    /// Whether no layer above has anything to say about a path.
    fn shines_through(&mut self, layer: usize, path: &Inner) -> Result<bool, Unsettled> {
        for above in layer + 1..self.open.len() {
            let replaced = self.links.get(above).is_some_and(|links| links.contains_key(path));
            if replaced || self.look(above, path)? != Found::Nothing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The folder at `path` in the view of all layers, if there is one: its attributes are those of the uppermost layer that describes
    /// it, or, if none does, of the lowest that has it.
    fn folder(&mut self, path: &Inner) -> Result<Option<Merged>, Unsettled> {
        let mut merged: Option<Merged> = None;
        for layer in (0..self.open.len()).rev() {
            let (fresh, attributes) = match self.look(layer, path)? {
                Found::Nothing => continue,
                Found::Dir { fresh, attributes } => (fresh, attributes),
                Found::Hidden | Found::Whiteout | Found::Other => break,
            };
            merged = Some(match merged {
                None => Merged { shown: attributes.clone(), meant: attributes },
                Some(Merged { shown, .. }) => Merged { shown, meant: attributes },
            });
            if fresh || !self.open.get(layer).is_some_and(|open| open.folders.contains(path)) {
                break;
            }
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests;
