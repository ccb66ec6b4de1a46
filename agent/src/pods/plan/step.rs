//! What has to happen next to one container, once its turn has come: restart policies, back-offs and their pauses.

use std::time::Duration;

use crate::clock::Moment;
use crate::pods::model::{Exit, Facts, Failure, ImageState, Instance, Pod, RestartPolicy, Role, State, Wanted};

/// First pause of every back-off of a container.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause of every back-off of a container.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A run at least this long forgives the crashes before it.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// How long a failed pull is called `ErrImagePull` before it is called `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// First pause after a failed sandbox, volume or container configuration.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What has to happen next to one container, if its turn has come.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// It runs as wanted.
    Run,
    /// It has ended and stays so.
    Finished,
    /// Its image has to be looked for.
    Pull,
    /// It can be started.
    Start,
    /// Not yet.
    Wait {
        /// The waiting reason for the status.
        reason: &'static str,
        /// The waiting message for the status.
        message: String,
        /// When to look again.
        until: Option<Moment>,
    },
}

/// Short runs in a row, the given one included.
pub fn crashes_after(run: &Instance, exit: &Exit) -> u32 {
    if exit.finished.since(run.started) >= FORGIVEN_AFTER { 0 } else { run.crashes.saturating_add(1) }
}

/// The pause before a container that crashed that often in a row starts again: none, 10 s, 20 s … 5 min.
pub fn crash_pause(crashes: u32) -> Duration {
    match crashes {
        0 | 1 => Duration::ZERO,
        more => doubled(BACKOFF_FIRST, more - 2, BACKOFF_MAX),
    }
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).filter(|factor| *factor > 0).unwrap_or(u32::MAX)).min(max)
}

/// The end of the pause after a failure.
pub(super) fn retry_at(failure: &Failure) -> Moment {
    let (first, max) = match failure.reason {
        "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => (BACKOFF_FIRST, BACKOFF_MAX),
        _ => (RETRY_FIRST, RETRY_MAX),
    };
    failure.at.plus(doubled(first, failure.times.saturating_sub(1), max))
}

pub(super) fn restarts(pod: &Pod, wanted: &Wanted, exit: &Exit) -> bool {
    match (wanted.role, pod.restart) {
        (Role::Sidecar, _) => true,
        (Role::Init, RestartPolicy::Never) => false,
        (Role::Init, _) => exit.code != 0,
        (Role::App, RestartPolicy::Always) => true,
        (Role::App, RestartPolicy::OnFailure) => exit.code != 0,
        (Role::App, RestartPolicy::Never) | (Role::Ephemeral, _) => false,
    }
}

/// What has to happen next to one container whose turn has come.
pub fn step(pod: &Pod, wanted: &Wanted, facts: &Facts, now: Moment) -> Step {
    if let Some(run) = facts.newest(&wanted.name) {
        match &run.state {
            State::Running => return Step::Run,
            State::Exited(exit) => {
                let changed = run.hash != wanted.hash;
                if !changed && !restarts(pod, wanted, exit) {
                    return Step::Finished;
                }
                let pause = if changed { Duration::ZERO } else { crash_pause(crashes_after(run, exit)) };
                // A clock that was set back must not make the pause longer than it is.
                let until = exit.finished.plus(pause).min(now.plus(pause));
                if now < until {
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        short(pause),
                        wanted.name,
                        pod.name,
                        pod.namespace,
                        pod.uid
                    );
                    return Step::Wait { reason: "CrashLoopBackOff", message, until: Some(until) };
                }
            }
        }
    }
    if let Some(failure) = facts.starts.get(&wanted.name) {
        let until = retry_at(failure);
        if now < until {
            return Step::Wait { reason: failure.reason, message: failure.message.clone(), until: Some(until) };
        }
    }
    match facts.images.get(&wanted.name) {
        None => Step::Pull,
        Some(ImageState::Pulling) => Step::Wait { reason: "ContainerCreating", message: String::new(), until: None },
        Some(ImageState::Ready { .. }) => Step::Start,
        Some(ImageState::Failed(failure)) => {
            let until = retry_at(failure);
            let shown = failure.at.plus(PULL_ERROR_SHOWN);
            if now >= until {
                Step::Pull
            } else if now < shown || failure.reason != "ErrImagePull" {
                Step::Wait { reason: failure.reason, message: failure.message.clone(), until: Some(shown.min(until)) }
            } else {
                let message =
                    format!("Back-off pulling image {:?}: {}: {}", wanted.image, failure.reason, failure.message);
                Step::Wait { reason: "ImagePullBackOff", message, until: Some(until) }
            }
        }
    }
}

/// `10s`, `2m40s`, `5m0s`: as Go writes a duration.
pub fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
