//! The only file that reads the system clock. What is judged is judged in the
//! database's time ([`crate::store::Snapshot::now`]); this is for file names,
//! identifiers and logs.

use crate::facts::Timestamp;

/// Milliseconds since the Unix epoch, by this machine.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
