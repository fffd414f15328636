//! The one layer before every route: how many requests at once, how long each,
//! what is counted, and that a panic of one handler is one `500`.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tower::{Layer, Service};

use super::config::HttpConfig;
use super::error::Problem;
use crate::metrics::Metrics;

/// The label of requests that no route took.
const UNMATCHED: &str = "none";

/// Makes [`Guard`]s that share one count of requests.
#[derive(Clone)]
pub(super) struct GuardLayer(Arc<Shared>);

struct Shared {
    permits: Arc<Semaphore>,
    request: Duration,
    policy_request: Duration,
    metrics: Arc<Metrics>,
}

impl GuardLayer {
    pub(super) fn new(config: &HttpConfig, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(config.concurrency)),
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

    fn call(&mut self, request: Request) -> Self::Future {
        let shared = self.shared.clone();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let version = request.version();
        let Ok(permit) = shared.permits.clone().try_acquire_owned() else {
            return Box::pin(async move {
                let busy = Problem::busy("BUSY", "the host has as many requests as it takes at once");
                Ok(shared.count(route.as_ref(), busy.into_response()))
            });
        };
        let compiles = route.as_ref().is_some_and(|r| r.as_str().starts_with("/policies"));
        let limit = if compiles { shared.policy_request } else { shared.request };
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let mut response = match tokio::time::timeout(limit, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(_)) => crashed(),
                Err(_) => Problem::busy("TIMED_OUT", "the host did not answer in time").into_response(),
            };
            drop(permit);
            // Whoever is too slow or sends too much does not keep the connection.
            let cut_off = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE];
            if version <= Version::HTTP_11 && cut_off.contains(&response.status()) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(shared.count(route.as_ref(), response))
        })
    }
}

impl Shared {
    fn count(&self, route: Option<&MatchedPath>, response: Response) -> Response {
        let route = route.map_or(UNMATCHED, MatchedPath::as_str);
        self.metrics.answered(route, response.status().as_u16());
        response
    }
}

fn crashed() -> Response {
    tracing::error!("a handler panicked");
    let detail = "the host failed; its log says how";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail).into_response()
}
