//! Lines of the log that come as often as others make them come: each is written
//! once a minute at most, with how often it was due.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// One such line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    written: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(State { written: None, unsaid: 0 }))
    }

    /// It is due `times` more. Where it shall be written now: how often it was due
    /// since it was written last.
    pub fn due(&self, times: u64) -> Option<u64> {
        self.due_at(times, Instant::now())
    }

    fn due_at(&self, times: u64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid += times;
        if state.written.is_some_and(|last| now.duration_since(last) < EVERY) {
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests;
