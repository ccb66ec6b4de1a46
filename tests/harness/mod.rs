//! What end-to-end tests share: a node under test that cleans up and proves that nothing is left, a registry, kubectl, bounded waiting.
//!
//! Every guard works beside copies of itself: [`slot::Slot`] hands out ports and address ranges that no other test of the machine has.
#![allow(dead_code)] // each test executable uses its own part

pub mod http;
pub mod kubectl;
pub mod leftovers;
pub mod machine;
pub mod node;
pub mod registry;
pub mod server;
pub mod slot;
pub mod wait;

pub use kubectl::Kubectl;
pub use node::Node;
pub use registry::Registry;
pub use wait::{eventually, until};

use std::path::{Path, PathBuf};

/// The repository.
pub fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What the fetch scripts keep.
pub fn cache() -> PathBuf {
    std::env::var_os("MOTE_CACHE").map_or_else(|| top().join(".cache"), PathBuf::from)
}

/// The executable under test.
pub fn mote() -> PathBuf {
    std::env::var_os("MOTE_UNDER_TEST").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_mote")), PathBuf::from)
}

/// Fails loudly where the machine lacks what the test needs: a test that cannot run has not passed.
pub fn need(program: &str, package: &str) {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    assert!(found, "{program} is missing: apt-get install {package}");
}

/// Runs a command to its end; panics with all it said when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = std::process::Command::new(program).args(args).output().unwrap_or_else(|e| panic!("run {program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}
