//! What every long-running command does with its process.

/// Everything but root fails somewhere later, less clearly.
pub(super) fn need_root(what: &str) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(format!("{what} needs root: it makes namespaces, mounts, control groups and network links (try sudo)"))
    }
}

/// A server holds a descriptor per client, and the soft limit of a shell is often 1024: raises it to the hard one. Not where containers run, which
/// would inherit it.
pub(super) fn open_files_as_allowed() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("raise the limit of open files from {soft} to {hard}: {e}");
    }
}

/// The runtime every long-running command uses: one thread, few blocking ones that go when idle.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, String> {
    crate::net::sys::lean_heap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()
        .map_err(|e| format!("start tokio: {e}"))?;
    let output = tokio::task::LocalSet::new().block_on(&runtime, future);
    // A pull that still runs must not hold us up; its store survives that.
    runtime.shutdown_background();
    Ok(output)
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
