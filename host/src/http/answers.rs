//! Answers that lie ready and are not read yet. Each is whole in memory, and a
//! client of HTTP/2 can ask for many before it reads one; until `idle_ms` shows
//! that it reads none, this bounds what they take.
//!
//! A connection's first answer always has room, so nobody is refused for what
//! others don't read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::HttpBody as _;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::metrics::gauge::Gauge;

use super::config::HttpConfig;
use super::error::Problem;

/// Bytes of an answer that is not counted: of an agent's above all, and there
/// are `requests_per_connection` of them at most.
const SMALL: i64 = 4 << 10;

/// What one connection has not read, and the bounds that it shares. Requests of
/// HTTP/2 carry theirs: those of HTTP/1 come one by one, and a first always has room.
#[derive(Clone)]
pub(super) struct Answers(Arc<Unread>);

struct Unread {
    of_connection: AtomicI64,
    of_all: Gauge,
    most_of_connection: i64,
    most_of_all: i64,
}

impl Answers {
    pub(super) fn new(config: &HttpConfig, of_all: Gauge) -> Self {
        let bound = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self(Arc::new(Unread {
            of_connection: AtomicI64::new(0),
            of_all,
            most_of_connection: bound(config.answer_bytes_per_connection),
            most_of_all: bound(config.answer_bytes),
        }))
    }

    /// Gives an answer its room, which it takes along; or another answer, where
    /// there is none for it.
    pub(super) fn hold(&self, mut response: Response) -> Response {
        let bytes = i64::try_from(response.body().size_hint().lower()).unwrap_or(i64::MAX);
        if bytes <= SMALL || response.extensions().get::<Held>().is_some() {
            return response;
        }
        let Some(held) = self.0.clone().room_for(bytes) else {
            let detail = "this connection has more answers unread than are kept for it";
            return Problem::busy("BUSY", detail).into_response();
        };
        response.extensions_mut().insert(held);
        response
    }
}

impl Unread {
    fn room_for(self: Arc<Self>, bytes: i64) -> Option<Held> {
        // Added first, so that of several at once only one is the first.
        let before = self.of_connection.fetch_add(bytes, Ordering::Relaxed);
        let all_before = self.of_all.inc_by(bytes);
        let room = before == 0
            || before.saturating_add(bytes) <= self.most_of_connection
                && all_before.saturating_add(bytes) <= self.most_of_all;
        let held = Held(Arc::new(Room { unread: self, bytes }));
        room.then_some(held)
    }
}

/// An answer's room, until the last of it is dropped.
#[derive(Clone)]
pub(super) struct Held(#[expect(dead_code, reason = "held, not read")] Arc<Room>);

struct Room {
    unread: Arc<Unread>,
    bytes: i64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.unread.of_connection.fetch_sub(self.bytes, Ordering::Relaxed);
        self.unread.of_all.dec_by(self.bytes);
    }
}
