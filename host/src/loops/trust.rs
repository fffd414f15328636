//! Whether this host can trust itself just now. A host that slept, that has no
//! database, or whose clock jumped has not heard its agents, whatever their rows say.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::brake::BrakeConfig;
use crate::facts::{Reason, Timestamp};

/// Why a sweep stands back; the code under which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distrust(pub &'static str);

/// What the last good pulse left.
pub struct Trust {
    stall: Duration,
    slow: Duration,
    jump_ms: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    good: Option<Good>,
    /// A pulse failed since.
    failed: bool,
}

#[derive(Clone, Copy)]
struct Good {
    at: Instant,
    /// The database's time then.
    now: Timestamp,
}

impl Trust {
    pub fn new(config: &BrakeConfig) -> Self {
        Self {
            stall: Duration::from_millis(config.stall_ms),
            slow: Duration::from_millis(config.slow_ms),
            jump_ms: config.jump_ms,
            state: Mutex::default(),
        }
    }

    /// Whether a sweep may go on; `now` is what the database has just said.
    ///
    /// # Errors
    /// Why not.
    pub fn vouch(&self, now: Option<Timestamp>) -> Result<(), Distrust> {
        let Some(good) = self.state().good else { return Err(Distrust("starting")) };
        if good.at.elapsed() > self.stall {
            return Err(Distrust("stalled"));
        }
        match now {
            Some(now) if self.jumped(good, now, Instant::now()) => Err(Distrust("clock-jumped")),
            _ => Ok(()),
        }
    }

    /// Why the time before a pulse that begins now can't be trusted.
    pub(super) fn gap(&self) -> Option<Reason> {
        let State { good, failed } = *self.state();
        let gap = good?.at.elapsed();
        if gap <= self.stall {
            return None;
        }
        let (code, who) = if failed { ("database-away", "the database") } else { ("stalled", "this host") };
        Some(Reason::new(code, format!("{who} was away for {} ms", gap.as_millis())))
    }

    /// Why the pulse that began at `begun` and has ended makes for distrust itself.
    pub(super) fn slow(&self, begun: Instant) -> Option<Reason> {
        let took = begun.elapsed();
        (took > self.slow).then(|| {
            Reason::new("database-slow", format!("the database took {} ms for a pulse", took.as_millis()))
        })
    }

    /// Why the time before a pulse that says that it is `now` can't be reckoned with.
    pub(super) fn jump(&self, now: Timestamp) -> Option<Reason> {
        let good = self.state().good?;
        self.jumped(good, now, Instant::now())
            .then(|| Reason::new("clock-jumped", "the database's clock and this host's went apart"))
    }

    fn jumped(&self, good: Good, now: Timestamp, at: Instant) -> bool {
        let passed = u64::try_from((at - good.at).as_millis()).unwrap_or(u64::MAX);
        now.abs_diff(good.now.saturating_add(passed)) > self.jump_ms
    }

    pub(super) fn pulsed(&self, now: Timestamp) {
        *self.state() = State { good: Some(Good { at: Instant::now(), now }), failed: false };
    }

    pub(super) fn failed(&self) {
        self.state().failed = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
