//! What keeps the revision in charge up to date: the policy directory, and the
//! database that other hosts share. Neither can put a bad revision in charge.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Revisions;

/// How long a directory must be quiet before it is read: a copy in progress is
/// no revision.
const QUIET: Duration = Duration::from_millis(200);

/// A directory that is never quiet is read all the same.
const NEVER_QUIET: Duration = Duration::from_secs(5);

/// How long the host waits after an active revision could not be loaded.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// The directory is read this often though nothing was announced: some file
/// systems announce nothing.
const UNANNOUNCED: Duration = Duration::from_secs(30);

/// Loads the directory and says what came of it.
pub async fn load(revisions: &Revisions, dir: &Path) {
    match revisions.activate_dir(dir).await {
        Ok(Some(row)) => {
            tracing::info!(policy.revision = row.number, dir = %dir.display(), "loaded the policy directory")
        }
        Ok(None) => {}
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            dir = %dir.display(),
            "the policy directory was refused; the revision in charge stays"
        ),
    }
}

/// Loads the directory whenever it changes, until `stop`.
pub async fn directory(revisions: Arc<Revisions>, dir: PathBuf, stop: CancellationToken) {
    let announced = Arc::new(Notify::new());
    let wake = announced.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the directory is an event too; only a change wakes.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            wake.notify_one();
        }
    })
    .and_then(|mut watcher| watcher.watch(&dir, RecursiveMode::NonRecursive).map(|()| watcher));
    if let Err(error) = &watcher {
        tracing::warn!(%error, dir = %dir.display(), "changes are not announced; looking every {UNANNOUNCED:?}");
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = announced.notified() => {}
            () = tokio::time::sleep(UNANNOUNCED) => {}
        }
        let quiet = async { while tokio::time::timeout(QUIET, announced.notified()).await.is_ok() {} };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tokio::time::timeout(NEVER_QUIET, quiet) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = load(&revisions, &dir) => {}
        }
    }
}

/// Follows what other hosts activate, until `stop`.
pub async fn database(revisions: Arc<Revisions>, every: Duration, stop: CancellationToken) {
    let mut wait = every;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = match revisions.follow().await {
            Ok(()) => every,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not follow the active revision"
                );
                every.max(AFTER_A_FAILURE)
            }
        };
    }
}
