//! Operators' calls on workspaces: create, list, read, patch, remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Registry;
use super::access::{Operator, Reader, Token, is_one_of};
use super::body::{Id, Params, Said, bounded, said};
use super::claims::not_asked;
use super::error::{Answer, Problem, ProblemBody};
use super::exact::{Exact, NoBody};
use super::fields::{Tier, flag, kind, labels, minutes, name, tier, value, word};
use super::page::{self, Page, address};
use super::problems::{OfLiveWorkspace, OfWorkspace, Operators, WithBody};
use super::views::{ReadBody, WorkspaceBody};
use crate::advance::Removal;
use crate::facts::{Command, KINDS};
use crate::machine::Status;
use crate::store::{Filter, NewWorkspace, Patch, Placed};

/// The runtime of a workspace whose creator names none.
const DEFAULT_RUNTIME: &str = "claude-code";

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    /// 1 to 200 characters.
    #[schema(required, nullable = false)]
    name: Option<String>,
    /// `workspace` (the default), or `platform` for the concierge that manages the others.
    kind: Option<String>,
    /// `claude-code` (the default), `hermes`, `external`, …
    runtime: Option<String>,
    provider: Option<String>,
    parent_id: Option<String>,
    tier: Option<Tier>,
    labels: Option<BTreeMap<String, String>>,
    persistent_volume: Option<bool>,
    hibernation_idle_minutes: Option<f64>,
    /// `true` answers a token for the agent; `false` makes none, for open
    /// registration to hand out to the first agent that registers. The default:
    /// `true` without a provider; a provider's box gets a token of its own.
    issue_token: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Created {
    id: String,
    #[schema(value_type = String, example = "provisioning")]
    status: Status,
    /// The claim that starts its box, where it has a provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_id: Option<String>,
    /// Shown this once; only its SHA-256 is stored. Absent where none was to be issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
}

impl CreateBody {
    fn read(self, token: Option<&Token>) -> Answer<NewWorkspace> {
        Ok(NewWorkspace {
            id: Uuid::now_v7().to_string(),
            name: name(self.name)?,
            kind: kind(self.kind)?.unwrap_or_else(|| KINDS[0].to_owned()),
            runtime: word("runtime", self.runtime)?.unwrap_or_else(|| DEFAULT_RUNTIME.to_owned()),
            provider: self.provider,
            parent_id: self.parent_id,
            tier: tier(self.tier)?,
            labels: labels(self.labels.unwrap_or_default())?,
            persistent_volume: self.persistent_volume.unwrap_or_default(),
            hibernation_idle_minutes: self.hibernation_idle_minutes.map(minutes).transpose()?,
            token: token.map(Token::hash),
            claim: None,
        })
    }
}

/// What a parent that can't be used, or a row that is gone, comes to.
fn placed(placed: Placed, id: &str, parent: Option<&str>) -> Answer<()> {
    let conflict = |code, detail: String| Err(Problem::new(StatusCode::CONFLICT, code, detail));
    let parent = parent.unwrap_or_default();
    match placed {
        Placed::Done => Ok(()),
        Placed::NoSuchParent => {
            Err(Problem::field("parent_id", parent.into(), "the id of a workspace that exists"))
        }
        Placed::ParentRemoved => conflict("PARENT_REMOVED", format!("the parent {parent} is removed")),
        Placed::Cycle => conflict("PARENT_CYCLE", format!("{parent} is {id} itself or lies below it")),
        Placed::NoSuchWorkspace => Err(Problem::no_workspace(id)),
        Placed::Removed => Err(Problem::removed(id)),
    }
}

/// Create a workspace
#[utoipa::path(
    post, path = "/workspaces", tag = "workspaces", operation_id = "create_workspace",
    request_body = CreateBody,
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 201, body = Created, description = "It is created", headers(("location" = String, description = "its address"))),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`PARENT_REMOVED`, `ANCESTOR_PAUSED`"),
    )
)]
pub(super) async fn create(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Exact(body): Exact<CreateBody>,
) -> Answer<(StatusCode, [(HeaderName, String); 1], Json<Created>)> {
    let issue = body.issue_token.unwrap_or(body.provider.is_none());
    let token = if issue { Some(Token::mint()?) } else { None };
    let new = body.read(token.as_ref())?;
    if let (Some(_), Some(parent)) = (&new.provider, &new.parent_id) {
        let above = registry.store.snapshot(parent).await?;
        if above.is_some_and(|p| p.workspace.status == Status::Paused || p.workspace.ancestor_paused) {
            let detail = format!("{parent} or something above it is paused: no box is started below it");
            return Err(Problem::new(StatusCode::CONFLICT, "ANCESTOR_PAUSED", detail));
        }
    }
    let provider = new.provider.clone();
    let created = registry.claims.create(new, "operator").await;
    let (done, new) = created.map_err(|e| not_asked(provider.as_deref(), e))?;
    placed(done, &new.id, new.parent_id.as_deref())?;
    registry.changed();
    let location = [(header::LOCATION, format!("/workspaces/{}", new.id))];
    let auth_token = token.map(Token::reveal);
    let claim_id = new.claim.map(|claim| claim.id);
    let created = Created { id: new.id, status: Status::Provisioning, claim_id, auth_token };
    Ok((StatusCode::CREATED, location, Json(created)))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replaced {
    /// Shown this once; only its SHA-256 is stored.
    auth_token: String,
}

/// Replace a workspace's token
///
/// For one that was lost or given away: those that there are end with this
/// call, and the agent needs the new one from then on. Nothing else changes.
#[utoipa::path(
    post, path = "/workspaces/{id}/token", tag = "workspaces", operation_id = "replace_token",
    params(("id" = String, Path,)),
    security(("operator" = [])),
    responses(
        Operators, WithBody, OfLiveWorkspace,
        (status = 200, body = Replaced, description = "The new token"),
    )
)]
pub(super) async fn replace_token(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    _: NoBody,
) -> Answer<Json<Replaced>> {
    let token = Token::mint()?;
    if registry.store.replace_tokens(&id, &token.hash()).await? {
        return Ok(Json(Replaced { auth_token: token.reveal() }));
    }
    match registry.store.view(&id).await? {
        Some(_) => Err(Problem::removed(&id)),
        None => Err(Problem::no_workspace(&id)),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    status: Option<String>,
    kind: Option<String>,
    runtime: Option<String>,
    provider: Option<String>,
    parent_id: Option<String>,
    /// `true` shows removed ones too.
    include_removed: Option<String>,
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The id of the last one of the page before.
    after: Option<String>,
}

/// List workspaces, oldest first
#[utoipa::path(
    get, path = "/workspaces", tag = "workspaces", operation_id = "list_workspaces",
    params(ListParams),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<WorkspaceBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Params(params): Params<ListParams>,
) -> Answer<Page<WorkspaceBody>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let status = params.status.as_deref().map(str::parse::<Status>).transpose();
    let status =
        status.map_err(|e| Problem::field("status", e.name.into(), format!("one of {}", e.expected)))?;
    let filter = Filter {
        status,
        kind: kind(params.kind)?,
        runtime: params.runtime,
        provider: params.provider,
        parent_id: params.parent_id,
        include_removed: flag("include_removed", params.include_removed.as_deref())?,
        after: page::cursor("after", params.after)?,
        limit: limit + 1,
    };
    let found = registry.store.list(&filter).await?;
    Ok(Page::new(found, limit, |last| next_of(&filter, limit, &last.workspace.id)))
}

fn next_of(filter: &Filter, limit: u32, after: &str) -> String {
    let limit = limit.to_string();
    let params = [
        ("status", filter.status.map(Status::as_str)),
        ("kind", filter.kind.as_deref()),
        ("runtime", filter.runtime.as_deref()),
        ("provider", filter.provider.as_deref()),
        ("parent_id", filter.parent_id.as_deref()),
        ("include_removed", filter.include_removed.then_some("true")),
        ("limit", Some(limit.as_str())),
        ("after", Some(after)),
    ];
    address("/workspaces", &params)
}

/// Read a workspace
///
/// An operator reads any, a removed one as well. An agent reads its own, by its
/// token, and without what is the operators': labels, provider, instance, claim.
#[utoipa::path(
    get, path = "/workspaces/{id}", tag = "workspaces", operation_id = "read_workspace",
    params(("id" = String, Path,)),
    security(("operator" = []), ("agent" = [])),
    responses(
        Operators, OfWorkspace,
        (status = 200, body = ReadBody, description = "The workspace"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json",
            description = "`UNAUTHORIZED`: the admin token is needed, or a live token of this workspace"),
        (status = 410, body = ProblemBody, content_type = "application/problem+json",
            description = "`WORKSPACE_REMOVED`, to its agent alone"),
    )
)]
pub(super) async fn read(
    State(registry): State<Arc<Registry>>,
    reader: Reader,
    Id(id): Id,
) -> Answer<Json<ReadBody>> {
    if let Reader::Agent(token) = &reader
        && !is_one_of(token, &registry.store.tokens(&id).await?)
    {
        let needed = format!("the admin token or a live token of workspace {id} is needed");
        return Err(Problem::unauthorized(&needed));
    }
    let view = registry.store.view(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    match reader {
        Reader::Operator(_) => Ok(Json(ReadBody::Whole(view.into()))),
        Reader::Agent(_) if view.workspace.status == Status::Removed => Err(Problem::removed(&id)),
        Reader::Agent(_) => Ok(Json(ReadBody::Own(view.into()))),
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchBody {
    #[serde(default, deserialize_with = "value")]
    #[schema(nullable = false)]
    name: Option<String>,
    /// Replaces all labels.
    #[serde(default, deserialize_with = "value")]
    #[schema(nullable = false)]
    labels: Option<BTreeMap<String, String>>,
    /// `null` makes it a root.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    parent_id: Said<String>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Tier>)]
    tier: Said<Tier>,
    /// `null`: never.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<f64>)]
    hibernation_idle_minutes: Said<f64>,
}

impl PatchBody {
    fn read(self) -> Answer<Patch> {
        Ok(Patch {
            name: self.name.map(|given| name(Some(given))).transpose()?,
            labels: self.labels.map(labels).transpose()?,
            parent_id: self.parent_id,
            tier: self.tier.map(tier).transpose()?,
            hibernation_idle_minutes: self
                .hibernation_idle_minutes
                .map(|given| given.map(minutes).transpose())
                .transpose()?,
        })
    }
}

/// Rename, label or move a workspace
#[utoipa::path(
    patch, path = "/workspaces/{id}", tag = "workspaces", operation_id = "patch_workspace",
    params(("id" = String, Path,)),
    request_body = PatchBody,
    security(("operator" = [])),
    responses(
        Operators, WithBody, OfLiveWorkspace,
        (status = 200, body = WorkspaceBody, description = "The workspace as it is now"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`PARENT_REMOVED`, `PARENT_CYCLE`"),
    )
)]
pub(super) async fn patch(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    Exact(body): Exact<PatchBody>,
) -> Answer<Json<WorkspaceBody>> {
    let patch = body.read()?;
    let parent = patch.parent_id.clone().flatten();
    placed(registry.store.patch(&id, &patch).await?, &id, parent.as_deref())?;
    registry.changed();
    let view = registry.store.view(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    Ok(Json(view.into()))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemovedBody {
    #[schema(value_type = String, example = "removed")]
    status: Status,
    /// The decision on the workspace itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    /// How many were removed, itself and all below it.
    removed: usize,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveParams {
    /// `true` removes all below it as well.
    cascade: Option<String>,
}

/// Remove a workspace
///
/// With `cascade=true` all below it as well; without, one that has descendants is kept.
#[utoipa::path(
    delete, path = "/workspaces/{id}", tag = "workspaces", operation_id = "remove_workspace",
    params(("id" = String, Path,), RemoveParams),
    security(("operator" = [])),
    responses(
        Operators, WithBody, OfLiveWorkspace,
        (status = 200, body = RemovedBody, description = "It is removed, and with `cascade` all below it"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`HAS_DESCENDANTS` (`descendants` says how many), `DENIED_BY_POLICY` (`reason` says why), `SUBTREE_TOO_LARGE`"),
    )
)]
pub(super) async fn remove(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    Params(params): Params<RemoveParams>,
    _: NoBody,
) -> Answer<Json<RemovedBody>> {
    let cascade = flag("cascade", params.cascade.as_deref())?;
    let denied = |code, detail: String| Problem::new(StatusCode::CONFLICT, code, detail);
    match registry.advance.remove(&id, &Command::remove(), cascade).await? {
        Removal::Done(decisions) => Ok(Json(RemovedBody {
            status: Status::Removed,
            decision_id: decisions.first().map(|d| d.id.clone()),
            removed: decisions.len(),
        })),
        Removal::Denied(decision) => {
            let code = "DENIED_BY_POLICY";
            Err(Problem::denied(&decision, Status::Removed, StatusCode::CONFLICT, code).unwrap_or_else(
                || {
                    // Nobody objected, but nobody allowed it either.
                    denied(code, "no policy allows it".to_owned()).because("nobody-allows").decided(&decision)
                },
            ))
        }
        Removal::Already => Err(Problem::removed(&id)),
        Removal::Unknown => Err(Problem::no_workspace(&id)),
        Removal::Outran => Err(Problem::outrun(&id)),
        Removal::HasDescendants(descendants) => Err(Problem::has_descendants(&id, descendants)),
        Removal::TooMany(rows) => {
            let detail = format!("{rows} workspaces hang below {id}; remove some of them first");
            Err(denied("SUBTREE_TOO_LARGE", detail))
        }
    }
}
