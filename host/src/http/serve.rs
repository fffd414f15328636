//! The connections: how many, how slow, how idle, and how they end.
//!
//! hyper starts its own timeout for a request's head when a connection falls
//! idle, and has none for telling HTTP/1 from HTTP/2, so both are kept here: a
//! connection that has sent no head in time is dropped, and one on which
//! nothing happens is closed.

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

/// The least that hyper takes as a bound of a head.
const LEAST_HEAD: usize = 8 << 10;

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
    let (header_read, idle, grace) = (config.header_read(), config.idle(), config.shutdown());
    let router = router(api, config, shutdown.clone(), also);
    let mut open = JoinSet::new();
    while let Some((stream, permit)) = accept(&listener, &permits, &shutdown).await {
        while open.try_join_next().is_some() {}
        let connection = Connection {
            builder: builder.clone(),
            router: router.clone(),
            // One token per connection: a shared one would be a shared lock.
            shutdown: shutdown.child_token(),
            header_read,
            idle,
        };
        open.spawn(async move {
            connection.run(stream).await;
            drop(permit);
        });
    }
    drop(listener);
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

/// The next connection, with its permit; None once it is time to stop.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let permit = permits.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(e) if is_one_clients(&e) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "can't accept connections");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = next => accepted,
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
            let beat = pulse.start();
            let answer = router.clone().call(request);
            async move { answer.await.map(|response| response.map(|body| Counted { body, _beat: beat })) }
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
                    let started = pulse.started.load(Ordering::Relaxed);
                    let in_flight = pulse.in_flight.load(Ordering::Relaxed);
                    if started == seen && in_flight == 0 {
                        // No head in time, or idle; a second time: not even closing.
                        if seen == 0 || stopping {
                            return;
                        }
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    seen = started;
                    check.as_mut().reset(Instant::now() + self.idle);
                }
            }
        }
    }
}

/// The requests of one connection.
#[derive(Default)]
struct Pulse {
    started: AtomicUsize,
    in_flight: AtomicUsize,
}

impl Pulse {
    fn start(self: &Arc<Self>) -> InFlight {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

/// Held from a request's head to the end of its answer's body.
struct InFlight(Arc<Pulse>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, which knows when it ends.
struct Counted {
    body: Body,
    _beat: InFlight,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
