//! The only file that reads the system clock. What is judged is judged in the
//! database's time ([`crate::store::Snapshot::now`]); this is for file names,
//! identifiers and logs, and for how times are written.

use crate::facts::Timestamp;

/// Milliseconds since the Unix epoch, by this machine.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-11-21T21:43:12.000Z`.
pub fn rfc3339(at: Timestamp) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| at.to_string(), |at| format!("{at:.3}"))
}
