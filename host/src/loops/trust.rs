//! Whether this host can trust itself just now. A host that slept, that has no
//! database, or whose clock jumped has not heard its agents, whatever their rows say.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::brake::BrakeConfig;
use crate::facts::{Reason, Timestamp};
use crate::store::{JUMPED, Own, Pulse};

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
    /// Since when its clock has run evenly, and the latest time that it has shown since.
    clock_from: Timestamp,
    clock_seen: Timestamp,
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
        now.map_or(Ok(()), |now| self.clock(now))
    }

    /// Whether the database's clock, which says that it is `now`, is the one that it
    /// was at the last pulse.
    ///
    /// # Errors
    /// It has jumped, and times are yet to be reckoned anew.
    pub(super) fn clock(&self, now: Timestamp) -> Result<(), Distrust> {
        let jumped = self.state().good.and_then(|good| self.jumped(good, now, Instant::now()));
        jumped.map_or(Ok(()), |_| Err(Distrust(JUMPED)))
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

    /// What this host knows by itself when a pulse says that it is `now`, after `gap`.
    pub(super) fn own(&self, now: Timestamp, gap: Option<Reason>) -> Own {
        let good = self.state().good;
        let jump_ms = good.and_then(|good| self.jumped(good, now, Instant::now()));
        Own { reason: gap, jump_ms, clock_from: good.map(|good| good.clock_from) }
    }

    /// By how many milliseconds the database's clock has jumped, if it has: since the
    /// last pulse, or back by small steps from what it has shown before.
    fn jumped(&self, good: Good, now: Timestamp, at: Instant) -> Option<i64> {
        let passed = u64::try_from((at - good.at).as_millis()).unwrap_or(u64::MAX);
        let apart = |from: Timestamp| {
            let ms = i64::try_from(now.abs_diff(from)).unwrap_or(i64::MAX);
            if now < from { -ms } else { ms }
        };
        let jump_ms = i64::try_from(self.jump_ms).unwrap_or(i64::MAX);
        let (jump, back) = (apart(good.now.saturating_add(passed)), apart(good.clock_seen));
        if jump.abs() > jump_ms { Some(jump) } else { (back < -jump_ms).then_some(back) }
    }

    pub(super) fn pulsed(&self, pulse: &Pulse) {
        let Pulse { now, clock_from, clock_seen, .. } = *pulse;
        let good = Some(Good { at: Instant::now(), now, clock_from, clock_seen });
        *self.state() = State { good, failed: false };
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
