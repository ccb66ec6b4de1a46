//! `bench-keeper MOTE LAYER COUNT`: how long from the request to a keeper until the program runs in its container (all namespaces
//! but the network's, overlay, cgroup, default mounts), COUNT times one after another, and what the keeper's worker weighs without
//! containers and with [`HELD`]. Prints a name and a figure a line: `start_ms`, `empty_kib`, `held_kib`. The programs are `true` and
//! `sleep` of the busybox in LAYER, an unpacked image. Makes a folder, a keeper and a cgroup of its own and ends them.
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
/// Containers that run at once when the keeper's memory is read for the second time.
const HELD: usize = 20;

fn container(dir: &Path, layer: &Path, id: &str, parent: &str, args: &[&str]) -> Container {
    let kinds =
        [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Uts, NamespaceKind::Ipc, NamespaceKind::Cgroup];
    let mut made = Container {
        id: id.into(),
        process: Process {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
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

/// What a start takes.
fn start(client: &mut Client, container: Container) -> Result<Duration, Fault> {
    let request = Request::Start(Box::new(container));
    let began = Instant::now();
    let Reply::Started(_) = client.call(request)? else { return Err("not started".into()) };
    Ok(began.elapsed())
}

/// Waits for its end and removes it.
fn finish(client: &mut Client, id: &str) -> Result<(), Fault> {
    loop {
        match client.event(WAIT)? {
            Some(Event::Exited { id: got, .. }) if got == id => break,
            Some(_) => {}
            None => return Err(format!("{id} did not end").into()),
        }
    }
    client.call(Request::Remove { id: id.to_owned() })?;
    Ok(())
}

/// Dirty pages of a process' own.
fn private_kib(pid: i32) -> Result<u64, Fault> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Private_Dirty:")).ok_or("no Private_Dirty")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn measure(exe: &Path, dir: &Path, layer: &Path, count: usize, parent: &str) -> Result<(), Fault> {
    let run = RunDir::new(dir.join("run"));
    keeper::spawn(exe, run.path())?;
    let mut client = Client::connect(run.path())?;
    client.call(Request::Hello { events: true })?;
    let measured = (0..count).try_for_each(|i| {
        let id = format!("c{i}");
        let took = start(&mut client, container(dir, layer, &id, parent, &["true"]))?;
        println!("start_ms {:.3}", took.as_secs_f64() * 1000.0);
        finish(&mut client, &id)
    });
    let measured =
        measured.and_then(|()| weigh(&mut client, &run, |id| container(dir, layer, id, parent, &["sleep", "1000"])));
    client.call(Request::Shutdown)?;
    measured
}

fn weigh(client: &mut Client, run: &RunDir, container: impl Fn(&str) -> Container) -> Result<(), Fault> {
    let pid = keeper::hello(run.path())?;
    println!("empty_kib {}", private_kib(pid)?);
    let ids: Vec<String> = (0..HELD).map(|i| format!("s{i}")).collect();
    let held = ids.iter().try_for_each(|id| start(client, container(id)).map(drop)).and_then(|()| private_kib(pid));
    for id in &ids {
        client.call(Request::Signal { id: id.clone(), signal: 9, all: true }).ok(); // never started, perhaps
    }
    println!("held_kib {}", held?);
    ids.iter().try_for_each(|id| finish(client, id))
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [exe, layer, count] = arguments.as_slice() else {
        return Err("usage: bench-keeper MOTE LAYER COUNT".into());
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
