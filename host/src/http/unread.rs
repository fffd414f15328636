//! The rest of a body that nobody read. An answer may come before it did (401,
//! 404, 405, 413, …), and hyper then closes the connection without a word, so
//! the client's next request on it fails for nothing it did wrong. Here a small
//! rest is read and forgotten, and where it isn't small, or doesn't come soon,
//! the answer says `Connection: close`.
//!
//! HTTP/1 alone needs this, and it has one request at a time: so one [`Shelf`]
//! per connection, and nothing that is allocated per request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// Most bytes that are read for the next request's sake.
const REST_BYTES: usize = 64 << 10;

/// How long they may take. Whoever sends nothing meanwhile is told to come again.
const REST_TIME: Duration = Duration::from_secs(1);

/// Where a body comes back to.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Option<Rest>>);

enum Rest {
    Unread(Left),
    /// Where a body did not go on as it must, nobody knows where the next request begins.
    Broken,
}

struct Left {
    body: Incoming,
    /// Whether a client that asked first (`Expect: 100-continue`) was told to go on.
    begun: bool,
}

/// A request's body, which comes back to its shelf unless it was read to its end.
pub(super) struct Lent {
    left: Option<Left>,
    shelf: Arc<Shelf>,
}

impl Lent {
    pub(super) fn new(body: Incoming, asks_first: bool, shelf: Arc<Shelf>) -> Self {
        Self { left: Some(Left { body, begun: !asks_first }), shelf }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(left) = &mut self.left else { return Poll::Ready(None) };
        left.begun = true;
        let frame = Pin::new(&mut left.body).poll_frame(cx);
        match frame {
            Poll::Ready(None) => self.left = None,
            Poll::Ready(Some(Err(_))) => {
                self.left = None;
                self.shelf.put(Rest::Broken);
            }
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.left.as_ref().is_none_or(|left| left.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.as_ref().map_or_else(|| SizeHint::with_exact(0), |left| left.body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(left) = self.left.take().filter(|left| !left.body.is_end_stream()) {
            self.shelf.put(Rest::Unread(left));
        }
    }
}

impl Shelf {
    fn put(&self, rest: Rest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    fn take(&self) -> Option<Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lets go of what is left, for which the connection would wait.
    pub(super) fn forget(&self) {
        drop(self.take());
    }

    /// Reads what is left of a body that was lent, if it is little; whether the
    /// next request can follow it.
    pub(super) async fn clear(&self) -> bool {
        let Left { mut body, begun } = match self.take() {
            None => return true,
            Some(Rest::Broken) => return false,
            Some(Rest::Unread(left)) => left,
        };
        // A client that was not told to go on may send its body, or may not.
        if !begun || body.size_hint().lower() > REST_BYTES as u64 {
            return false;
        }
        let read = async {
            let mut room = REST_BYTES;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let length = frame.data_ref().map_or(0, Bytes::len);
                if length > room {
                    return false;
                }
                room -= length;
            }
            true
        };
        timeout(REST_TIME, read).await.unwrap_or(false)
    }
}
