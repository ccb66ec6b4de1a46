//! The store's log after damage: any records in whole frames, then any tail. It opens or is refused, and opens the same way again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use minicp::store::Store;
use minicp::store::log::LogStore;
use std::path::Path;

const LOG: &str = "log-0000000000000000";

fn open(runtime: &tokio::runtime::Runtime, folder: &Path) -> Result<u64, String> {
    tokio::task::LocalSet::new().block_on(runtime, async {
        let store = LogStore::open(folder).await.map_err(|why| why.to_string())?;
        Ok(store.revision().0)
    })
}

fn write(folder: &Path, head: &[u8], bytes: &[u8]) -> std::io::Result<()> {
    let mut log = head.to_vec();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first() {
        let Some((payload, after)) = after.split_at_checked(usize::from(*len)) else { break };
        log.extend((payload.len() as u32).to_le_bytes());
        log.extend(crc32fast::hash(payload).to_le_bytes());
        log.extend(payload);
        rest = after;
    }
    log.extend(rest);
    std::fs::write(folder.join(LOG), log)
}

struct State {
    runtime: tokio::runtime::Runtime,
    folder: std::path::PathBuf,
    head: Vec<u8>,
}

impl State {
    fn new() -> State {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = Path::new("/dev/shm").join(format!("mote-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        open(&runtime, &folder).expect("an empty store opens");
        let head = std::fs::read(folder.join(LOG)).expect("the log of an empty store");
        State { runtime, folder, head }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

thread_local!(static STATE: State = State::new());

fuzz_target!(|bytes: &[u8]| {
    STATE.with(|state| {
        write(&state.folder, &state.head, bytes).expect("the log can be written");
        let first = open(&state.runtime, &state.folder);
        assert_eq!(first, open(&state.runtime, &state.folder));
    });
});
