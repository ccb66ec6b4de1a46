//! `mote image pull` is broken off by Ctrl-C, while bytes come slowly and while none come at all: it ends soon, says so, leaves nothing
//! half made, and the next one goes on where it was.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mote_images::{Cancel, Compression, ImageConfig, PackLayer, PackSpec, Reference, Silent, Store};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{mote, until};

#[path = "../../images/tests/scripted/mod.rs"]
#[allow(clippy::unwrap_used)] // it is written for tests that unwrap
mod scripted;

/// Bytes that do not compress, in each of two layers.
const LAYER_BYTES: [usize; 2] = [4_000_000, 2_000_000];
/// So slow that a layer is worth a spool (two seconds and more).
const RATE: u64 = 700_000;
/// What is on its way when a pull is broken off: in the sockets and in the buffers before the spool.
const ON_THE_WAY: u64 = 600_000;

fn pull(data: &Path, name: &Reference) -> Child {
    let mut command = Command::new(mote());
    command.args(["image", "pull", "--data-dir"]).arg(data).arg(name.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mote runs")
}

/// Ctrl-C; how the process ended and what it said.
fn interrupt(mut child: Child) -> (ExitStatus, String) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it runs");
    let status = until("the end of an interrupted pull", 10, || child.try_wait().expect("our child"));
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    (status, said)
}

#[test]
fn an_interrupted_pull_ends_soon_and_the_next_goes_on_where_it_was() {
    let tmp = tempfile::Builder::new().prefix("mote-e2e-int-").tempdir().expect("folder");
    let origin = Store::open(&tmp.path().join("origin")).expect("store");
    let server = scripted::Server::start(tmp.path().join("origin/blobs"));
    let name: Reference = format!("{}/x:1", server.addr).parse().expect("reference");
    let layers = LAYER_BYTES.iter().zip(1..).map(|(bytes, seed)| {
        let dir = tmp.path().join(format!("layer-{seed}"));
        std::fs::create_dir(&dir).expect("folder");
        std::fs::write(dir.join(format!("noise-{seed}")), scripted::noise(seed, *bytes)).expect("file");
        PackLayer::Dir(dir)
    });
    let config = ImageConfig { cmd: vec!["x".to_owned()], ..ImageConfig::default() };
    let spec = PackSpec { config, layers: layers.collect(), compression: Compression::Gzip, mtime: Some(0) };
    let image = origin.pack(&name, spec, &Cancel::default()).expect("packed");
    server.tag("1", image.manifest.hex());
    let bytes = LAYER_BYTES.iter().sum::<usize>() as u64;

    let data = tmp.path().join("data");
    // From the rate at which it comes to one byte in a second: then a read that waits does not see the signal.
    for (part, rate_then) in [(1, RATE), (2, 1)] {
        server.script.rate.store(RATE, Relaxed);
        let mut pulling = pull(&data, &name);
        until("some of the bytes", 60, || (server.sent_in_all() > bytes * part / 4).then_some(()));
        assert!(pulling.try_wait().expect("our child").is_none(), "it ended by itself");
        server.script.rate.store(rate_then, Relaxed);
        std::thread::sleep(Duration::from_millis(if rate_then == 1 { 300 } else { 0 })); // until nothing comes any more
        let (status, said) = interrupt(pulling);
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.trim_end().ends_with("mote: interrupted; the next pull goes on from here"), "{said:?}");
        // What is there is whole, and is not taken for an image.
        let store = Store::open(&data.join("images")).expect("store");
        assert!(store.list().expect("list").is_empty());
        assert!(store.verify(&Silent, &Cancel::default()).expect("verify").is_empty());
        assert_eq!(std::fs::read_dir(data.join("images/tmp")).expect("tmp").count(), 0);
        assert!(store.usage().expect("usage").partial > bytes * part / 8, "nothing was kept");
    }

    server.script.rate.store(0, Relaxed);
    let done = pull(&data, &name).wait_with_output().expect("output");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let store = Store::open(&data.join("images")).expect("store");
    assert_eq!(store.list().expect("list").len(), 1);
    assert!(store.verify(&Silent, &Cancel::default()).expect("verify").is_empty());
    assert_eq!(store.usage().expect("usage").partial, 0);
    let sent = server.sent_in_all();
    assert!(sent < bytes + 2 * ON_THE_WAY, "{sent} bytes sent for {bytes}");
}
