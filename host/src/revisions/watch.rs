//! What keeps the revision in charge up to date: the policy directory, and the
//! database that other hosts share. Neither can put a bad revision in charge.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dir::Look;
use super::{RevisionError, Revisions};

/// How often the directory is looked at. Announcements of the kernel would come
/// sooner, but they follow an inode: of a link that was turned they say nothing,
/// nor of what another machine did to a shared file system.
const LOOK: Duration = Duration::from_millis(300);

/// A directory that is never the same at two looks is read all the same.
const NEVER_QUIET: Duration = Duration::from_secs(5);

/// The directory is read this often though it looks as it did.
const UNSEEN: Duration = Duration::from_secs(30);

/// How long the host waits after the database did not answer.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// The policy directory of a running host.
pub struct Directory {
    revisions: Arc<Revisions>,
    dir: PathBuf,
    /// What was last wrong with it, so that the log says it once.
    refused: Option<String>,
}

impl Directory {
    pub fn new(revisions: Arc<Revisions>, dir: PathBuf) -> Self {
        Self { revisions, dir, refused: None }
    }

    /// Loads the directory and says what came of it.
    pub async fn load(&mut self) {
        match self.revisions.activate_dir(&self.dir).await {
            // As it was, or not to be tried yet: nothing is news.
            Ok(None) => {}
            Ok(Some(row)) => {
                self.refused = None;
                let (number, dir) = (row.number, self.dir.display());
                tracing::info!(policy.revision = number, %dir, "loaded the policy directory");
            }
            Err(error) => {
                let why = Some(error.to_string());
                if self.refused != why {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        dir = %self.dir.display(),
                        "the policy directory was refused; the revision in charge stays"
                    );
                }
                self.refused = why;
            }
        }
    }

    /// Loads the directory whenever it changes, until `stop`.
    pub async fn follow(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut seen = None;
        let mut read_at = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let look = self.revisions.look(&self.dir).await;
            if seen.as_ref() == Some(&look) && read_at.elapsed() < UNSEEN {
                continue;
            }
            // What changes while it is read is another look, and read again.
            seen = Some(self.at_rest(look).await);
            self.load().await;
            read_at = Instant::now();
        }
    }

    /// Waits until two looks are the same: a copy in progress is no revision.
    async fn at_rest(&self, mut look: Look) -> Look {
        let began = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let next = self.revisions.look(&self.dir).await;
            if next == look || began.elapsed() >= NEVER_QUIET {
                return next;
            }
            look = next;
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
                match error {
                    RevisionError::Store(_) => every.max(AFTER_A_FAILURE),
                    // That revision rests; another one may come.
                    _ => every,
                }
            }
        };
    }
}
