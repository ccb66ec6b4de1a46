//! End to end on the real kernel, as root: `mote up` with real images, judged through the real kubectl.
//!
//! Each test starts a node of its own (see `harness::Node`), which at the end must leave nothing on the machine.
#![allow(clippy::indexing_slicing)] // a field of a JSON object that is not there reads as null
#![allow(unreachable_pub)]

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
mod cluster;
mod images;
mod interrupt;
mod limits;
mod network;
mod pods;
mod registries;
mod restart;
mod static_pods;
mod workloads;

/// A pod of one container; `spec` are further lines of the container (indented by four).
fn pod(name: &str, image: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  - name: main\n    image: {image}\n{spec}"
    )
}

/// A pod of the busybox image that runs a shell script.
fn shell(name: &str, registry: &harness::Registry, script: &str) -> String {
    pod(name, &registry.image("busybox"), &format!("    command: [sh, -c, '{script}']\n"))
}

/// A shell script's idle end that goes at SIGTERM at once.
const IDLE: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";
