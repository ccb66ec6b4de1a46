//! Power cuts. A disk that notes, at every step that goes through the seam, what would be left if the power went there: file contents
//! as of their last sync, names as of their folder's last sync, or any later state of either, since a kernel may write early. Each such
//! state is opened as a store of a later boot and must hold nothing wrong, and all that was promised.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use super::disk::Disk;
use super::partial::SpoolPolicy;
use super::*;
use crate::{BlobPolicy, Compression, PackLayer, PackSpec, Progress, PullOptions, Silent};

#[path = "../../tests/scripted/mod.rs"]
mod scripted;

/// A file or folder by its inode number. tmpfs never gives a number twice.
#[derive(Clone)]
enum Node {
    File { mode: u32, bytes: Arc<Vec<u8>> },
    Folder { mode: u32, names: BTreeMap<String, Name> },
    Link(PathBuf),
}

/// What a name leads to. Its kind stands beside it, as on a disk: another thread may take the thing away before a scan comes to it.
#[derive(Clone, Copy)]
struct Name {
    inode: u64,
    is_folder: bool,
}

impl Name {
    fn of(meta: &std::fs::Metadata) -> Name {
        Name { inode: meta.ino(), is_folder: meta.is_dir() }
    }
}

type Nodes = BTreeMap<u64, Node>;

/// What of the unsynced state a cut leaves.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Luck {
    /// Nothing.
    None,
    /// Every name, no content: delayed allocation of a journalling file system.
    Names,
    /// Of each thing either, by a seeded coin; of contents sometimes a part.
    Coin(u64),
}

struct Cut {
    step: String,
    root: Name,
    now: Nodes,
    durable: Nodes,
    /// How many promises had been made.
    promises: usize,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    durable: Nodes,
    cuts: Vec<Cut>,
    promises: usize,
}

struct Fake(Mutex<State>);

impl Fake {
    /// Notes what a cut right before this step would leave.
    fn before(&self, step: String) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap();
        let now = scan(&state.root);
        let root = Name::of(&state.root.symlink_metadata().unwrap());
        let (durable, promises) = (state.durable.clone(), state.promises);
        state.cuts.push(Cut { step, root, now, durable, promises });
        state
    }
}

fn scan_one(path: &Path, nodes: &mut Nodes) {
    let Ok(meta) = path.symlink_metadata() else { return };
    let node = if meta.is_dir() {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if let Ok(meta) = entry.path().symlink_metadata() {
                found.insert(entry.file_name().into_string().unwrap(), Name::of(&meta));
            }
        }
        Node::Folder { mode: meta.mode(), names: found }
    } else if meta.is_symlink() {
        Node::Link(std::fs::read_link(path).unwrap_or_default())
    } else {
        assert!(!meta.file_type().is_char_device());
        let Ok(bytes) = std::fs::read(path) else { return };
        Node::File { mode: meta.mode(), bytes: Arc::new(bytes) }
    };
    nodes.insert(meta.ino(), node);
}

fn scan(root: &Path) -> Nodes {
    let mut nodes = Nodes::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        scan_one(&path, &mut nodes);
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            todo.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    nodes
}

impl Disk for Fake {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let _state = self.before(format!("write {}", path.display()));
        std::fs::write(path, bytes)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.before(format!("sync {}", path.display()));
        scan_one(path, &mut state.durable);
        Ok(())
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.before(format!("sync folder {}", path.display()));
        scan_one(path, &mut state.durable);
        Ok(())
    }
    fn sync_system(&self, _: &Path) -> io::Result<()> {
        let mut state = self.before("sync all".to_owned());
        let all = scan(&state.root);
        state.durable.extend(all);
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _state = self.before(format!("rename {} {}", from.display(), to.display()));
        std::fs::rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        let _state = self.before(format!("unlink {}", path.display()));
        std::fs::remove_file(path)
    }
}

/// xorshift
fn coin(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

impl Cut {
    /// Makes the folder as it would be found after the cut.
    fn build(&self, Name { inode, is_folder }: Name, to: &Path, luck: &mut Luck) {
        let (durable, now) = (self.durable.get(&inode), self.now.get(&inode));
        let late = match luck {
            Luck::None => false,
            Luck::Names => matches!(now, Some(Node::Folder { .. } | Node::Link(_))),
            Luck::Coin(seed) => coin(seed).is_multiple_of(2),
        };
        let node = if late { now.or(durable) } else { durable };
        let empty_folder = Node::Folder { mode: 0o755, names: BTreeMap::new() };
        let empty_file = Node::File { mode: 0o600, bytes: Arc::default() };
        // A name that was written for a thing that was not: an empty one.
        let node = node.unwrap_or(if is_folder { &empty_folder } else { &empty_file });
        match node {
            Node::File { mode, bytes } => {
                let mut part = bytes.len();
                // What was synced stays; of the rest a part may have come.
                let synced = match durable {
                    Some(Node::File { bytes: synced, .. }) if bytes.starts_with(synced) => synced.len(),
                    _ => 0,
                };
                if let Luck::Coin(seed) = luck
                    && late
                    && coin(seed).is_multiple_of(2)
                {
                    part = synced + coin(seed) as usize % (bytes.len() - synced + 1);
                }
                std::fs::write(to, &bytes[..part]).unwrap();
                std::fs::set_permissions(to, PermissionsExt::from_mode(*mode)).unwrap();
            }
            Node::Folder { mode, names } => {
                std::fs::create_dir_all(to).unwrap();
                for (name, leads_to) in names {
                    self.build(*leads_to, &to.join(name), luck);
                }
                std::fs::set_permissions(to, PermissionsExt::from_mode(*mode)).unwrap();
            }
            Node::Link(target) => std::os::unix::fs::symlink(target, to).unwrap(),
        }
    }
}

/// What does not compress in each layer: small, since every point reads all of it several times, also on emulated processors.
const NOISE_BYTES: u64 = 20_000;

fn source(dir: &Path, layers: &[&str]) -> PackSpec {
    let mut all = Vec::new();
    for layer in layers {
        let dir = dir.join("sources").join(layer);
        std::fs::create_dir_all(dir.join("etc/deep")).unwrap();
        let mut seed = layer.bytes().fold(7u64, |sum, b| sum * 31 + u64::from(b));
        let noise: Vec<u8> = (0..NOISE_BYTES).map(|_| coin(&mut seed) as u8).collect();
        std::fs::write(dir.join("noise"), noise).unwrap();
        std::fs::write(dir.join("etc/deep").join(layer), layer.as_bytes()).unwrap();
        let _ = std::os::unix::fs::symlink("etc/deep", dir.join("link"));
        all.push(PackLayer::Dir(dir));
    }
    PackSpec { config: ImageConfig::default(), layers: all, compression: Compression::Gzip, mtime: Some(0) }
}

/// Everything below a folder, by path.
fn contents(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let bytes = if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), (meta.mode(), bytes));
    }
    found
}

/// What must be so from a moment on.
enum Promise {
    Here(Reference),
    Gone(Reference),
    /// A layer of an image that is still to come.
    Layer(DiffId),
}

/// What a pull says is in its place is promised, though the pull itself goes on.
struct Promising<'a>(&'a Fake, Mutex<Vec<(usize, Promise)>>);

impl Promising<'_> {
    fn promise(&self, promise: Promise) {
        let mut state = self.0.0.lock().unwrap();
        state.promises += 1;
        self.1.lock().unwrap().push((state.promises, promise));
    }
}

impl Observer for Promising<'_> {
    fn event(&self, progress: Progress) {
        if let Progress::Extracted { diff_id, .. } = progress {
            self.promise(Promise::Layer(diff_id));
        }
    }
}

const ALWAYS: SpoolPolicy = SpoolPolicy { worth: Duration::ZERO, sync_every: Duration::ZERO };

/// Nothing takes long enough for its spool to be waited for.
const NEVER: SpoolPolicy = SpoolPolicy { worth: Duration::ZERO, sync_every: Duration::from_secs(3600) };

#[test]
fn no_cut_leaves_anything_wrong() {
    live(ALWAYS, 150);
}

#[test]
fn nor_where_no_spool_is_waited_for() {
    live(NEVER, 60);
}

/// A life of a store, and every end it could have had; at least so many.
fn live(policy: SpoolPolicy, points: usize) {
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    // A registry with two images; the second is built on the first.
    let origin = Store::open(&tmp.path().join("origin")).unwrap();
    let server = scripted::Server::start(tmp.path().join("origin/blobs"));
    let mut expected: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut names = Vec::new();
    for (tag, layers) in [("1", &["a", "b"][..]), ("2", &["a", "b", "c"]), ("3", &["d", "f", "g", "h", "i"])] {
        let name: Reference = format!("{}/x:{tag}", server.addr).parse().unwrap();
        let image = origin.pack(&name, source(tmp.path(), layers), &Cancel::default()).unwrap();
        server.tag(tag, image.manifest.hex());
        expected.insert(name.to_string(), image.layers.iter().map(|layer| contents(&layer.path)).collect());
        names.push(name);
    }
    let local: Reference = "local/packed:1".parse().unwrap();
    let image = origin.pack(&local, source(tmp.path(), &["e", "a"]), &Cancel::default()).unwrap();
    expected.insert(local.to_string(), image.layers.iter().map(|layer| contents(&layer.path)).collect());

    // The life of a store on the fake disk.
    let root = tmp.path().join("store");
    std::fs::create_dir(&root).unwrap();
    let fake = Arc::new(Fake(Mutex::new(State { root: root.clone(), ..State::default() })));
    let store = Store::open_on(fake.clone(), &root, "boot 1".to_owned(), policy).unwrap();
    let promising = Promising(&fake, Mutex::default());
    let promise = |promise| promising.promise(promise);
    let pull = |name: &Reference, durable, blobs| {
        let options = PullOptions { durable, blobs, ..PullOptions::default() };
        let observer: &dyn Observer = if durable { &promising } else { &Silent };
        store.pull(name, &options, observer, &Cancel::default()).unwrap()
    };
    server.script.cut_every.store(NOISE_BYTES / 4, std::sync::atomic::Ordering::Relaxed);
    pull(&names[0], true, BlobPolicy::Drop);
    promise(Promise::Here(names[0].clone()));
    pull(&names[1], false, BlobPolicy::Keep);
    store.settle().unwrap();
    promise(Promise::Here(names[1].clone()));
    store.pack(&local, source(tmp.path(), &["e", "a"]), &Cancel::default()).unwrap();
    promise(Promise::Here(local.clone()));
    store.remove(&names[0]).unwrap();
    promise(Promise::Gone(names[0].clone()));
    pull(&names[2], true, BlobPolicy::Drop);
    promise(Promise::Here(names[2].clone()));
    store.remove(&names[1]).unwrap();
    promise(Promise::Gone(names[1].clone()));
    let pruned = fake.0.lock().unwrap().cuts.len();
    store.prune().unwrap();
    // A damaged layer is replaced.
    let image = store.find(&names[2]).unwrap().unwrap();
    std::fs::write(image.layers[0].path.join("etc/deep/d"), "?").unwrap();
    scan_one(&image.layers[0].path.join("etc/deep/d"), &mut fake.0.lock().unwrap().durable);
    let harmed = fake.0.lock().unwrap().cuts.len();
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    assert!(store.repair(&damage, &PullOptions::default(), &Silent, &Cancel::default()).unwrap().is_empty());
    server.script.cut_every.store(0, std::sync::atomic::Ordering::Relaxed);

    let cuts = std::mem::take(&mut fake.0.lock().unwrap().cuts);
    let promises = promising.1.into_inner().unwrap();
    assert!(cuts.len() > points, "only {} points", cuts.len());
    let (mut reused, mut ahead) = (0, 0);
    for (at, cut) in cuts.iter().enumerate() {
        for luck in [Luck::None, Luck::Names, Luck::Coin(at as u64 * 2 + 1), Luck::Coin(at as u64 * 977 + 13)] {
            let what = format!("point {at} of {}, {luck:?}, before {}", cuts.len(), cut.step);
            let found = tmp.path().join("found");
            cut.build(cut.root, &found, &mut luck.clone());
            let repaired_later = at >= harmed;
            let store = Store::open_on(Arc::new(super::disk::Real), &found, "boot 2".to_owned(), policy)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            for image in store.list().unwrap() {
                let want = &expected[&image.reference.to_string()];
                for (layer, want) in image.layers.iter().zip(want) {
                    let is_harmed = contents(&layer.path).get(Path::new("etc/deep/d")).is_some_and(|(_, b)| b == b"?");
                    assert!(
                        contents(&layer.path) == *want || (is_harmed && repaired_later),
                        "{what}: {} has a wrong layer",
                        image.reference
                    );
                }
            }
            // The last word about each image up to here, and the layers of one that was on its way.
            let mut said: BTreeMap<String, bool> = BTreeMap::new();
            for (_, promise) in promises.iter().take_while(|(number, _)| *number <= cut.promises) {
                match promise {
                    Promise::Here(name) => drop(said.insert(name.to_string(), true)),
                    Promise::Gone(name) => drop(said.insert(name.to_string(), false)),
                    Promise::Layer(diff_id) if at < pruned => {
                        let found = store.inner.layer_record(diff_id).unwrap();
                        assert!(found.is_some(), "{what}: {diff_id} was finished and is gone");
                    }
                    Promise::Layer(_) => {}
                }
            }
            let mut to_come = promises.iter().skip(cut.promises).map(|(_, promise)| promise).peekable();
            let last = cut.promises.checked_sub(1).and_then(|last| promises.get(last)).map(|(_, promise)| promise);
            ahead += usize::from(
                matches!(last, Some(Promise::Layer(_))) && matches!(to_come.peek(), Some(Promise::Layer(_))),
            );
            for (name, is_here) in said {
                let next = to_come.clone().find(|promise| !matches!(promise, Promise::Layer(_)));
                let under_way = matches!(next, Some(Promise::Here(n) | Promise::Gone(n)) if n.to_string() == name);
                let found = store.find(&name.parse().unwrap()).unwrap().is_some();
                // While a damaged layer is replaced its image may be away.
                let replaced = at >= harmed && name == names[2].to_string();
                assert!(found == is_here || under_way || replaced, "{what}: {name} found {found}, promised {is_here}");
            }
            // And goes on from there; what was vouched for is not fetched again.
            if at % 5 == 0 {
                server.forget();
                for name in &names {
                    store.pull(name, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
                }
                reused += usize::from(server.sent_in_all() < 4 * NOISE_BYTES);
                for image in store.list().unwrap() {
                    let want = &expected[&image.reference.to_string()];
                    for (layer, want) in image.layers.iter().zip(want) {
                        let is_harmed =
                            contents(&layer.path).get(Path::new("etc/deep/d")).is_some_and(|(_, b)| b == b"?");
                        assert!(contents(&layer.path) == *want || is_harmed, "{what}, pulled again");
                    }
                }
            }
            std::fs::remove_dir_all(&found).unwrap();
        }
    }
    assert!(reused > 20, "{reused}");
    assert!(ahead > 20, "{ahead} points with some layers of an image finished and some not");
    println!("{} points, four outcomes each", cuts.len());
}
