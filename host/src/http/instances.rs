//! Boxes, for operators: those that rows name, and the strays above all.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Registry;
use super::access::Operator;
use super::body::{Params, bounded};
use super::error::{Answer, Problem};
use super::page::{self, Page, address};
use super::problems::Operators;
use crate::clock::rfc3339;
use crate::loops::LoopsConfig;
use crate::store::{NamedInstance, Stray};

/// Where a page begins: strays come first.
const STRAYS: &str = "stray-";
const NAMED: &str = "named-";

/// A box of a provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceBody {
    instance_id: String,
    provider: Option<String>,
    workspace_id: String,
    /// The workspace's. Null: there is no such workspace.
    status: Option<String>,
    /// Whether no row names it, although its provider runs it.
    stray: bool,
    /// Of a stray.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<FoundBody>,
}

/// What is known of a stray.
#[derive(Debug, Serialize, ToSchema)]
struct FoundBody {
    /// Which registry had it started: `own`, `other`, or `none` where the box does not say.
    registry: &'static str,
    /// As the box says.
    registry_id: Option<String>,
    /// `not-named`; or, newer than the database, `unknown-workspace` or `newer-than-row`.
    reason: String,
    #[schema(format = DateTime)]
    found_at: String,
    /// When it may be stopped. Null: it never is.
    #[schema(format = DateTime)]
    stops_at: Option<String>,
    /// It is being stopped.
    stopping: bool,
    /// Stops that were tried.
    attempts: u32,
    last_error: Option<String>,
}

impl FoundBody {
    fn of(stray: &Stray, config: &LoopsConfig) -> Self {
        let stops_at = stray.stops_at(config.strays_grace_ms, config.strays_quiet_ms);
        Self {
            registry: stray.whose.as_str(),
            registry_id: stray.registry_id.clone(),
            reason: stray.why.clone(),
            found_at: rfc3339(stray.found_at),
            stops_at: stops_at.filter(|_| config.strays_stop).map(rfc3339),
            stopping: stray.stopping,
            attempts: stray.attempts,
            last_error: stray.last_error.clone(),
        }
    }
}

/// One of a page, and its place.
struct Listed(String, InstanceBody);

impl From<Listed> for InstanceBody {
    fn from(listed: Listed) -> Self {
        listed.1
    }
}

impl Listed {
    fn stray(stray: Stray, config: &LoopsConfig) -> Self {
        let place = format!("{STRAYS}{}", stray.id);
        let body = InstanceBody {
            found: Some(FoundBody::of(&stray, config)),
            instance_id: stray.instance_id,
            provider: Some(stray.provider),
            workspace_id: stray.workspace_id,
            status: stray.status,
            stray: true,
        };
        Self(place, body)
    }

    fn named(named: NamedInstance) -> Self {
        let NamedInstance { workspace_id, provider, instance_id, status } = named;
        let place = format!("{NAMED}{workspace_id}");
        let status = Some(status);
        Self(place, InstanceBody { instance_id, provider, workspace_id, status, stray: false, found: None })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `true`: only those that no row names; `false`: only the others.
    stray: Option<String>,
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The place of the last one of the page before, as `Link` has it.
    after: Option<String>,
}

/// List instances: first those that no row names, then those that rows do
///
/// The strays are as they were when providers were last asked.
#[utoipa::path(
    get, path = "/instances", tag = "instances", operation_id = "list_instances",
    params(ListParams),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<InstanceBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Params(params): Params<ListParams>,
) -> Answer<Page<InstanceBody>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let (strays, named) = match params.stray.as_deref() {
        None => (true, true),
        Some("true") => (true, false),
        Some("false") => (false, true),
        Some(other) => return Err(Problem::field("stray", other.into(), "true or false")),
    };
    let (after_stray, after_named) = match params.after.as_deref() {
        None => (Some(""), ""),
        Some(after) => match (after.strip_prefix(STRAYS), after.strip_prefix(NAMED)) {
            (Some(id), _) => (Some(id), ""),
            (None, Some(id)) => (None, id),
            (None, None) => return Err(Problem::field("after", after.into(), "a place that Link gave")),
        },
    };
    let config = registry.loops.config();
    let mut found = Vec::new();
    if let Some(after) = after_stray.filter(|_| strays) {
        let all = registry.store.strays(after, limit + 1).await?;
        found.extend(all.into_iter().map(|stray| Listed::stray(stray, config)));
    }
    let room = (limit + 1).saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
    if named && room > 0 {
        found.extend(registry.store.instances(after_named, room).await?.into_iter().map(Listed::named));
    }
    Ok(Page::new(found, limit, |Listed(place, _): &Listed| {
        let params = [
            ("stray", params.stray.as_deref()),
            ("limit", Some(&*limit.to_string())),
            ("after", Some(place)),
        ];
        address("/instances", &params)
    }))
}
