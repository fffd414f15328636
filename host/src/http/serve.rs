//! The connections: how many, how slow, how idle, and how they end.
//!
//! hyper starts its own timeout for a request's head when a connection falls
//! idle, and has none for telling HTTP/1 from HTTP/2, so both are kept here: a
//! connection that has sent no head in time is dropped, and one on which
//! nothing happens is closed. Nothing happens also where a client reads no
//! answers: see [`Pulse`].

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::answers::{Answers, Held};
use super::config::HttpConfig;
use super::pulse::{Counted, InFlight, PIECE, Pulse, Turn};
use super::unread::{Lent, Shelf};
use super::{Api, router};
use crate::seldom::Seldom;

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The least that hyper takes as a bound of a head.
const LEAST_HEAD: usize = 8 << 10;

/// Bytes of a body that a client of HTTP/2 may send before they are read, as
/// HTTP/2 begins, and those of all bodies of its connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

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
    let metrics = api.registry.metrics.clone();
    let gauge = metrics.http_connections.clone();
    let cut_off = Arc::new(CutOff { total: metrics.http_cut_off.clone(), warned: Seldom::new() });
    let (header_read, idle, grace) = (config.header_read(), config.idle(), config.shutdown());
    let router = router(api, config, shutdown.clone(), also);
    let mut open = JoinSet::new();
    let mut door = Door { listener, permits, full: Seldom::new(), failed: Seldom::new() };
    while let Some((stream, permit)) = door.accept(&shutdown).await {
        while open.try_join_next().is_some() {}
        let connection = Connection {
            builder: builder.clone(),
            router: router.clone(),
            // One token per connection: a shared one would be a shared lock.
            shutdown: shutdown.child_token(),
            header_read,
            idle,
            answers: Answers::new(config, metrics.http_answer_bytes.clone()),
            cut_off: cut_off.clone(),
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
        // Who says that it sends no more may still read. What this costs is that a
        // hang-up is seen at the next write only: `request_ms` bounds that of a
        // request, and of an event stream the lines that keep it alive.
        .half_close(true)
        .max_headers(config.headers)
        .max_buf_size(config.header_bytes.max(LEAST_HEAD));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.header_bytes.max(LEAST_HEAD)).unwrap_or(u32::MAX))
        .max_concurrent_streams(config.requests_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(PIECE)
        .keep_alive_interval(config.idle())
        .keep_alive_timeout(config.header_read());
    builder
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    full: Seldom,
    failed: Seldom,
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
        if self.permits.available_permits() == 0
            && let Some(times) = self.full.due(1)
        {
            tracing::warn!(times, "as many connections are open as `http.connections` allows; others wait");
        }
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(e) if is_one_clients(&e) => {}
                Err(error) => {
                    if let Some(times) = self.failed.due(1) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, times, "can't accept connections");
                    }
                    sleep(ACCEPT_REST).await;
                }
            }
        }
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
    answers: Answers,
    cut_off: Arc<CutOff>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers are small, and agents wait for them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Arc::new(Pulse::default());
        let (router, answers, shelf) = (self.router, self.answers, Arc::new(Shelf::default()));
        let service = service_fn(|request: Request<Incoming>| {
            let mut beat = pulse.start();
            let (mut request, shelf) = lend(request, &shelf);
            if request.version() == Version::HTTP_2 {
                request.extensions_mut().insert(answers.clone());
            }
            let answers = answers.clone();
            let answer = router.clone().call(request);
            async move {
                // Here, not in `start`: a request held back for its client's sake is not run.
                beat.turn(Turn::Host);
                let Ok(mut response) = answer.await;
                if let Some(shelf) = shelf {
                    follow(&shelf, &mut response).await;
                }
                beat.turn(Turn::Client);
                Ok::<_, Infallible>(held(&answers, response, beat))
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut check = std::pin::pin!(sleep_until(Instant::now() + self.header_read));
        let (mut stopping, mut seen) = (false, 0);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return self.cut_off.look(ended),
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

/// A request whose body comes back where it is not read, and to which shelf.
fn lend(request: Request<Incoming>, shelf: &Arc<Shelf>) -> (Request<Body>, Option<Arc<Shelf>>) {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let asks_first = request.headers().contains_key(header::EXPECT);
    let lent = request.map(|body| Body::new(Lent::new(body, asks_first, shelf.clone())));
    (lent, Some(shelf.clone()))
}

/// Sees to it that another request can follow, or says that none can.
async fn follow(shelf: &Shelf, response: &mut Response) {
    if response.headers().contains_key(header::CONNECTION) {
        shelf.forget();
    } else if !shelf.clear().await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The answer, counted as long as it is held.
fn held(answers: &Answers, response: Response, beat: InFlight) -> hyper::Response<Counted> {
    let mut response = answers.hold(response);
    let held = response.extensions_mut().remove::<Held>();
    response.map(|body| Counted::new(body, beat, held))
}

/// Connections that were ended because their clients overdid it: streams that
/// are reset as fast as they are opened, above all.
struct CutOff {
    total: Counter,
    warned: Seldom,
}

impl CutOff {
    fn look(&self, ended: Result<(), Box<dyn Error + Send + Sync>>) {
        let Err(error) = ended else { return };
        if !is_overdone(&*error) {
            return;
        }
        self.total.inc();
        if let Some(connections) = self.warned.due(1) {
            tracing::warn!(
                connections,
                "http: connections were ended whose clients overdid it, by resets or the like"
            );
        }
    }
}

/// Whether HTTP/2 says so.
fn is_overdone(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        if reason == Some(h2::Reason::ENHANCE_YOUR_CALM) {
            return true;
        }
        next = error.source();
    }
    false
}
