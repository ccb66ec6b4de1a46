//! Backup files: any bytes, and any records in frames whose checksums hold. What is read is written, restored and read again the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use minicp::store::Store;
use minicp::store::log::LogStore;
use minicp::store::snapshot::Snapshot;
use std::path::{Path, PathBuf};

/// Bytes before a file's first frame.
const HEADER: usize = 20;

struct State {
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
    head: Vec<u8>,
}

impl State {
    fn new() -> State {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = Path::new("/dev/shm").join(format!("mote-fuzz-backup-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let state = State { runtime, folder, head: Vec::new() };
        state.open(&state.folder.join("empty"));
        let empty = Snapshot::of_folder(&state.folder.join("empty")).expect("an empty store is read");
        empty.write(&state.folder.join("file")).expect("it is written");
        let mut head = std::fs::read(state.folder.join("file")).expect("it is there");
        head.truncate(HEADER);
        State { head, ..state }
    }
    fn open(&self, folder: &Path) {
        tokio::task::LocalSet::new().block_on(&self.runtime, async {
            let store = LogStore::open(folder).await.expect("what was restored opens");
            store.close().await;
        });
    }
}

/// With a byte before each frame's payload that says how long it is.
fn framed(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut file = head.to_vec();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first() {
        let Some((payload, after)) = after.split_at_checked(usize::from(*len)) else { break };
        file.extend((payload.len() as u32).to_le_bytes());
        file.extend(crc32fast::hash(payload).to_le_bytes());
        file.extend(payload);
        rest = after;
    }
    file.extend(rest);
    file
}

thread_local!(static STATE: State = State::new());

fuzz_target!(|bytes: &[u8]| {
    STATE.with(|state| {
        let Some((way, bytes)) = bytes.split_first() else { return };
        let file = state.folder.join("file");
        let content = if way % 4 == 0 { bytes.to_vec() } else { framed(&state.head, bytes) };
        std::fs::write(&file, content).expect("it can be written");
        let Ok(read) = Snapshot::read(&file) else { return };
        read.write(&file).expect("it can be written");
        let again = Snapshot::read(&file).expect("our own file");
        let told = |s: &Snapshot| (s.summary().entries, s.summary().bytes, s.summary().encrypted, s.summary().resources);
        assert_eq!(told(&again), told(&read));
        let folder = state.folder.join("store");
        let _ = std::fs::remove_dir_all(&folder);
        read.restore(&folder).expect("into an empty folder");
        state.open(&folder);
        assert_eq!(told(&Snapshot::of_folder(&folder).expect("a store")), told(&read));
    });
});
