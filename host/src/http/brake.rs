//! What the loops do and whether they may, for operators: the brake, and each
//! loop's last tick.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Registry;
use super::access::Operator;
use super::error::{Answer, Problem, ProblemBody};
use super::exact::Exact;
use super::problems::{Operators, WithBody};
use crate::clock::rfc3339;
use crate::loops::Report;
use crate::store::{Brake, BrakeLimits, SeenHost};

/// Who released it, where only operators may.
const OPERATOR: &str = "operator";

/// The brake, as all hosts see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BrakeBody {
    /// Silence before this proves nothing.
    #[schema(format = DateTime)]
    trusted_from: String,
    /// What was the matter then: `database-away`, `stalled`, `host-lost`, …
    distrust: Option<String>,
    /// The fleet, each provider, and the strays.
    scopes: Vec<ScopeBody>,
    /// The hosts that share this database.
    hosts: Vec<HostBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ScopeBody {
    /// `fleet`, `provider:NAME`, or `strays`.
    scope: String,
    /// `free`, `held` or, after a release by hand, `easing`.
    state: &'static str,
    #[schema(format = DateTime)]
    since: String,
    /// Rows that are online or degraded, as last counted.
    live: u64,
    /// Rows that may go down within the window.
    bound: u64,
    /// Rows that went down within it; while it eases, within the last minute.
    flips: u64,
    /// Rows that would have gone down when a loop last asked.
    wanted: u64,
    /// When that was last more than the bound.
    #[schema(format = DateTime)]
    over_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HostBody {
    name: String,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    seen_at: String,
}

impl ScopeBody {
    fn of(brake: Brake, limits: &BrakeLimits) -> Self {
        Self {
            bound: limits.bound(brake.live),
            scope: brake.scope,
            state: brake.state.as_str(),
            since: rfc3339(brake.since),
            live: brake.live,
            flips: brake.flips,
            wanted: brake.wanted,
            over_at: (brake.over_at > 0).then(|| rfc3339(brake.over_at)),
        }
    }
}

impl From<SeenHost> for HostBody {
    fn from(host: SeenHost) -> Self {
        Self { name: host.name, started_at: rfc3339(host.started_at), seen_at: rfc3339(host.seen_at) }
    }
}

/// Read the mass-failure brake
#[utoipa::path(
    get, path = "/brake", tag = "loops", operation_id = "read_brake",
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = BrakeBody, description = "How it stands"),
    )
)]
pub(super) async fn read(State(registry): State<Arc<Registry>>, _: Operator) -> Answer<Json<BrakeBody>> {
    Ok(Json(brake(&registry).await?))
}

async fn brake(registry: &Registry) -> Answer<BrakeBody> {
    let limits = registry.loops.brake().limits();
    let (trusted_from, distrust) = registry.store.trusted_from().await?;
    let scopes = registry.store.brakes(&limits).await?;
    let hosts = registry.store.hosts().await?;
    Ok(BrakeBody {
        trusted_from: rfc3339(trusted_from),
        distrust,
        scopes: scopes.into_iter().map(|brake| ScopeBody::of(brake, &limits)).collect(),
        hosts: hosts.into_iter().map(HostBody::from).collect(),
    })
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseBody {
    /// `fleet`, `provider:NAME` or `strays`; all that is held where it is left out.
    scope: Option<String>,
}

/// Release the brake
///
/// From now on rows go down at the rate of `brake.release_per_minute`.
#[utoipa::path(
    post, path = "/brake/release", tag = "loops", operation_id = "release_brake",
    request_body = ReleaseBody,
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 200, body = BrakeBody, description = "How it stands now"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`NOT_HELD`"),
    )
)]
pub(super) async fn release(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Exact(body): Exact<ReleaseBody>,
) -> Answer<Json<BrakeBody>> {
    let scope = body.scope.as_deref();
    let released = registry.store.release_brake(scope, OPERATOR).await?;
    if released.is_empty() {
        let states = registry.store.brake_states().await?;
        let known: Vec<_> = states.into_iter().map(|(scope, _)| scope).collect();
        if let Some(scope) = scope.filter(|scope| !known.iter().any(|known| known == scope)) {
            return Err(Problem::field("scope", scope.into(), format!("one of {}", known.join(", "))));
        }
        let what = scope.unwrap_or("no brake");
        let detail = match scope {
            Some(_) => format!("{what} is not held"),
            None => format!("{what} is held"),
        };
        return Err(Problem::new(StatusCode::CONFLICT, "NOT_HELD", detail));
    }
    registry.changed();
    Ok(Json(brake(&registry).await?))
}

/// How a loop of this host stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoopBody {
    name: &'static str,
    every_ms: u64,
    #[schema(format = DateTime)]
    last_tick_at: Option<String>,
    last_took_ms: u64,
    ticks: u64,
    /// Ticks that failed, panicked or took too long.
    failures: u64,
    panics: u64,
    failures_in_a_row: u32,
    last_error: Option<String>,
    /// Rows that the last tick looked at.
    looked: u64,
    flipped: u64,
    /// By reason.
    skipped: BTreeMap<&'static str, u64>,
    /// Left to the next tick.
    deferred: u64,
}

impl From<Report> for LoopBody {
    fn from(report: Report) -> Self {
        Self {
            name: report.name,
            every_ms: report.every_ms,
            last_tick_at: report.last_tick_at.map(rfc3339),
            last_took_ms: report.last_took_ms,
            ticks: report.ticks,
            failures: report.failures,
            panics: report.panics,
            failures_in_a_row: report.failures_in_a_row,
            last_error: report.last_error,
            looked: report.last.looked,
            flipped: report.last.flipped,
            skipped: report.last.skipped,
            deferred: report.last.deferred,
        }
    }
}

/// Read the loops of the host that answers
#[utoipa::path(
    get, path = "/loops", tag = "loops", operation_id = "list_loops",
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<LoopBody>, description = "Each loop and its last tick"),
    )
)]
pub(super) async fn loops(State(registry): State<Arc<Registry>>, _: Operator) -> Json<Vec<LoopBody>> {
    Json(registry.loops.reports().into_iter().map(LoopBody::from).collect())
}
