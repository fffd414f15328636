//! Growing pauses: what could not be loaded may take all of a compiler's time
//! every time it is tried, and mostly fails again.

use std::time::{Duration, Instant};

/// After the first failure; it doubles.
const FIRST: Duration = Duration::from_secs(30);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1_800);

/// When something that failed may be tried again. Something else may be at once.
#[derive(Debug)]
pub struct Pauses<T>(Option<Failed<T>>);

#[derive(Debug)]
struct Failed<T> {
    what: T,
    pause: Duration,
    at: Instant,
}

impl<T> Default for Pauses<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Pauses<T> {
    /// Whether this failed, and is not to be tried yet.
    pub fn rests(&self, what: &T, now: Instant) -> bool {
        let ago = |at: Instant| now.saturating_duration_since(at);
        self.0.as_ref().is_some_and(|failed| failed.what == *what && ago(failed.at) < failed.pause)
    }

    /// It failed now.
    pub fn failed(&mut self, what: T, now: Instant) {
        let pause = match &self.0 {
            Some(failed) if failed.what == what => (failed.pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0 = Some(Failed { what, pause, at: now });
    }
}

#[cfg(test)]
#[path = "pauses_tests.rs"]
mod tests;
