//! The one layer before every route: how many requests at once, how long each,
//! what is counted, and that a panic of one handler is one `500`.
//!
//! A place among the requests in the works is for work only: it is taken when a
//! request first runs, and given up while it waits for its client's bytes
//! ([`Ticket::step_out`]).

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::answers::Answers;
use super::config::HttpConfig;
use super::error::{Answer, Problem};
use crate::metrics::Metrics;

/// The label of requests that no route took.
const UNMATCHED: &str = "none";

/// Makes [`Guard`]s that share one count of requests.
#[derive(Clone)]
pub(super) struct GuardLayer(Arc<Shared>);

struct Shared {
    permits: Arc<Semaphore>,
    bodies: Semaphore,
    headers: usize,
    request: Duration,
    policy_request: Duration,
    metrics: Arc<Metrics>,
}

impl GuardLayer {
    pub(super) fn new(config: &HttpConfig, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(config.concurrency)),
            bodies: Semaphore::new(config.bodies),
            headers: config.headers,
            request: config.request(),
            policy_request: config.policy_request(),
            metrics,
        }))
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, shared: self.0.clone() }
    }
}

/// A route behind its guard.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let shared = self.shared.clone();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let version = request.version();
        // On HTTP/1 hyper counts them as it reads.
        if version == Version::HTTP_2 && request.headers().len() > shared.headers {
            let refused = shared.count(route.as_ref(), too_many_headers(shared.headers));
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let answers = request.extensions().get::<Answers>().cloned();
        let ticket = Ticket::new(shared.clone());
        request.extensions_mut().insert(ticket.clone());
        let compiles = route.as_ref().is_some_and(|r| r.as_str().starts_with("/policies"));
        let limit = if compiles { shared.policy_request } else { shared.request };
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            if let Err(busy) = ticket.enter() {
                return Ok(shared.count(route.as_ref(), busy.into_response()));
            }
            let mut response = match tokio::time::timeout(limit, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(_)) => crashed(),
                Err(_) => Problem::busy("TIMED_OUT", "the host did not answer in time").into_response(),
            };
            ticket.leave();
            // Here already, so that what is counted is what is answered.
            if let Some(answers) = answers {
                response = answers.hold(response);
            }
            // Whoever is too slow or sends too much does not keep the connection.
            let cut_off = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE];
            if version <= Version::HTTP_11 && cut_off.contains(&response.status()) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(shared.count(route.as_ref(), response))
        })
    }
}

/// A request's place among those in the works, carried in its extensions.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Place>);

struct Place {
    shared: Arc<Shared>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Ticket {
    fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Place { shared, permit: Mutex::new(None) }))
    }

    /// Waits for a client, whose slowness then costs nobody a place.
    ///
    /// # Errors
    /// 503 where too many wait already, or where there is no place to come back to.
    pub(super) async fn step_out<F: Future>(&self, client: F) -> Answer<F::Output> {
        let waiting = self.0.shared.bodies.try_acquire();
        let waiting =
            waiting.map_err(|_| Problem::busy("BUSY", "the host waits for as many bodies as it can"))?;
        self.leave();
        let sent = client.await;
        drop(waiting);
        self.enter()?;
        Ok(sent)
    }

    fn enter(&self) -> Answer<()> {
        let permit = self.0.shared.permits.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Problem::busy("BUSY", "the host has as many requests as it takes at once"))?;
        self.put(Some(permit));
        Ok(())
    }

    fn leave(&self) {
        self.put(None);
    }

    fn put(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.0.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

impl Shared {
    fn count(&self, route: Option<&MatchedPath>, response: Response) -> Response {
        let route = route.map_or(UNMATCHED, MatchedPath::as_str);
        self.metrics.answered(route, response.status().as_u16());
        response
    }
}

fn too_many_headers(most: usize) -> Response {
    let detail = format!("the head has more than the {most} fields that a request may have");
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Problem::new(status, "TOO_MANY_HEADERS", detail).into_response()
}

fn crashed() -> Response {
    tracing::error!("a handler panicked");
    let detail = "the host failed; its log says how";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail).into_response()
}
