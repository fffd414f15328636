//! What everybody may ask: is it alive, is it ready, what does it count, what
//! does it answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Answer, Problem, ProblemBody};
use super::problems::Anyone;
use super::{Edge, Registry};
use crate::loops::Report;
use crate::revisions::Revisions;

/// What `prometheus-client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// `ok`, or `degraded` where a loop does not do its work.
    status: &'static str,
    /// Those loops, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stuck: Vec<String>,
}

/// The process answers
#[utoipa::path(
    get, path = "/health", tag = "host", operation_id = "health",
    responses(Anyone, (status = 200, body = Health, description = "The process answers"))
)]
pub(super) async fn health() -> Json<Health> {
    OK
}

/// The process answers; for a supervisor
#[utoipa::path(
    get, path = "/livez", tag = "host", operation_id = "livez",
    responses(Anyone, (status = 200, body = Health, description = "The process answers"))
)]
pub(super) async fn livez() -> Json<Health> {
    OK
}

/// The database answers and takes writes, and a policy revision is active
///
/// A loop that is stuck is named and makes no host unready: another host does
/// its work, and taken out of service this one would not hear its agents either.
#[utoipa::path(
    get, path = "/readyz", tag = "host", operation_id = "readyz",
    responses(
        Anyone,
        (status = 200, body = Ready, description = "It is ready; `degraded` names loops that are stuck"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "`NOT_SERVING`: says what is missing"),
    )
)]
pub(super) async fn readyz(
    State(registry): State<Arc<Registry>>,
    State(revisions): State<Arc<Revisions>>,
) -> Answer<Json<Ready>> {
    let mut missing = Vec::new();
    if let Err(error) = registry.store.ping().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "not ready");
        missing.push("the database does not answer".to_owned());
    }
    // A database that answers may take no writes; the pulse tries one every second.
    missing.extend(registry.store.refuses_writes().map(|why| format!("the database takes no writes: {why}")));
    if revisions.active().get().number == 0 {
        missing.push("no policy revision is active".to_owned());
    }
    if missing.is_empty() {
        let stuck: Vec<_> = registry.loops.reports().iter().filter_map(Report::stuck).collect();
        let status = if stuck.is_empty() { "ok" } else { "degraded" };
        return Ok(Json(Ready { status, stuck }));
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING", missing.join("; ")))
}

/// Metrics, for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "host", operation_id = "metrics",
    responses(Anyone, (status = 200, body = String, content_type = "application/openmetrics-text", description = "OpenMetrics text"))
)]
pub(super) async fn metrics(
    State(registry): State<Arc<Registry>>,
) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, OPENMETRICS)], registry.metrics.render())
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "host", operation_id = "openapi",
    responses(Anyone, (status = 200, body = serde_json::Value, description = "An OpenAPI 3.1 document"))
)]
pub(super) async fn openapi(State(edge): State<Arc<Edge>>) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, "application/json")], edge.openapi.clone())
}
