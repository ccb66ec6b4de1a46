//! `mote down`: end every pod and the keeper of a data folder, and leave nothing behind but images and the store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mote_runtime::cgroup;
use mote_runtime::keeper::RunDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::flags::{self, Flag, put, stopped};
use super::process::{block_on, need_root};
use crate::instance::Instance;
use crate::keeper::{Keeper, LABEL_UID, State, label};
use crate::{net, proxy};

const USAGE: &str = "\
mote down: stop every pod of a data folder, and its keeper

usage: mote down [OPTIONS]

";

struct Options {
    data_dir: PathBuf,
    grace_seconds: u64,
    purge: bool,
}

const FLAGS: &[&Flag<Options>] = &[
    &Flag {
        name: "data-dir",
        value: "DIR",
        about: "the data folder (default /var/lib/mote)",
        set: |o, v| put(&mut o.data_dir, v.path()),
    },
    &Flag {
        name: "grace",
        value: "SECONDS",
        about: "between SIGTERM and SIGKILL, at most (default 10; a pod's own grace if that is shorter)",
        set: |o, v| v.parse().map(|n| o.grace_seconds = n),
    },
    &Flag {
        name: "purge",
        value: "",
        about: "also remove the data folder: images, store, keys",
        set: |o, _| put(&mut o.purge, true),
    },
];

/// How long a running `mote up` may take to end.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How long a keeper may take from its answer to Shutdown to its end.
const KEEPER_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Ends an instance.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let mut options = Options { data_dir: super::data_dir(), grace_seconds: 10, purge: false };
    if let Err(stop) = flags::read(&mut parser, FLAGS, &mut options) {
        return stopped(stop, &format!("{USAGE}{}", flags::lines(FLAGS)));
    }
    match down(&options.data_dir, Duration::from_secs(options.grace_seconds.min(3600)), options.purge) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn down(dir: &Path, grace: Duration, purge: bool) -> Result<(), String> {
    need_root("mote down")?;
    if !dir.exists() {
        say!("nothing to do: there is no data folder {}", dir.display());
        return Ok(());
    }
    let instance = Instance::open(dir)?;
    let _lock = take(&instance)?;
    let count = block_on(clear(&instance, grace))??;
    say!("stopped {count} container{}", if count == 1 { "" } else { "s" });
    if purge {
        crate::pods::dirs::remove_tree(&instance.data).map_err(|e| e.to_string())?;
        say!("removed {}", instance.data.display());
    } else {
        say!("images and store stay in {} (`mote down --purge` removes them)", instance.data.display());
    }
    Ok(())
}

/// The lock of the folder; whoever has it is asked to end.
fn take(instance: &Instance) -> Result<crate::instance::Lock, String> {
    let began = Instant::now();
    let mut asked = false;
    loop {
        match instance.lock() {
            Ok(lock) => return Ok(lock),
            Err(Err(why)) => return Err(why),
            Err(Ok(pid)) => {
                if !asked && pid > 1 {
                    asked = true;
                    say!("asking mote (pid {pid}) to end");
                    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| format!("signal mote (pid {pid}): {e}"))?;
                }
                if began.elapsed() > END_WITHIN {
                    return Err(format!(
                        "data folder {} is in use by another mote (pid {pid}), which does not end",
                        instance.data.display()
                    ));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Ends all containers and the keeper, and removes everything the instance made outside its data; the caller holds the lock. Gives
/// back how many containers ran.
pub(crate) async fn clear(instance: &Instance, grace: Duration) -> Result<usize, String> {
    let cgroup_parent = instance.recall();
    let mut uids = std::collections::BTreeSet::new();
    let mut count = 0;
    let unheard = |e| format!("the keeper of {} may hold containers and gives no answer: {e}", instance.data.display());
    match Keeper::find(RunDir::new(&instance.run)).await.map_err(unheard)? {
        Some(keeper) => {
            let pid = mote_runtime::keeper::hello(&instance.run).map_err(|e| format!("ask keeper for its pid: {e}"))?;
            count = stop_all(&keeper, grace).await?;
            uids = keeper.pods();
            for listed in keeper.containers() {
                keeper.remove(&listed.id).await.map_err(|e| format!("remove container {}: {e}", listed.id))?;
            }
            for uid in &uids {
                keeper.remove_sandbox(uid).await.map_err(|e| format!("remove sandbox {uid}: {e}"))?;
            }
            keeper.shutdown().await.map_err(|e| format!("end keeper: {e}"))?;
            wait_gone(pid).await?;
        }
        None => log::debug!("no keeper in {}", instance.run.display()),
    }
    for folder in [instance.run.join("pods"), instance.data.join("pods")] {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            uids.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let layout = cgroup::Layout::discover();
    for uid in uids.iter().filter_map(|uid| crate::pods::model::PodUid::new(uid)) {
        let group = crate::pods::spec::pod_cgroup(&cgroup_parent, uid.as_str());
        cgroup::remove(&layout, &group).map_err(|e| e.to_string())?;
        crate::pods::volumes::remove(&instance.roots(), &uid).map_err(|e| e.to_string())?;
    }
    // Of pods that were half gone when mote ended, nothing else is known any more. Only empty groups go: others may not be ours.
    for name in cgroup::below(&layout, &cgroup_parent).unwrap_or_default() {
        if name.starts_with("pod") {
            let _ = cgroup::try_remove(&layout, &format!("{cgroup_parent}/{name}"));
        }
    }
    remove_empty_group(&cgroup_parent);
    let mut wrong = Vec::new();
    if let Err(error) = proxy::teardown(instance.tag) {
        wrong.push(error.to_string());
    }
    if let Err(error) = net::teardown(instance.tag) {
        wrong.push(error.to_string());
    }
    for name in ["pods", "containers", "logs"] {
        crate::pods::dirs::remove_tree(&instance.data.join(name)).map_err(|e| e.to_string())?;
    }
    release_images(instance);
    crate::pods::dirs::remove_tree(&instance.run).map_err(|e| e.to_string())?;
    match wrong.first() {
        None => Ok(count),
        Some(why) => Err(why.clone()),
    }
}

/// A keeper that has answered Shutdown needs a moment to end.
async fn wait_gone(pid: i32) -> Result<(), String> {
    let began = Instant::now();
    while kill(Pid::from_raw(pid), None).is_ok() {
        if began.elapsed() > KEEPER_ENDS_WITHIN {
            return Err(format!("keeper (pid {pid}) said it would end and has not"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn stop_all(keeper: &Keeper, grace: Duration) -> Result<usize, String> {
    let running = |keeper: &Keeper| -> Vec<String> {
        keeper
            .containers()
            .into_iter()
            .filter(|listed| !matches!(listed.state, State::Exited(_)))
            .map(|listed| listed.id)
            .collect()
    };
    let first = running(keeper);
    for listed in keeper.containers().iter().filter(|listed| first.contains(&listed.id)) {
        let signal = label(listed, "stop").parse().unwrap_or(libc::SIGTERM);
        log::debug!("stop container {} of pod {}", listed.id, label(listed, LABEL_UID));
        keeper.signal(&listed.id, signal, false).await.map_err(|e| format!("stop container {}: {e}", listed.id))?;
    }
    let began = Instant::now();
    let mut killed = std::collections::BTreeSet::new();
    loop {
        let left = running(keeper);
        if left.is_empty() {
            return Ok(first.len());
        }
        for listed in keeper.containers().into_iter().filter(|listed| left.contains(&listed.id)) {
            let own = label(&listed, "grace").parse().map_or(grace, Duration::from_secs).min(grace);
            if began.elapsed() >= own && killed.insert(listed.id.clone()) {
                keeper
                    .signal(&listed.id, libc::SIGKILL, true)
                    .await
                    .map_err(|e| format!("kill container {}: {e}", listed.id))?;
            }
        }
        if began.elapsed() >= grace + Duration::from_secs(10) {
            return Err(format!(
                "container {} does not end, not even by SIGKILL",
                left.first().map_or("", String::as_str)
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Removes the parent group in every hierarchy if nothing is in it. Removing a group that is not empty fails, which is right.
fn remove_empty_group(parent: &str) {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in std::iter::once(root.clone()).chain(hierarchies) {
        let mut group = PathBuf::from(parent);
        while group.components().next().is_some() {
            if std::fs::remove_dir(hierarchy.join(&group)).is_err() {
                break;
            }
            group.pop();
        }
    }
}

fn release_images(instance: &Instance) {
    let Ok(store) = mote_images::Store::open(&instance.data.join("images")) else { return };
    for owner in store.leases().unwrap_or_default() {
        if let Err(error) = store.release(&owner) {
            log::debug!("release image of {owner}: {error}");
        }
    }
}
