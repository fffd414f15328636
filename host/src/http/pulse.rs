//! Whether anything happens on a connection, and who is to act next: where it is
//! the client's turn for long, it is idle, or does not read what it asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::answers::Held;

/// Largest piece of an answer that is handed over at once: how finely the
/// progress of a client that reads slowly is seen.
pub(super) const PIECE: usize = 64 << 10;

/// The requests of one connection. Where none made progress for a while and it
/// is the host's turn in none, the client is idle or does not read.
#[derive(Default)]
pub(super) struct Pulse {
    /// Requests begun, answers begun, and pieces of answers taken.
    pub(super) progress: AtomicUsize,
    pub(super) in_flight: AtomicUsize,
    /// Those of them whose client can only wait.
    pub(super) hosts_turn: AtomicUsize,
}

/// Who has to do something next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A handler works, or an answer has nothing more to send yet.
    Host,
    /// What was handed over waits to be read.
    Client,
}

impl Pulse {
    pub(super) fn start(self: &Arc<Self>) -> InFlight {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { pulse: self.clone(), turn: Turn::Client }
    }
}

/// Held from a request's head to the end of its answer's body.
pub(super) struct InFlight {
    pulse: Arc<Pulse>,
    turn: Turn,
}

impl InFlight {
    pub(super) fn turn(&mut self, turn: Turn) {
        if turn == Turn::Client {
            self.pulse.progress.fetch_add(1, Ordering::Relaxed);
        }
        if turn == self.turn {
            return;
        }
        self.turn = turn;
        match turn {
            Turn::Host => self.pulse.hosts_turn.fetch_add(1, Ordering::Relaxed),
            Turn::Client => self.pulse.hosts_turn.fetch_sub(1, Ordering::Relaxed),
        };
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.turn(Turn::Client);
        self.pulse.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body in pieces, which knows when it ends and who is to act.
pub(super) struct Counted {
    body: Body,
    /// Of the body's frame before.
    rest: Bytes,
    beat: InFlight,
    _held: Option<Held>,
}

impl Counted {
    pub(super) fn new(body: Body, beat: InFlight, held: Option<Held>) -> Self {
        Self { body, rest: Bytes::new(), beat, _held: held }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.beat.turn(Turn::Host);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return ended,
            }
        }
        self.beat.turn(Turn::Client);
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, mut hint) = (self.rest.len() as u64, self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
