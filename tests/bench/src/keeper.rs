//! `bench-keeper MOTE-OCI LAYER COUNT`: how long from the request to a keeper until the program runs in its container (all namespaces
//! but the network's, overlay, cgroup, default mounts), COUNT times one after another; prints milliseconds, one figure a line. The
//! program is `true` of the busybox in LAYER, an unpacked image. Makes a folder, a keeper and a cgroup of its own and ends them.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mote_runtime::cgroup::{self, Layout};
use mote_runtime::container::{
    CapSet, Capabilities, Container, Log, Namespace, NamespaceKind, Process, Rootfs, Stdio, defaults,
};
use mote_runtime::keeper::protocol::{Event, Reply, Request};
use mote_runtime::keeper::{self, Client, RunDir};

type Fault = Box<dyn Error>;
const WAIT: Duration = Duration::from_secs(20);

fn container(dir: &Path, layer: &Path, id: &str, parent: &str) -> Container {
    let kinds =
        [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Uts, NamespaceKind::Ipc, NamespaceKind::Cgroup];
    let mut made = Container {
        id: id.into(),
        process: Process {
            args: vec!["true".into()],
            env: vec![defaults::PATH.into()],
            capabilities: Capabilities::engine(CapSet::DEFAULT),
            ..Process::default()
        },
        rootfs: Rootfs::Overlay {
            lower: vec![layer.to_path_buf()],
            upper: dir.join(id).join("upper"),
            work: dir.join(id).join("work"),
            volatile: true,
        },
        namespaces: kinds.map(Namespace::new).to_vec(),
        mounts: defaults::mounts(),
        masked_paths: defaults::masked_paths(),
        readonly_paths: defaults::readonly_paths(),
        stdio: Stdio::Log(Log { path: dir.join("log").join(id), ..Log::default() }),
        ..Container::default()
    };
    made.cgroup.path = format!("{parent}/{id}");
    made
}

/// Starts it, waits for its end, removes it; gives back what the start took.
fn one(client: &mut Client, container: Container) -> Result<Duration, Fault> {
    let id = container.id.clone();
    let request = Request::Start(Box::new(container));
    let began = Instant::now();
    let Reply::Started(_) = client.call(request)? else { return Err("not started".into()) };
    let took = began.elapsed();
    loop {
        match client.event(WAIT)? {
            Some(Event::Exited { id: got, .. }) if got == id => break,
            Some(_) => {}
            None => return Err(format!("{id} did not end").into()),
        }
    }
    client.call(Request::Remove { id })?;
    Ok(took)
}

fn measure(exe: &Path, dir: &Path, layer: &Path, count: usize, parent: &str) -> Result<(), Fault> {
    let run = RunDir::new(dir.join("run"));
    keeper::spawn(exe, run.path())?;
    let mut client = Client::connect(run.path())?;
    client.call(Request::Hello { events: true })?;
    let measured = (0..count).try_for_each(|i| {
        let took = one(&mut client, container(dir, layer, &format!("c{i}"), parent))?;
        println!("{:.3}", took.as_secs_f64() * 1000.0);
        Ok(())
    });
    client.call(Request::Shutdown)?;
    measured
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [exe, layer, count] = arguments.as_slice() else {
        return Err("usage: bench-keeper MOTE-OCI LAYER COUNT".into());
    };
    let count = count.to_str().ok_or("COUNT is no number")?.parse()?;
    let parent = format!("mote-bench-keeper-{}", std::process::id());
    let dir = std::env::temp_dir().join(&parent);
    std::fs::create_dir_all(&dir)?;
    let measured = measure(exe, &dir, layer, count, &parent);
    let _ = std::fs::remove_dir_all(&dir);
    let _ = cgroup::remove(&Layout::discover(), &parent);
    measured
}
