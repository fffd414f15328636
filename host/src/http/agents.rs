//! The calls of agents: register, heartbeat, update-card. The heartbeat is the
//! hot path of the whole host; what it does not need, it does not do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::{Access, Agent, Token, bearer, is_one_of};
use super::body::{AgentBody, Payload, Said, Tools, readiness, required, said};
use super::error::{Answer, Problem, ProblemBody, words};
use super::problems::{Agents, OfLiveWorkspace, WithBody};
use super::said::{HeartbeatBody, Warning, Warnings};
use super::{Edge, Registry, agent_url};
use crate::advance::Advanced;
use crate::facts::{Cause, Decision, Outcome};
use crate::heartbeats::Heard;
use crate::machine::{NoSuchEdge, Status};
use crate::store::{Credential, Registration, Snapshot};

/// Bytes of an agent's card.
const MAX_CARD: usize = 64 << 10;

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct RegisterBody {
    /// The workspace, as `POST /workspaces` answered it.
    #[schema(required, nullable = false)]
    id: Option<String>,
    /// `http` or `https` with a host, at most 2048 bytes. Left out, the last one stands; `null` clears it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    url: Said<String>,
    /// Any JSON of at most 64 KiB; more is left out. Left out, the last one stands; `null` clears it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Value>)]
    agent_card: Said<Box<RawValue>>,
    mcp_server_present: Option<bool>,
    model_present: Option<bool>,
    loaded_mcp_tools: Option<Tools>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Registered {
    #[schema(example = "registered")]
    status: &'static str,
    #[schema(value_type = String)]
    workspace_status: Status,
    /// Handed out once, where the workspace had none and registration is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    /// What was not taken as it was said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// Register an agent
///
/// Brings the workspace online, or fails it where it is not ready.
#[utoipa::path(
    post, path = "/registry/register", tag = "agents", operation_id = "register_agent",
    request_body = RegisterBody,
    responses(
        Agents, WithBody, OfLiveWorkspace,
        (status = 200, body = Registered, description = "It is registered; `workspace_status` says where the workspace stands"),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`NOT_READY`: a policy failed or held it; `reason` is its code. `INVALID_FIELD`, `BAD_JSON`"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`WORKSPACE_PAUSED`, `WORKSPACE_HIBERNATED`"),
    )
)]
pub(super) async fn register(
    State(registry): State<Arc<Registry>>,
    State(access): State<Arc<Access>>,
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    body: AgentBody,
) -> Answer<Json<Registered>> {
    let said = body.parse::<RegisterBody>()?;
    let id = required("id", said.id)?;
    let readiness = readiness(said.mcp_server_present, said.model_present, said.loaded_mcp_tools)?;
    let link_local = edge.config.link_local_urls;
    let url = said.url.map(|url| agent_url::checked(url.unwrap_or_default(), link_local)).transpose()?;
    drop(body);
    let mut warnings = Warnings::default();
    let agent_card = said.agent_card.and_then(|card| card_of(card, &mut warnings));
    let facts = registry.store.snapshot(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    let credential = access.credential(bearer(&headers));
    let minted = admit(&registry, &id, credential).await?;
    let registration = Registration {
        url,
        agent_card,
        readiness: readiness.clone(),
        warnings: warnings.stored(),
        first_token: minted.as_ref().map(Token::hash),
    };
    let cause = Cause::Registered(readiness);
    let registered = |to, minted: Option<Token>, decision: Option<Decision>| {
        Ok(Json(Registered {
            status: "registered",
            workspace_status: to,
            auth_token: minted.map(Token::reveal),
            decision_id: decision.map(|d| d.id),
            warnings: taken(&registry, "register", warnings),
        }))
    };
    match registry.advance.agent(facts, &cause, Some(&registration), credential).await? {
        Advanced::Moved { to: Status::Failed, decision } => Err(not_ready(&decision)),
        Advanced::Moved { to, decision } => registered(to, minted, Some(decision)),
        Advanced::Held { status, decision } => {
            match Problem::denied(&decision, Status::Online, StatusCode::BAD_REQUEST, "NOT_READY") {
                Some(problem) => Err(problem.at(status)),
                None => registered(status, minted, Some(decision)),
            }
        }
        Advanced::Claimed { status, .. } => registered(status, minted, None),
        Advanced::NoEdge(none) => Err(closed(&id, none)),
        Advanced::Unknown => Err(Problem::no_workspace(&id)),
        Advanced::TokenTaken | Advanced::TokenDead => Err(no_token_of(&id)),
        // Commands alone need a provider.
        Advanced::Outran | Advanced::NoProvider { .. } => Err(Problem::outrun(&id)),
    }
}

/// Checks the token, or mints the first one where that is allowed.
async fn admit(registry: &Registry, id: &str, credential: Credential) -> Answer<Option<Token>> {
    match whose(registry, id, credential).await? {
        Word::Own => Ok(None),
        Word::Anybodys => Ok(Some(Token::mint()?)),
        Word::Nobodys => Err(no_token_of(id)),
    }
}

/// Whose word it is that somebody gives for a workspace.
#[derive(PartialEq, Eq)]
enum Word {
    /// A live token of it was presented.
    Own,
    /// It has none, and registration is open.
    Anybodys,
    /// It does not count.
    Nobodys,
}

async fn whose(registry: &Registry, id: &str, credential: Credential) -> Answer<Word> {
    let Credential { token, open } = credential;
    let live = registry.store.tokens(id).await?;
    if is_one_of(&token, &live) {
        return Ok(Word::Own);
    }
    let open = open && live.is_empty() && !registry.store.knows_token(&token).await?;
    Ok(if open { Word::Anybodys } else { Word::Nobodys })
}

fn no_token_of(id: &str) -> Problem {
    Problem::unauthorized(&format!("a live token of workspace {id} is needed"))
}

/// The card, where it is one that can be kept.
fn card_of(said: Option<Box<RawValue>>, warnings: &mut Warnings) -> Option<Value> {
    let Some(raw) = said else { return Some(Value::Null) };
    let raw = raw.get();
    let card = if raw.len() > MAX_CARD { None } else { serde_json::from_str(raw).ok() };
    if card.is_none() {
        warnings.left_out("agent_card", raw, "JSON of at most 65536 bytes with numbers that 64 bits hold");
    }
    card
}

/// The gate closed: the row is failed, with the reason that the policy gave.
fn not_ready(decision: &Decision) -> Problem {
    let Outcome::Moved { to, reason, policy } = &decision.outcome else {
        return Problem::new(StatusCode::BAD_REQUEST, "NOT_READY", "not ready").decided(decision);
    };
    Problem::new(StatusCode::BAD_REQUEST, "NOT_READY", words(policy, reason))
        .because(reason.code.clone())
        .decided(decision)
        .at(*to)
}

/// Statuses that a registration has no say in.
fn closed(id: &str, none: NoSuchEdge) -> Problem {
    let code = match none.from {
        Status::Removed => return Problem::removed(id),
        Status::Paused => "WORKSPACE_PAUSED",
        Status::Hibernated => "WORKSPACE_HIBERNATED",
        _ => "NO_SUCH_EDGE",
    };
    let detail = format!("workspace {id} is {}: a registration does not bring it back", none.from);
    Problem::new(StatusCode::CONFLICT, code, detail).at(none.from)
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HeartbeatAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    #[schema(value_type = String)]
    workspace_status: Status,
    /// Where policies were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    /// What was not taken as it was said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// Heartbeat
///
/// Stores what the agent says of itself and judges the workspace by it. An
/// answered heartbeat is a stored heartbeat.
#[utoipa::path(
    post, path = "/registry/heartbeat", tag = "agents", operation_id = "heartbeat",
    request_body = HeartbeatBody,
    security(("agent" = [])),
    responses(
        Agents, WithBody, OfLiveWorkspace,
        (status = 200, body = HeartbeatAnswer, description = "It is stored; `workspace_status` says where the workspace stands"),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`INVALID_FIELD`, `BAD_JSON`"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "Try again: storing it twice does no harm"),
    )
)]
pub(super) async fn heartbeat(
    State(registry): State<Arc<Registry>>,
    Agent(credential): Agent,
    body: AgentBody,
) -> Answer<Json<HeartbeatAnswer>> {
    let (said, mut warnings) = HeartbeatBody::of(&body.bytes)?;
    drop(body);
    let beat = said.read(credential, &mut warnings)?;
    let id = beat.workspace_id.clone();
    match registry.heartbeats.take(beat).await? {
        Heard::Stored { status, decision_id } => {
            let warnings = taken(&registry, "heartbeat", warnings);
            Ok(Json(HeartbeatAnswer { status: "ok", workspace_status: status, decision_id, warnings }))
        }
        Heard::Unknown => Err(Problem::no_workspace(&id)),
        Heard::Unauthorized => Err(no_token_of(&id)),
        Heard::Removed => Err(Problem::removed(&id)),
    }
}

/// Counts what was stored with warnings, which are then answered.
fn taken(registry: &Registry, call: &'static str, warnings: Warnings) -> Vec<Warning> {
    for field in warnings.fields() {
        registry.metrics.not_taken(call, field);
    }
    warnings.into_answer()
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct CardBody {
    #[schema(required, nullable = false)]
    workspace_id: Option<String>,
    /// Any JSON; replaces the card, and `null` clears it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Value, required)]
    agent_card: Said<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Updated {
    #[schema(example = "updated")]
    status: &'static str,
}

/// Replace the agent card
#[utoipa::path(
    post, path = "/registry/update-card", tag = "agents", operation_id = "update_agent_card",
    request_body = CardBody,
    security(("agent" = [])),
    responses(
        Agents, WithBody, OfLiveWorkspace,
        (status = 200, body = Updated, description = "The card is replaced"),
    )
)]
pub(super) async fn update_card(
    State(registry): State<Arc<Registry>>,
    Agent(credential): Agent,
    Payload(body): Payload<CardBody>,
) -> Answer<Json<Updated>> {
    let id = required("workspace_id", body.workspace_id)?;
    let Some(card) = body.agent_card else {
        return Err(Problem::field("agent_card", Value::Null, "the card; an explicit null clears it"));
    };
    let _: Snapshot = registry.store.snapshot(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    if whose(&registry, &id, credential).await? == Word::Nobodys {
        return Err(no_token_of(&id));
    }
    if !registry.store.update_card(&id, &card.unwrap_or_default()).await? {
        return Err(Problem::removed(&id));
    }
    registry.changed();
    Ok(Json(Updated { status: "updated" }))
}
