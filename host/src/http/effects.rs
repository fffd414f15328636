//! What is owed, for operators: the parked effects above all; and the plugins
//! that a workspace should have.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::Registry;
use super::access::Operator;
use super::body::{Id, Params, bounded};
use super::error::{Answer, BAD_CURSOR, Problem, ProblemBody};
use super::exact::{Exact, NoBody};
use super::page::{self, Page, address};
use super::problems::{OfLiveWorkspace, OfWorkspace, Operators, WithBody};
use super::views::EffectBody;
use crate::effects::plugins;
use crate::machine::Status;
use crate::store::{DeclaredPlugin, Effect, EffectState, Retried};

/// Plugins that one workspace may have declared.
const MAX_PLUGINS: usize = 256;

/// Bytes of a plugin's name and of its version.
const MAX_WORD: usize = 128;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `due`, `done`, `parked` or `dropped`; all where it is left out.
    state: Option<String>,
    workspace_id: Option<String>,
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The place of the last one of the page before, as `Link` has it.
    before: Option<String>,
}

/// List effects, newest first
#[utoipa::path(
    get, path = "/effects", tag = "effects", operation_id = "list_effects",
    params(ListParams),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<EffectBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Params(params): Params<ListParams>,
) -> Answer<Page<EffectBody>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let state = params.state.as_deref().map(str::parse::<EffectState>).transpose();
    let state = state.map_err(|e| Problem::field("state", e.0.into(), "due, done, parked or dropped"))?;
    let before = params.before.as_deref().map(str::parse::<i64>).transpose();
    let no_place = |_| Problem::field("before", params.before.clone().into(), page::LAST).of_code(BAD_CURSOR);
    let before = before.map_err(no_place)?;
    let workspace = params.workspace_id.as_deref();
    let found = registry.store.effects(state, workspace, before, limit + 1).await?;
    Ok(Page::new(found, limit, |last: &Effect| {
        let params = [
            ("state", state.map(EffectState::as_str)),
            ("workspace_id", workspace),
            ("limit", Some(&*limit.to_string())),
            ("before", Some(&*last.seq.to_string())),
        ];
        address("/effects", &params)
    }))
}

/// Deliver a parked effect again
#[utoipa::path(
    post, path = "/effects/{id}/retry", tag = "effects", operation_id = "retry_effect",
    params(("id" = String, Path,)),
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 200, body = EffectBody, description = "It is due"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`EFFECT_NOT_FOUND`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`NOT_PARKED`"),
    )
)]
pub(super) async fn retry(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    _: NoBody,
) -> Answer<Json<EffectBody>> {
    changed(&id, registry.store.retry_effect(&id).await?, "NOT_PARKED")
}

/// Give an effect up for good
#[utoipa::path(
    delete, path = "/effects/{id}", tag = "effects", operation_id = "give_up_effect",
    params(("id" = String, Path,)),
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 200, body = EffectBody, description = "It is dropped"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`EFFECT_NOT_FOUND`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`EFFECT_ENDED`"),
    )
)]
pub(super) async fn give_up(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    _: NoBody,
) -> Answer<Json<EffectBody>> {
    changed(&id, registry.store.drop_effect(&id).await?, "EFFECT_ENDED")
}

fn changed(id: &str, retried: Retried, code: &'static str) -> Answer<Json<EffectBody>> {
    match retried {
        Retried::Done(effect) => Ok(Json(effect.into())),
        Retried::Not(effect) => {
            let detail = format!("effect {id} is {}", effect.state.as_str());
            Err(Problem::new(StatusCode::CONFLICT, code, detail))
        }
        Retried::Unknown => {
            let detail = format!("there is no effect {id:?}");
            Err(Problem::new(StatusCode::NOT_FOUND, "EFFECT_NOT_FOUND", detail))
        }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginsBody {
    /// All that it should have; what is not named here it should not have.
    #[schema(required, nullable = false)]
    plugins: Option<Vec<WantedPlugin>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedPlugin {
    /// 1 to 128 bytes, each name once.
    name: String,
    /// 1 to 128 bytes.
    version: Option<String>,
}

impl From<WantedPlugin> for DeclaredPlugin {
    fn from(wanted: WantedPlugin) -> Self {
        Self { name: wanted.name, version: wanted.version }
    }
}

/// Declare what a workspace should have installed
///
/// Replaces what was declared. It is delivered into its box now, where one
/// runs and is online, degraded or failed, and whenever a policy asks for it.
#[utoipa::path(
    put, path = "/workspaces/{id}/plugins", tag = "workspaces", operation_id = "declare_plugins",
    params(("id" = String, Path,)),
    request_body = PluginsBody,
    security(("operator" = [])),
    responses(
        Operators, WithBody, OfLiveWorkspace,
        (status = 200, body = Vec<DeclaredPlugin>, description = "What is declared now"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`PRIVILEGED_PLUGIN`: for kind platform only"),
    )
)]
pub(super) async fn declare(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    Exact(body): Exact<PluginsBody>,
) -> Answer<Json<Vec<DeclaredPlugin>>> {
    let declared = checked(body.plugins)?;
    let row = registry.store.snapshot(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    plugins::check(&row.workspace.kind, &declared, &registry.privileged_plugins)
        .map_err(|e| Problem::new(StatusCode::CONFLICT, "PRIVILEGED_PLUGIN", e.to_string()))?;
    // A failed one may wait for just this, and its window may be spent on what was declared before.
    let waits = matches!(row.workspace.status, Status::Online | Status::Degraded | Status::Failed);
    let deliver = waits && row.workspace.instance_id.is_some();
    if !registry.store.declare_plugins(&id, &declared, deliver).await? {
        return Err(Problem::removed(&id));
    }
    Ok(Json(declared))
}

/// Read what a workspace should have installed
#[utoipa::path(
    get, path = "/workspaces/{id}/plugins", tag = "workspaces", operation_id = "list_plugins",
    params(("id" = String, Path,)),
    security(("operator" = [])),
    responses(
        Operators, OfWorkspace,
        (status = 200, body = Vec<DeclaredPlugin>, description = "What is declared"),
    )
)]
pub(super) async fn declared(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
) -> Answer<Json<Vec<DeclaredPlugin>>> {
    let declared = registry.store.declared_plugins(&id).await?;
    if declared.is_empty() && registry.store.snapshot(&id).await?.is_none() {
        return Err(Problem::no_workspace(&id));
    }
    Ok(Json(declared))
}

fn checked(given: Option<Vec<WantedPlugin>>) -> Answer<Vec<DeclaredPlugin>> {
    let Some(plugins) = given else {
        return Err(Problem::field("plugins", serde_json::Value::Null, "a list of {name, version?}"));
    };
    let plugins: Vec<_> = plugins.into_iter().map(DeclaredPlugin::from).collect();
    if plugins.len() > MAX_PLUGINS {
        return Err(Problem::field("plugins", plugins.len().into(), format!("at most {MAX_PLUGINS}")));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (place, plugin) in plugins.iter().enumerate() {
        let sized = |text: &str| (1..=MAX_WORD).contains(&text.len());
        let expected = format!("1 to {MAX_WORD} bytes, each name once");
        if !sized(&plugin.name) || !seen.insert(plugin.name.as_str()) {
            return Err(Problem::field(
                format!("plugins[{place}].name"),
                plugin.name.as_str().into(),
                expected,
            ));
        }
        if let Some(version) = plugin.version.as_deref().filter(|version| !sized(version)) {
            return Err(Problem::field(format!("plugins[{place}].version"), version.into(), expected));
        }
    }
    Ok(plugins)
}
