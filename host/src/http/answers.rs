//! Answers that lie ready and are not read yet. Each is whole in memory, and a
//! client of HTTP/2 can ask for many before it reads one; until `idle_ms` shows
//! that it reads none, this bounds what they take.
//!
//! A connection's first answer always has room, so nobody is refused for what
//! others don't read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;

use super::config::HttpConfig;

/// Bytes of an answer that is not counted: of an agent's above all, and there
/// are `requests_per_connection` of them at most.
const SMALL: u64 = 4 << 10;

/// What one connection has not read, and the bounds that it shares.
pub(super) struct Answers {
    of_connection: AtomicI64,
    of_all: Gauge,
    most_of_connection: i64,
    most_of_all: i64,
}

impl Answers {
    pub(super) fn new(config: &HttpConfig, of_all: Gauge) -> Self {
        let bound = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self {
            of_connection: AtomicI64::new(0),
            of_all,
            most_of_connection: bound(config.answer_bytes_per_connection),
            most_of_all: bound(config.answer_bytes),
        }
    }

    /// Room for an answer of this size, until it is dropped; None: there is none.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        if bytes <= SMALL {
            return Some(Held::nothing());
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Added first, so that of several at once only one is the first.
        let before = self.of_connection.fetch_add(bytes, Ordering::Relaxed);
        let all_before = self.of_all.inc_by(bytes);
        let held = Held { answers: Some(self.clone()), bytes };
        let room = before.saturating_add(bytes) <= self.most_of_connection
            && all_before.saturating_add(bytes) <= self.most_of_all;
        (before == 0 || room).then_some(held)
    }
}

/// An answer's room.
pub(super) struct Held {
    answers: Option<Arc<Answers>>,
    bytes: i64,
}

impl Held {
    /// Of an answer that is not counted.
    pub(super) fn nothing() -> Self {
        Self { answers: None, bytes: 0 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(answers) = &self.answers {
            answers.of_connection.fetch_sub(self.bytes, Ordering::Relaxed);
            answers.of_all.dec_by(self.bytes);
        }
    }
}
