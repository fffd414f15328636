//! The wire, as `GET /openapi.json` describes it: routes, bodies,
//! who may ask, and what goes wrong. Nothing here knows SQL or wasmtime, and
//! nothing here changes a status but through [`crate::advance`].
//!
//! One layer ([`guard`]) stands before every route; [`serve`] owns the
//! connections. Together they see to it that a slow or oversized client is cut
//! off and that the others do not notice.

mod access;
mod agent_url;
mod agents;
mod answers;
mod body;
mod brake;
mod claims;
mod config;
mod decisions;
mod effects;
mod error;
mod events;
mod exact;
mod fields;
mod guard;
mod health;
mod instances;
mod page;
mod policies;
mod problems;
mod pulse;
mod said;
mod serve;
mod unread;
mod views;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRef, MatchedPath};
use axum::http::{Method, StatusCode, Uri};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use access::{Access, Registration, TOKEN_PREFIX, hash_token, new_token};
pub use config::HttpConfig;
pub use error::{PROBLEM_JSON, Problem};
pub use serve::{serve, serve_also};

use crate::advance::Advance;
use crate::claims::Claims;
use crate::heartbeats::Heartbeats;
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::revisions::Revisions;
use crate::store::Store;

/// The workspaces, and the ways to them.
pub struct Registry {
    pub store: Store,
    pub advance: Advance,
    pub claims: Claims,
    pub heartbeats: Heartbeats,
    pub loops: Arc<Loops>,
    /// Plugins that only workspaces of kind `platform` may have.
    pub privileged_plugins: Vec<String>,
    pub metrics: Arc<Metrics>,
}

impl Registry {
    /// Wakes the event streams after a write that did not come through `advance`.
    fn changed(&self) {
        self.advance.changed().notify_waiters();
    }
}

/// What handlers work on.
#[derive(Clone)]
pub struct Api {
    pub registry: Arc<Registry>,
    pub revisions: Arc<Revisions>,
    pub access: Arc<Access>,
}

/// The host's side of the connections: bounds, and the end.
struct Edge {
    config: HttpConfig,
    /// Ends the event streams.
    shutdown: CancellationToken,
    streams: Arc<Semaphore>,
    /// Places for agents' large bodies.
    large: Arc<Semaphore>,
    openapi: Bytes,
    queries: exact::Queries,
}

/// The router's state, cloned for each request; each handler takes the one or
/// two handles it needs.
#[derive(Clone)]
struct Handles(Arc<Held>);

struct Held {
    api: Api,
    edge: Arc<Edge>,
}

impl FromRef<Handles> for Arc<Registry> {
    fn from_ref(handles: &Handles) -> Self {
        handles.0.api.registry.clone()
    }
}

impl FromRef<Handles> for Arc<Revisions> {
    fn from_ref(handles: &Handles) -> Self {
        handles.0.api.revisions.clone()
    }
}

impl FromRef<Handles> for Arc<Access> {
    fn from_ref(handles: &Handles) -> Self {
        handles.0.api.access.clone()
    }
}

impl FromRef<Handles> for Arc<Edge> {
    fn from_ref(handles: &Handles) -> Self {
        handles.0.edge.clone()
    }
}

/// Every route, with its description.
fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::with_openapi(description())
        .routes(routes!(agents::register))
        .routes(routes!(agents::heartbeat))
        .routes(routes!(agents::update_card))
        .routes(routes!(workspaces::create, workspaces::list))
        .routes(routes!(workspaces::read, workspaces::patch, workspaces::remove))
        .routes(routes!(workspaces::replace_token))
        .routes(routes!(claims::of_workspace))
        .routes(routes!(claims::command))
        .routes(routes!(claims::read))
        .routes(routes!(effects::declare, effects::declared))
        .routes(routes!(effects::list))
        .routes(routes!(effects::retry))
        .routes(routes!(effects::give_up))
        .routes(routes!(instances::list))
        .routes(routes!(brake::read))
        .routes(routes!(brake::release))
        .routes(routes!(brake::loops))
        .routes(routes!(events::all))
        .routes(routes!(events::of_workspace))
        .routes(routes!(events::stream))
        .routes(routes!(decisions::list))
        .routes(routes!(decisions::read))
        .routes(routes!(policies::active))
        .routes(routes!(policies::upload))
        .routes(routes!(policies::list, policies::activate))
        .routes(routes!(policies::reactivate))
        .routes(routes!(policies::roll_back))
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
}

fn description() -> OpenApi {
    let bearer = |what: &str| {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some(what.to_owned());
        SecurityScheme::Http(http)
    };
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Sprag")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(env!("CARGO_PKG_DESCRIPTION")))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .schema_from::<error::ProblemBody>()
                .security_scheme("agent", bearer("the token of one workspace"))
                .security_scheme("operator", bearer("the admin token"))
                .build(),
        ))
        .build()
}

/// The description of all routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

/// The whole service and the routes in `also`, behind one guard.
fn router(api: Api, config: &HttpConfig, shutdown: CancellationToken, also: Router) -> Router {
    let (routes, description) = routes().split_for_parts();
    let metrics = api.registry.metrics.clone();
    let guard = guard::GuardLayer::new(config, metrics);
    let description = serde_json::to_value(&description).unwrap_or_default();
    let edge = Arc::new(Edge {
        streams: Arc::new(Semaphore::new(config.streams)),
        large: Arc::new(Semaphore::new(config.large_bodies)),
        config: config.clone(),
        shutdown,
        openapi: description.to_string().into(),
        queries: exact::Queries::of(&description),
    });
    routes
        .with_state(Handles(Arc::new(Held { api, edge })))
        .merge(also)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(guard)
}

async fn no_route(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; GET /openapi.json lists what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", detail)
}

async fn no_method(method: Method, route: MatchedPath, uri: Uri) -> Problem {
    // One route has all commands; of what is none there is nothing for any method.
    let command = uri.path().rsplit('/').next().unwrap_or_default();
    if route.as_str().ends_with("/{command}") && claims::command_of(command).is_none() {
        return no_route(uri).await;
    }
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}
