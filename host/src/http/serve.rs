//! The connections: how many, how slow, how idle, and how they end.
//!
//! hyper starts its own timeout for a request's head when a connection falls
//! idle, and has none for telling HTTP/1 from HTTP/2, so both are kept here: a
//! connection that has sent no head in time is dropped, and one on which
//! nothing happens is closed. Nothing happens also where a client reads no
//! answers: see [`Pulse`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::config::HttpConfig;
use super::{Api, router};

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How often the log says that clients can't get in.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The least that hyper takes as a bound of a head.
const LEAST_HEAD: usize = 8 << 10;

/// Largest piece of an answer that is handed over at once: how finely the
/// progress of a client that reads slowly is seen.
const PIECE: usize = 64 << 10;

/// Serves `api` on `listener` until `shutdown`; then accepts no more, ends the
/// event streams, and lets what is in flight finish within `shutdown_ms`.
///
/// # Errors
/// None today: what goes wrong with one client is that client's.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    config: &HttpConfig,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_also(listener, api, config, shutdown, Router::new()).await
}

/// [`serve`], with routes beside the host's own, for a bench that compares them.
///
/// # Errors
/// Those of [`serve`].
pub async fn serve_also(
    listener: TcpListener,
    api: Api,
    config: &HttpConfig,
    shutdown: CancellationToken,
    also: Router,
) -> io::Result<()> {
    let builder = Arc::new(builder(config));
    let permits = Arc::new(Semaphore::new(config.connections));
    let gauge = api.registry.metrics.http_connections.clone();
    let (header_read, idle, grace) = (config.header_read(), config.idle(), config.shutdown());
    let router = router(api, config, shutdown.clone(), also);
    let mut open = JoinSet::new();
    let mut door = Door { listener, permits, warned: None };
    while let Some((stream, permit)) = door.accept(&shutdown).await {
        while open.try_join_next().is_some() {}
        let connection = Connection {
            builder: builder.clone(),
            router: router.clone(),
            // One token per connection: a shared one would be a shared lock.
            shutdown: shutdown.child_token(),
            header_read,
            idle,
        };
        let counted = Open::new(gauge.clone(), permit);
        open.spawn(async move {
            connection.run(stream).await;
            drop(counted);
        });
    }
    drop(door);
    let finished = async { while open.join_next().await.is_some() {} };
    if timeout(grace, finished).await.is_err() {
        tracing::warn!(connections = open.len(), "requests still in flight are cut off");
        open.shutdown().await;
    }
    Ok(())
}

fn builder(config: &HttpConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(config.headers)
        .max_buf_size(config.header_bytes.max(LEAST_HEAD));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.header_bytes.max(LEAST_HEAD)).unwrap_or(u32::MAX))
        .max_concurrent_streams(config.requests_per_connection)
        .keep_alive_interval(config.idle())
        .keep_alive_timeout(config.header_read());
    builder
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    /// When the log last said that clients wait.
    warned: Option<Instant>,
}

impl Door {
    /// The next connection, with its permit; None once it is time to stop.
    async fn accept(&mut self, shutdown: &CancellationToken) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            accepted = self.next() => accepted,
        }
    }

    async fn next(&mut self) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        if self.permits.available_permits() == 0 && self.may_warn() {
            tracing::warn!("as many connections are open as `http.connections` allows; others wait");
        }
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(e) if is_one_clients(&e) => {}
                Err(error) => {
                    if self.may_warn() {
                        tracing::error!(error = &error as &dyn std::error::Error, "can't accept connections");
                    }
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Whether the last warning is long enough ago.
    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let due = self.warned.is_none_or(|last| now.duration_since(last) >= WARN_EVERY);
        if due {
            self.warned = Some(now);
        }
        due
    }
}

/// An open connection's place, counted as long as it is held.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: Gauge, permit: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn is_one_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One connection and what it may take.
struct Connection {
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    shutdown: CancellationToken,
    header_read: Duration,
    idle: Duration,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers are small, and agents wait for them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Arc::new(Pulse::default());
        let router = self.router;
        let service = service_fn(|request: Request<Incoming>| {
            let mut beat = pulse.start();
            let answer = router.clone().call(request);
            async move {
                // Here, not in `start`: a request held back for its client's sake is not run.
                beat.turn(Turn::Host);
                let response = answer.await;
                beat.turn(Turn::Client);
                response.map(|r| r.map(|body| Counted { body, rest: Bytes::new(), beat }))
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut check = std::pin::pin!(sleep_until(Instant::now() + self.header_read));
        let (mut stopping, mut seen) = (false, 0);
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = self.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = check.as_mut() => {
                    let progress = pulse.progress.load(Ordering::Relaxed);
                    if progress == seen && pulse.hosts_turn.load(Ordering::Relaxed) == 0 {
                        // No head in time; or closing, and not even that goes on; or nobody reads.
                        let answers = pulse.in_flight.load(Ordering::Relaxed);
                        if seen == 0 || stopping || answers > 0 {
                            return;
                        }
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    seen = progress;
                    check.as_mut().reset(Instant::now() + self.idle);
                }
            }
        }
    }
}

/// The requests of one connection. Where none made progress for a while and it
/// is the host's turn in none, the client is idle or does not read.
#[derive(Default)]
struct Pulse {
    /// Requests begun, answers begun, and pieces of answers taken.
    progress: AtomicUsize,
    in_flight: AtomicUsize,
    /// Those of them whose client can only wait.
    hosts_turn: AtomicUsize,
}

/// Who has to do something next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A handler works, or an answer has nothing more to send yet.
    Host,
    /// What was handed over waits to be read.
    Client,
}

impl Pulse {
    fn start(self: &Arc<Self>) -> InFlight {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { pulse: self.clone(), turn: Turn::Client }
    }
}

/// Held from a request's head to the end of its answer's body.
struct InFlight {
    pulse: Arc<Pulse>,
    turn: Turn,
}

impl InFlight {
    fn turn(&mut self, turn: Turn) {
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
struct Counted {
    body: Body,
    /// Of the body's frame before.
    rest: Bytes,
    beat: InFlight,
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
