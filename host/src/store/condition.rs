//! What the statements of late say of the database: which connections can still
//! be used, and whether it takes writes.
//!
//! An error can leave a connection in a state that nobody looks at. SQLite rolls
//! back by itself when the disk is full, and sqlx goes on counting the transaction;
//! a server that ended may have ended them all. So a connection that is older than
//! the last such error is not used again: it is proven first, or another is opened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::StoreError;

/// A write that succeeds says nothing of those that have just failed: a small one
/// may still find room. After this long without a failure it does.
const HEALED: Duration = Duration::from_secs(3);

/// One for each database that is open.
pub(super) struct Condition {
    opened: Instant,
    /// When a connection was last left in doubt: microseconds after `opened`; 0: never.
    doubted: AtomicU64,
    /// Whether there is a `failure`: all that a write that succeeds looks at.
    failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

#[derive(Clone, Copy)]
struct Failure {
    why: &'static str,
    at: Instant,
}

impl Condition {
    pub(super) fn new() -> Self {
        let (doubted, failing, failure) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
        Self { opened: Instant::now(), doubted, failing, failure }
    }

    /// A statement failed, one that writes or one that only reads.
    fn failed(&self, error: &StoreError, writes: bool) {
        if error.casts_doubt() {
            self.doubted.fetch_max(self.micros(Instant::now()).max(1), Ordering::Relaxed);
        }
        let Some(why) = error.stops_writes().filter(|_| writes) else { return };
        let before = self.failure().replace(Failure { why, at: Instant::now() });
        self.failing.store(true, Ordering::Release);
        if before.is_none_or(|before| before.why != why) {
            tracing::error!("the database takes no writes: {why}");
        }
    }

    /// Something was written, and is stored.
    fn wrote(&self) {
        if !self.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut failure = self.failure();
        if failure.is_some_and(|failure| failure.at.elapsed() >= HEALED) {
            *failure = None;
            self.failing.store(false, Ordering::Release);
            tracing::info!("the database takes writes again");
        }
    }

    /// Why writes fail, if they do.
    pub(super) fn refuses_writes(&self) -> Option<&'static str> {
        self.failure().map(|failure| failure.why)
    }

    /// Whether a connection that is as it was for so long has seen none of the errors that cast doubt.
    pub(super) fn trusts(&self, unchanged: Duration) -> bool {
        let doubted = self.doubted.load(Ordering::Relaxed);
        doubted == 0
            || Instant::now().checked_sub(unchanged).is_some_and(|since| self.micros(since) > doubted)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_micros()).unwrap_or(u64::MAX)
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How what runs on an executor changes the [`Condition`].
pub(super) struct Outcome<'a> {
    pub(super) condition: &'a Condition,
    pub(super) of: Of<'a>,
}

pub(super) enum Of<'a> {
    Reading,
    Writing,
    /// One of several; whether any of them wrote is kept, until they are committed.
    Within(&'a mut bool),
}

impl Outcome<'_> {
    /// Hears how a statement ended, and whether it changed something then.
    pub(super) fn of<T>(
        self,
        ended: Result<T, sqlx::Error>,
        changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let writes = !matches!(self.of, Of::Reading);
        let ended = ended.map_err(StoreError::from);
        let ended = ended.inspect_err(|error| self.condition.failed(error, writes))?;
        if writes && changed(&ended) {
            match self.of {
                Of::Within(wrote) => *wrote = true,
                Of::Reading | Of::Writing => self.condition.wrote(),
            }
        }
        Ok(ended)
    }

    /// [`Outcome::of`], of rows: within a transaction they may only have been read.
    pub(super) fn fetched<T>(
        self,
        ended: Result<T, sqlx::Error>,
        any: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let within = matches!(self.of, Of::Within(_));
        self.of(ended, |rows| !within && any(rows))
    }
}
