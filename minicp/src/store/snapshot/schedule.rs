//! Backups on a schedule: a file every so often, the newest few kept. Nothing is written while nothing has changed.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mote_api::time::Time;

use super::{Snapshot, SnapshotError};
use crate::store::{Revision, Store};

/// Time until a backup that failed is tried again (or its interval, if that is less).
const AGAIN: Duration = Duration::from_secs(600);

/// When, where, how many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub every: Duration,
    /// At least 1.
    pub keep: usize,
    pub folder: PathBuf,
}

/// What a backup is made from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The embedded engine's own files: what a restart would find.
    Folder(PathBuf),
    /// Another engine's answers.
    Engine(Rc<dyn Store>),
}

/// A backup that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Backup {
    name: String,
    changed: Revision,
    /// None: of the future (the clock was wrong), so of unknown age.
    age: Option<Duration>,
}

/// What is to be done now.
#[derive(PartialEq, Eq, Debug)]
struct Plan {
    /// A backup is due, if anything changed since the newest.
    due: bool,
    /// Look again after this.
    wait: Duration,
}

/// `mote-<revision of the last change>-<time>.snapshot`: sorted by what they hold, also when the clock was wrong.
fn name(changed: Revision, now: Time) -> String {
    let time: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("mote-{:020}-{time}.snapshot", changed.0)
}

fn changed_of(name: &str) -> Option<Revision> {
    let (number, _) = name.strip_prefix("mote-")?.strip_suffix(".snapshot")?.split_once('-')?;
    (number.len() == 20).then(|| number.parse().ok().map(Revision)).flatten()
}

fn plan(there: &[Backup], schedule: &Schedule) -> Plan {
    let newest = there.iter().max_by_key(|b| b.changed);
    match newest.and_then(|b| b.age) {
        Some(age) if age < schedule.every => Plan { due: false, wait: schedule.every - age },
        _ => Plan { due: true, wait: schedule.every },
    }
}

/// Those that go: all but the newest few.
fn superfluous(there: &[Backup], keep: usize) -> Vec<String> {
    let mut names: Vec<(Revision, &String)> = there.iter().map(|b| (b.changed, &b.name)).collect();
    names.sort();
    let gone = names.len().saturating_sub(keep.max(1));
    names.into_iter().take(gone).map(|(_, name)| name.clone()).collect()
}

fn list(folder: &Path) -> std::io::Result<Vec<Backup>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".mote-") && name.ends_with(".snapshot.tmp") {
            // A power cut came between.
            std::fs::remove_file(entry.path())?;
            continue;
        }
        if let Some(changed) = changed_of(&name) {
            let age = SystemTime::now().duration_since(entry.metadata()?.modified()?).ok();
            out.push(Backup { name, changed, age });
        }
    }
    Ok(out)
}

/// Writes a backup unless the newest one has it all, then removes what is beyond `keep`. None: nothing had changed.
fn save(snapshot: &Snapshot, schedule: &Schedule, now: Time) -> Result<Option<PathBuf>, SnapshotError> {
    let failed = |e| SnapshotError::Io("look through", schedule.folder.clone(), e);
    let there = list(&schedule.folder).map_err(failed)?;
    let mut written = None;
    if there.iter().all(|b| b.changed != snapshot.changed) {
        let file = schedule.folder.join(name(snapshot.changed, now));
        snapshot.write(&file)?;
        written = Some(file);
    }
    for name in superfluous(&list(&schedule.folder).map_err(failed)?, schedule.keep) {
        let file = schedule.folder.join(name);
        std::fs::remove_file(&file).map_err(|e| SnapshotError::Io("remove", file, e))?;
    }
    Ok(written)
}

pub(super) async fn back_up(source: &Source, schedule: &Schedule, now: Time) -> Result<Option<PathBuf>, String> {
    let (taken, schedule) = (source.clone(), schedule.clone());
    let snapshot = match taken {
        Source::Folder(_) => None,
        Source::Engine(store) => {
            let range = store.range("/registry/", "", None, 0).await.map_err(|e| e.to_string())?;
            Some(Snapshot::of_range(&range))
        }
    };
    let folder = if let Source::Folder(folder) = source { folder.clone() } else { PathBuf::new() };
    let work = move || match snapshot {
        Some(snapshot) => save(&snapshot, &schedule, now),
        None => save(&Snapshot::of_folder(&folder)?, &schedule, now),
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| format!("writing thread: {e}"))?;
    done.map_err(|e| e.to_string())
}

/// Runs for ever.
pub(crate) async fn run(source: Source, schedule: Schedule, now: impl Fn() -> Time) {
    loop {
        let look = || {
            crate::pki::files::make_private_dir(&schedule.folder)?;
            list(&schedule.folder)
        };
        let mut wait = match look().map(|there| plan(&there, &schedule)) {
            Ok(Plan { due: false, wait }) => wait,
            Ok(Plan { due: true, wait }) => match back_up(&source, &schedule, now()).await {
                Ok(Some(file)) => {
                    log::info!("backup written: {}", file.display());
                    wait
                }
                Ok(None) => wait,
                Err(e) => {
                    log::error!("backup: {e}");
                    AGAIN.min(schedule.every)
                }
            },
            Err(e) => {
                log::error!("backup: look through {}: {e}", schedule.folder.display());
                AGAIN.min(schedule.every)
            }
        };
        wait = wait.max(Duration::from_secs(1));
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(changed: u64, age: Option<u64>) -> Backup {
        Backup {
            name: name(Revision(changed), Time::from_unix(0)),
            changed: Revision(changed),
            age: age.map(Duration::from_secs),
        }
    }
    fn hourly() -> Schedule {
        Schedule { every: Duration::from_secs(3600), keep: 2, folder: PathBuf::new() }
    }

    #[test]
    fn due_when_the_newest_is_old_enough() {
        for (there, due, wait) in [
            (vec![], true, 3600),
            (vec![backup(5, Some(3600))], true, 3600),
            (vec![backup(5, Some(3599))], false, 1),
            (vec![backup(5, None)], true, 3600),
            // The newest is the one that holds most, whatever the clock said then.
            (vec![backup(9, Some(10)), backup(5, Some(9000))], false, 3590),
            (vec![backup(9, Some(9000)), backup(5, Some(10))], true, 3600),
        ] {
            assert_eq!(plan(&there, &hourly()), Plan { due, wait: Duration::from_secs(wait) }, "{there:?}");
        }
    }

    #[test]
    fn the_newest_few_stay() {
        let there: Vec<_> = [100, 7, 2_000_000_000, 99].map(|n| backup(n, None)).into();
        let gone = |keep| superfluous(&there, keep);
        assert_eq!(gone(2), [backup(7, None).name, backup(99, None).name]);
        assert_eq!(gone(4), [""; 0]);
        assert_eq!(gone(0).len(), 3, "one always stays");
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let ours = name(Revision(12), Time::from_unix(86_400));
        assert_eq!(ours, "mote-00000000000000000012-19700102T000000Z.snapshot");
        assert_eq!(changed_of(&ours), Some(Revision(12)));
        for other in [
            "mote-12-x.snapshot",
            "mote-00000000000000000012.snapshot",
            "notes.txt",
            ".mote-00000000000000000012-x.snapshot.tmp",
        ] {
            assert_eq!(changed_of(other), None, "{other}");
        }
    }
}
