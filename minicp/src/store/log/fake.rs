//! A disk that loses power: what was written but not synced may be gone, whole, partial or garbled after a reboot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::disk::Disk;

#[derive(Clone, Default)]
struct FileState {
    data: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changing operations until the power goes; None: never.
    steps_left: Option<u32>,
    crashed: bool,
    /// Bytes until the disk is full.
    room: Option<usize>,
    pub fail_sync: bool,
    /// Bytes ever handed over.
    written: u64,
}

#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<State>>);

/// A small generator, so that a failing case has a number.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

impl FakeDisk {
    pub(super) fn crash_after(&self, steps: u32) {
        self.0.lock().unwrap().steps_left = Some(steps);
    }
    pub(super) fn crashed(&self) -> bool {
        self.0.lock().unwrap().crashed
    }
    pub(super) fn room(&self, bytes: Option<usize>) {
        self.0.lock().unwrap().room = bytes;
    }
    pub(super) fn fail_sync(&self) {
        self.0.lock().unwrap().fail_sync = true;
    }
    /// Bytes ever written, and bytes that are there now.
    pub(super) fn written_and_held(&self) -> (u64, u64) {
        let s = self.0.lock().unwrap();
        (s.written, s.names.values().map(|id| s.files[*id].data.len() as u64).sum())
    }
    /// Changes a file behind the store's back.
    pub(super) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut s = self.0.lock().unwrap();
        let id = s.names[name];
        change(&mut s.files[id].data);
        s.files[id].synced = s.files[id].data.clone();
    }
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }
    /// One of the disks that the machine may find after the power came back.
    pub(super) fn reboot(&self, random: &mut Random) -> FakeDisk {
        let s = self.0.lock().unwrap();
        let names = if random.below(2) == 0 { &s.names } else { &s.synced_names };
        let mut next = State::default();
        for (name, id) in names {
            let file = &s.files[*id];
            let mut data = if file.data.starts_with(&file.synced) {
                let unsynced = file.data.len() - file.synced.len();
                let mut data = file.data[..file.synced.len() + random.below(unsynced + 1)].to_vec();
                // Blocks of the unsynced part arrive in any order: some may still be zero, or old.
                if random.below(3) == 0 && data.len() > file.synced.len() {
                    let from = file.synced.len() + random.below(data.len() - file.synced.len());
                    let to = from + random.below(data.len() - from + 1);
                    data[from..to].fill(0);
                }
                data
            } else if random.below(2) == 0 {
                file.data.clone()
            } else {
                file.synced.clone()
            };
            data.shrink_to_fit();
            next.files.push(FileState { synced: data.clone(), data });
            next.names.insert(name.clone(), next.files.len() - 1);
        }
        next.synced_names = next.names.clone();
        FakeDisk(Arc::new(Mutex::new(next)))
    }
    /// The disk after the power came back, if of what was written and not synced just `bytes` bytes of each file arrived. None: no file has so many.
    pub(super) fn reboot_with(&self, bytes: usize, new_names: bool) -> Option<FakeDisk> {
        let s = self.0.lock().unwrap();
        let names = if new_names { &s.names } else { &s.synced_names };
        let (mut next, mut most) = (State::default(), 0);
        for (name, id) in names {
            let FileState { data, synced } = &s.files[*id];
            let unsynced = if data.starts_with(synced) { data.len() - synced.len() } else { 0 };
            most = most.max(unsynced);
            let kept = if data.starts_with(synced) { &data[..synced.len() + unsynced.min(bytes)] } else { synced };
            next.files.push(FileState { synced: kept.to_vec(), data: kept.to_vec() });
            next.names.insert(name.clone(), next.files.len() - 1);
        }
        next.synced_names = next.names.clone();
        (bytes <= most).then(|| FakeDisk(Arc::new(Mutex::new(next))))
    }
    /// Ok(true): do it; Ok(false): the power goes in the middle of it.
    fn step(s: &mut State) -> io::Result<bool> {
        if s.crashed {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut s.steps_left {
            if *left == 0 {
                s.crashed = true;
                return Ok(false);
            }
            *left -= 1;
        }
        Ok(true)
    }
    fn file(s: &mut State, name: &str) -> usize {
        if let Some(id) = s.names.get(name) {
            return *id;
        }
        s.files.push(FileState::default());
        let id = s.files.len() - 1;
        s.names.insert(name.into(), id);
        id
    }
}

fn crash() -> io::Error {
    io::Error::other("power cut")
}

impl Disk for FakeDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let s = self.0.lock().unwrap();
        let id = s.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(s.files[*id].data.clone())
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        let whole = Self::step(s)?;
        let id = Self::file(s, name);
        let fits = s.room.map_or(bytes.len(), |r| r.min(bytes.len()));
        s.room = s.room.map(|r| r - fits);
        // A cut in the middle of a write: half of it was handed over.
        let n = if whole { fits } else { bytes.len() / 2 };
        s.files[id].data.extend(&bytes[..n]);
        s.written += n as u64;
        match (whole, fits == bytes.len()) {
            (false, _) => Err(crash()),
            (true, false) => Err(io::ErrorKind::StorageFull.into()),
            (true, true) => Ok(()),
        }
    }
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        let whole = Self::step(s)?;
        let id = Self::file(s, name);
        s.files[id].data.truncate(len as usize);
        if whole { Ok(()) } else { Err(crash()) }
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        if !Self::step(s)? {
            return Err(crash());
        }
        if s.fail_sync {
            return Err(io::Error::other("input/output error"));
        }
        let id = Self::file(s, name);
        s.files[id].synced = s.files[id].data.clone();
        Ok(())
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        if !Self::step(s)? {
            return Err(crash());
        }
        let id = s.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        s.names.insert(to.into(), id);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        if !s.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !Self::step(s)? {
            return Err(crash());
        }
        if let Some(id) = s.names.remove(name)
            && !s.synced_names.values().any(|synced| *synced == id)
        {
            s.files[id] = FileState::default();
        }
        Ok(())
    }
    fn sync_names(&mut self) -> io::Result<()> {
        let s = &mut *self.0.lock().unwrap();
        if !Self::step(s)? {
            return Err(crash());
        }
        s.synced_names = s.names.clone();
        Ok(())
    }
}
