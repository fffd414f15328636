//! SQLite's checkpoints under load.
//!
//! SQLite folds its log into its file at the end of the commit that made the log
//! long enough, and every heartbeat behind it waits: 40 ms for 16,384 pages. So
//! a reader's connection folds it beside the writer; the writer itself folds
//! only what was written meanwhile, since else the log would never start anew.

use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::sqlite::SqlitePool;

/// Rows after which the log is folded. A row is about a page of it, and the longer
/// it gets, the more of its pages are the same ones again, which are folded once.
const EVERY: usize = 49_152;

/// Pages of the log after which SQLite folds it by itself, whoever wrote them.
pub(super) const AT_THE_LATEST: &str = "65536";

/// Folds what is not folded yet, as far as nobody reads it. Waits for nobody.
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// What was written since the last fold.
#[derive(Default)]
pub(super) struct Checkpoint {
    rows: AtomicUsize,
}

impl Checkpoint {
    /// Counts rows of a committed transaction, and folds the log when it is time.
    pub(super) fn wrote(&self, rows: usize, writer: &SqlitePool, readers: &SqlitePool) {
        if self.rows.fetch_add(rows, Ordering::Relaxed) + rows < EVERY {
            return;
        }
        self.rows.store(0, Ordering::Relaxed);
        let (writer, readers) = (writer.clone(), readers.clone());
        tokio::spawn(async move {
            for pool in [readers, writer] {
                match sqlx::query(FOLD).execute(&pool).await {
                    // The host ends, and its last connection folds.
                    Ok(_) | Err(sqlx::Error::PoolClosed) => {}
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "SQLite's log is not folded");
                    }
                }
            }
        });
    }
}
