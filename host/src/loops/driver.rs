//! Runs one loop: timed or woken, through the same code. A tick that fails,
//! panics or hangs is counted and tried again after a pause that grows; the
//! others do not notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::errors;
use crate::facts::Timestamp;
use crate::metrics::Metrics;
use crate::store::StoreError;

/// The longest pause after panics and hangs.
const MOST_PAUSE: Duration = Duration::from_secs(300);

/// The longest pause of a database that is away: when it is back there is much to do.
const AWAY_PAUSE: Duration = Duration::from_secs(5);

/// How long a tick may take that says nothing else.
const LIMIT: Duration = Duration::from_secs(60);

/// A host that stops waits this long for a tick.
const FAREWELL: Duration = Duration::from_secs(2);

/// Failures in a row after which a loop is stuck.
const STUCK_AFTER: u32 = 3;

/// What a loop does. It takes no input: what is due stands in the database.
pub trait Tick: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// From one tick's beginning to the next one's.
    fn every(&self) -> Duration;

    /// A tick that takes longer is cut off.
    fn limit(&self) -> Duration {
        LIMIT
    }

    /// The longest pause after panics and hangs.
    fn most_pause(&self) -> Duration {
        MOST_PAUSE
    }

    /// Does what is due, so many rows of it.
    ///
    /// # Errors
    /// The database; the next tick is the retry.
    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>>;
}

/// What one tick came to, in rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub looked: u64,
    pub flipped: u64,
    /// Left as they are, by the code of the reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Left to the next tick.
    pub deferred: u64,
    /// There is more to do at once.
    #[serde(skip)]
    pub more: bool,
}

impl Tally {
    pub fn skip(&mut self, why: &'static str) {
        self.skip_many(why, 1);
    }

    /// [`Tally::skip_many`], where there are any.
    pub fn skip_some(&mut self, why: &'static str, rows: usize) {
        if rows > 0 {
            self.skip_many(why, rows);
        }
    }

    pub fn skip_many(&mut self, why: &'static str, rows: usize) {
        *self.skipped.entry(why).or_default() += u64::try_from(rows).unwrap_or(u64::MAX);
    }
}

/// How a loop stands.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub name: &'static str,
    pub every_ms: u64,
    /// When the last tick began, by this host's clock. None: there was none yet.
    pub last_tick_at: Option<Timestamp>,
    /// How long the last tick took.
    pub last_took_ms: u64,
    pub ticks: u64,
    /// Ticks that failed: an error, a panic, or too long.
    pub failures: u64,
    pub panics: u64,
    /// Those of them since the last that did not.
    pub failures_in_a_row: u32,
    pub last_error: Option<String>,
    /// The last failure was a panic or a hang, and no error.
    #[serde(skip)]
    pub is_bug: bool,
    /// Of the last tick that did not fail.
    pub last: Tally,
}

impl Report {
    /// Why this loop does not do its work, if so.
    pub fn stuck(&self) -> Option<String> {
        let failing = self.failures_in_a_row >= STUCK_AFTER;
        failing.then(|| {
            // Everybody may ask; what went wrong is for operators, in `GET /loops`.
            format!("{}: {} failures in a row", self.name, self.failures_in_a_row)
        })
    }
}

/// One loop and what is known of it.
pub struct Driver {
    what: Arc<dyn Tick>,
    wake: Arc<Notify>,
    report: Mutex<Report>,
    metrics: Arc<Metrics>,
}

impl Driver {
    pub fn new(what: Arc<dyn Tick>, metrics: Arc<Metrics>) -> Self {
        let report = Report {
            name: what.name(),
            every_ms: u64::try_from(what.every().as_millis()).unwrap_or(u64::MAX),
            last_tick_at: None,
            last_took_ms: 0,
            ticks: 0,
            failures: 0,
            panics: 0,
            failures_in_a_row: 0,
            last_error: None,
            is_bug: false,
            last: Tally::default(),
        };
        Self { what, wake: Arc::default(), report: Mutex::new(report), metrics }
    }

    pub fn name(&self) -> &'static str {
        self.what.name()
    }

    /// Notified, it ticks now and not at its time.
    pub fn waker(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        self.state().clone()
    }

    /// Ticks until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let mut tick = std::pin::pin!(self.once());
            let ticked = tokio::select! {
                ticked = &mut tick => ticked,
                () = stop.cancelled() => {
                    // What it holds is given back by leases; but most ticks are short.
                    let _ = timeout(FAREWELL, tick).await;
                    return;
                }
            };
            if ticked.is_ok_and(|tally| tally.more) {
                tokio::task::yield_now().await;
                continue;
            }
            let (failures, bug) = {
                let report = self.state();
                (report.failures_in_a_row, report.is_bug)
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(begun + self.pause(failures, bug)) => {}
                // Whoever fails is not woken into failing faster.
                () = self.wake.notified(), if failures == 0 => {}
            }
        }
    }

    /// One tick in a task of its own, whatever becomes of it.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn once(&self) -> Result<Tally, String> {
        let (begun, at) = (Instant::now(), clock::now());
        let what = self.what.clone();
        // A tick that nobody waits for any more ends.
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move { what.tick().await }));
        let ended = match timeout(self.what.limit(), &mut task).await {
            Ok(Ok(Ok(tally))) => Ok(tally),
            Ok(Ok(Err(error))) => Err(("error", errors::chain(&error))),
            Ok(Err(panicked)) => Err(("panic", panicked.to_string())),
            Err(_) => {
                task.abort();
                Err(("too_long", format!("longer than {} ms", self.what.limit().as_millis())))
            }
        };
        let took = begun.elapsed();
        self.metrics.ticked(self.name(), took);
        let mut report = self.state();
        report.last_tick_at = Some(at);
        report.last_took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        report.ticks += 1;
        match ended {
            Ok(tally) => {
                (report.failures_in_a_row, report.last_error) = (0, None);
                report.last = tally.clone();
                drop(report);
                self.count(&tally);
                Ok(tally)
            }
            Err((kind, error)) => {
                report.failures += 1;
                report.panics += u64::from(kind == "panic");
                report.is_bug = kind != "error";
                report.failures_in_a_row = report.failures_in_a_row.saturating_add(1);
                report.last_error = Some(error.clone());
                drop(report);
                self.metrics.tick_failed(self.name(), kind);
                tracing::error!(r#loop = self.name(), kind, "a tick failed: {error}");
                Err(error)
            }
        }
    }

    fn count(&self, tally: &Tally) {
        let rows = |outcome, n| self.metrics.swept(self.name(), outcome, n);
        rows("looked", tally.looked);
        rows("flipped", tally.flipped);
        rows("deferred", tally.deferred);
        for (why, n) in &tally.skipped {
            rows(why, *n);
        }
    }

    /// Twice as long after every failure in a row.
    fn pause(&self, failures: u32, bug: bool) -> Duration {
        let every = self.what.every();
        let doubled = every.saturating_mul(1 << failures.min(10));
        let most = if bug { self.what.most_pause() } else { AWAY_PAUSE };
        doubled.min(most.max(every))
    }

    fn state(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
