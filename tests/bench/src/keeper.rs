//! `bench-keeper KEEPER LAYER STARTS HELD CYCLES`: what a keeper (`KEEPER keeper --dir DIR`) costs. Prints a name and a figure a line:
//!
//! - `sandbox_ms`, `start_ms`, `both_ms`, STARTS times one after another: from the request until a pod's namespaces (network included) are there, until
//!   the program runs in its container (overlay, cgroup, default mounts), and the sum;
//! - `empty_pss_kib`, `held_pss_kib`, `empty_dirty_kib`, `held_dirty_kib`: memory of guard and worker without containers and with HELD;
//! - after CYCLES more starts and ends, `before_*` and `after_*`: descriptors, children, mounts, groups, folders and resident memory.
//!
//! The programs are `true` and `sleep` of the busybox in LAYER, an unpacked image. Makes folders (the
//! keeper's own in memory, as on a node), a keeper and a cgroup of its own and ends them.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mote_runtime::cgroup::{self, Layout};
use mote_runtime::container::{
    CapSet, Capabilities, Container, Log, Namespace, NamespaceKind, Process, Rootfs, Stdio, defaults,
};
use mote_runtime::keeper::protocol::{Event, Listed, Reply, Request, Sandbox, State};
use mote_runtime::keeper::{self, Client, RunDir};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::Pid;

type Fault = Box<dyn Error>;
const WAIT: Duration = Duration::from_secs(20);
/// Starts that warm the caches before leaks are counted.
const WARM: usize = 50;

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

/// Nobody who listens is no reason to end without the keeper.
macro_rules! say {
    ($($what:tt)*) => { let _ = writeln!(std::io::stdout(), $($what)*); };
}

/// In the namespaces of a pod.
fn of_pod(mut container: Container, run: &RunDir, pod: &str) -> Container {
    container.namespaces.retain(|n| !matches!(n.kind, NamespaceKind::Uts | NamespaceKind::Ipc));
    for (kind, name) in [(NamespaceKind::Network, "net"), (NamespaceKind::Ipc, "ipc"), (NamespaceKind::Uts, "uts")] {
        container.namespaces.push(Namespace::join(kind, run.namespace(pod, name)));
    }
    container
}

/// Everything one measurement works with.
struct Bench {
    client: Client,
    /// Guard and worker.
    pids: [i32; 2],
    run: RunDir,
    dir: PathBuf,
    layer: PathBuf,
    parent: String,
    /// Heard of while others were waited for.
    ended: BTreeSet<String>,
}

impl Bench {
    /// With its writable folders, which are there before the keeper is asked, as on a node.
    fn container(&self, id: &str, args: &[&str]) -> Result<Container, Fault> {
        for folder in ["upper", "work"] {
            std::fs::create_dir_all(self.dir.join(id).join(folder))?;
        }
        Ok(container(&self.dir, &self.layer, id, &self.parent, args))
    }

    /// Milliseconds.
    fn timed(&mut self, request: Request) -> Result<f64, Fault> {
        let began = Instant::now();
        let reply = self.client.call(request)?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        if matches!(reply, Reply::Done | Reply::Started(_)) { Ok(took) } else { Err("not done".into()) }
    }

    /// Waits for its end and removes it.
    fn finish(&mut self, id: &str) -> Result<(), Fault> {
        while !self.ended.remove(id) {
            match self.client.event(WAIT)? {
                Some(Event::Exited { id: got, .. }) => self.ended.insert(got),
                None => return Err(format!("{id} did not end").into()),
            };
        }
        self.client.call(Request::Remove { id: id.to_owned() })?;
        Ok(())
    }

    /// Their folders stay until the last is measured: a disk's file system may look long for a free inode while many were freed just now.
    fn starts(&mut self, count: usize) -> Result<(), Fault> {
        for i in 0..count {
            let (id, pod) = (format!("c{i}"), format!("p{i}"));
            let wanted = Sandbox { id: pod.clone(), net: true, ipc: true, uts: true, ..Sandbox::default() };
            let sandbox = self.timed(Request::Sandbox(wanted))?;
            let container = of_pod(self.container(&id, &["true"])?, &self.run, &pod);
            let start = self.timed(Request::Start(Box::new(container)))?;
            say!("sandbox_ms {sandbox:.3}\nstart_ms {start:.3}\nboth_ms {:.3}", sandbox + start);
            self.finish(&id)?;
            self.client.call(Request::RemoveSandbox { id: pod })?;
        }
        (0..count).try_for_each(|i| std::fs::remove_dir_all(self.dir.join(format!("c{i}"))))?;
        Ok(())
    }

    fn weigh(&mut self, count: usize) -> Result<(), Fault> {
        // Warm: what the first container makes for good is not the price of the others.
        self.cycle("warm")?;
        self.memory("empty")?;
        let ids: Vec<String> = (0..count).map(|i| format!("s{i}")).collect();
        for id in &ids {
            let container = self.container(id, &["sleep", "1000"])?;
            self.timed(Request::Start(Box::new(container)))?;
        }
        self.memory("held")?;
        for id in &ids {
            self.client.call(Request::Signal { id: id.clone(), signal: 9, all: true })?;
        }
        ids.iter().try_for_each(|id| self.finish(id))?;
        ids.iter().try_for_each(|id| std::fs::remove_dir_all(self.dir.join(id)))?;
        Ok(())
    }

    fn memory(&self, when: &str) -> Result<(), Fault> {
        let pids = self.pids;
        for (name, field) in [("pss", "Pss"), ("dirty", "Private_Dirty")] {
            let all = pids.iter().map(|pid| memory_kib(*pid, field)).sum::<Result<u64, Fault>>()?;
            say!("{when}_{name}_kib {all}");
        }
        Ok(())
    }

    fn cycle(&mut self, id: &str) -> Result<(), Fault> {
        let container = self.container(id, &["true"])?;
        self.timed(Request::Start(Box::new(container)))?;
        self.finish(id)?;
        std::fs::remove_dir_all(self.dir.join(id))?;
        std::fs::remove_file(self.dir.join("log").join(id))?;
        Ok(())
    }

    fn cycles(&mut self, count: usize) -> Result<(), Fault> {
        (0..WARM).try_for_each(|_| self.cycle("k"))?;
        self.state("before")?;
        let began = Instant::now();
        (0..count).try_for_each(|_| self.cycle("k"))?;
        say!("cycle_ms {:.3}", began.elapsed().as_secs_f64() * 1000.0 / count.max(1) as f64);
        std::thread::sleep(Duration::from_millis(200)); // the guard lets go of the last FIFOs a moment later
        self.state("after")
    }

    /// What there is of each kind that could leak.
    fn state(&self, when: &str) -> Result<(), Fault> {
        let pids = self.pids;
        let mut found = Vec::new();
        let count = |folder: &Path| std::fs::read_dir(folder).map(Iterator::count).unwrap_or_default();
        for (name, pid) in [("guard_descriptors", pids[0]), ("worker_descriptors", pids[1])] {
            found.push((name, count(Path::new(&format!("/proc/{pid}/fd")))));
        }
        let children = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children: usize = pids.iter().filter_map(|p| children(p).ok()).map(|t| t.split_whitespace().count()).sum();
        found.push(("children", children));
        let [guard, worker] = pids;
        let mounts = std::fs::read_to_string(format!("/proc/{guard}/mountinfo"))?;
        found.push(("mounts", mounts.lines().count()));
        let points = mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
        found.push(("groups", points.map(|point| count(&Path::new(point).join(&self.parent))).sum()));
        found.push(("folders", count(&self.run.containers()) + count(&self.dir)));
        for (what, number) in found {
            say!("{when}_{what} {number}");
        }
        for (name, pid) in [("guard", guard), ("worker", worker)] {
            say!("{when}_{name}_rss_kib {}", memory_kib(pid, "Rss")?);
        }
        Ok(())
    }
}

fn memory_kib(pid: i32, field: &str) -> Result<u64, Fault> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).ok_or("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The keeper measured: guard and worker, ended with all that they hold, however the measuring ended.
struct Keeper {
    run: RunDir,
    pids: [i32; 2],
}

impl Keeper {
    fn start(exe: &Path, run: &Path) -> Result<Self, Fault> {
        let worker = keeper::spawn(exe, run)?;
        Ok(Self { run: RunDir::new(run), pids: [parent_of(worker)?, worker] })
    }

    fn end(&self) -> Result<(), Fault> {
        let mut client = Client::connect(self.run.path())?;
        let mut held = listed(&mut client)?;
        for container in &held.0 {
            client.call(Request::Signal { id: container.id.clone(), signal: 9, all: true }).ok(); // ends by itself, perhaps
        }
        let until = Instant::now() + WAIT;
        while held.0.iter().any(|c| !matches!(c.state, State::Exited(_))) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            held = listed(&mut client)?;
        }
        for container in held.0 {
            client.call(Request::Remove { id: container.id })?;
        }
        for id in held.1 {
            client.call(Request::RemoveSandbox { id })?;
        }
        client.call(Request::Shutdown)?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("end keeper: {e}: killed");
            // Stopped first: one that sees the other die would start a third.
            for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
                for pid in self.pids {
                    let _ = kill(Pid::from_raw(pid), signal); // gone, perhaps
                }
            }
        }
    }
}

fn listed(client: &mut Client) -> Result<(Vec<Listed>, Vec<String>), Fault> {
    match client.call(Request::List)? {
        Reply::List { containers, sandboxes } => Ok((containers, sandboxes)),
        _ => Err("no list".into()),
    }
}

fn parent_of(pid: i32) -> Result<i32, Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).ok_or("no parent")?;
    Ok(parent.parse()?)
}

/// A keeper's folder is on a tmpfs (/run) wherever a node is meant to be; a development machine may have another one only.
fn memory() -> PathBuf {
    let is_tmpfs = |p: &&str| statfs(*p).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC);
    ["/run", "/dev/shm"].into_iter().find(is_tmpfs).map_or_else(std::env::temp_dir, PathBuf::from)
}

fn measure(
    exe: &Path,
    [dir, run]: [&Path; 2],
    layer: &Path,
    [starts, held, cycles]: [usize; 3],
    parent: &str,
) -> Result<(), Fault> {
    let keeper = Keeper::start(exe, run)?;
    let mut client = Client::connect(run)?;
    client.call(Request::Hello { events: true })?;
    let (run, parent) = (RunDir::new(run), parent.to_owned());
    let ended = BTreeSet::new();
    let mut bench = Bench { client, pids: keeper.pids, run, dir: dir.into(), layer: layer.into(), parent, ended };
    bench.starts(starts)?;
    bench.weigh(held)?;
    bench.cycles(cycles)
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [exe, layer, counts @ ..] = arguments.as_slice() else {
        return Err("usage: bench-keeper KEEPER LAYER STARTS HELD CYCLES".into());
    };
    let counts: Vec<usize> = counts.iter().filter_map(|n| n.to_str()?.parse().ok()).collect();
    let counts = counts.try_into().map_err(|_| "STARTS, HELD and CYCLES are numbers")?;
    let parent = format!("mote-bench-keeper-{}", std::process::id());
    let (dir, run) = (std::env::temp_dir().join(&parent), memory().join(format!("{parent}.run")));
    std::fs::create_dir_all(dir.join("log"))?;
    let measured = measure(exe, [&dir, &run], layer, counts, &parent);
    for folder in [&dir, &run] {
        let _ = std::fs::remove_dir_all(folder);
    }
    let _ = cgroup::remove(&Layout::discover(), &parent);
    measured
}
