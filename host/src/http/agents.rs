//! The calls of agents: register, heartbeat, update-card. The heartbeat is the
//! hot path of the whole host; what it does not need, it does not do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Registry;
use super::access::{Access, Bearer, Registration as Admission, Token, bearer, is_one_of};
use super::body::{Payload, Tools, readiness, required, whole};
use super::error::{Answer, Problem, ProblemBody, words};
use crate::advance::Advanced;
use crate::facts::{Cause, Decision, Heartbeat, Outcome};
use crate::heartbeats::Heard;
use crate::machine::{NoSuchEdge, Status};
use crate::store::{Beat, Registration, Snapshot, TokenHash};

/// Longest uptime that is believed, in seconds: three hundred years.
const MAX_UPTIME: u64 = 10_000_000_000;

/// Most tasks that are believed: what a database's integer holds.
const MAX_TASKS: u64 = i32::MAX as u64;

/// Bytes that are kept of a sample for people; what is longer is cut there.
const MAX_SAMPLE: usize = 4 << 10;

/// Bytes of a runtime's state, which policies compare with words.
const MAX_RUNTIME_STATE: usize = 64;

/// Bytes of an agent's address.
const MAX_URL: usize = 2 << 10;

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct RegisterBody {
    /// The workspace, as `POST /workspaces` answered it.
    #[schema(required)]
    id: Option<String>,
    /// At most 2048 bytes.
    url: Option<String>,
    agent_card: Option<Value>,
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
}

/// Register an agent
///
/// Brings the workspace online, or fails it where it is not ready.
#[utoipa::path(
    post, path = "/registry/register", tag = "agents",
    request_body = RegisterBody,
    responses(
        (status = 200, body = Registered),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`NOT_READY`: a policy failed or held it; `reason` is its code. `INVALID_FIELD`, `BAD_JSON`"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`WORKSPACE_PAUSED`, `WORKSPACE_HIBERNATED`"),
        (status = 410, body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn register(
    State(registry): State<Arc<Registry>>,
    State(access): State<Arc<Access>>,
    headers: HeaderMap,
    Payload(body): Payload<RegisterBody>,
) -> Answer<Json<Registered>> {
    let id = required("id", body.id)?;
    let readiness = readiness(body.mcp_server_present, body.model_present, body.loaded_mcp_tools)?;
    let url = at_most("url", MAX_URL, body.url)?;
    let facts = registry.store.snapshot(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    let presented = bearer(&headers);
    let minted = admit(&registry, &access, &id, presented).await?;
    let registration = Registration {
        url,
        agent_card: body.agent_card.unwrap_or_default(),
        first_token: minted.as_ref().map(Token::hash),
    };
    let cause = Cause::Registered(readiness);
    match registry.advance.agent(facts, &cause, Some(&registration), access.credential(presented)).await? {
        Advanced::Moved { to: Status::Failed, decision } => Err(not_ready(&decision)),
        Advanced::Moved { to, decision } => Ok(registered(to, minted, Some(decision))),
        Advanced::Held { status, decision } => {
            match Problem::denied(&decision, Status::Online, StatusCode::BAD_REQUEST, "NOT_READY") {
                Some(problem) => Err(problem.at(status)),
                None => Ok(registered(status, minted, Some(decision))),
            }
        }
        Advanced::Claimed { status, .. } => Ok(registered(status, minted, None)),
        Advanced::NoEdge(none) => Err(closed(&id, none)),
        Advanced::Unknown => Err(Problem::no_workspace(&id)),
        Advanced::TokenTaken | Advanced::TokenDead => Err(no_token_of(&id)),
        Advanced::Outran => Err(Problem::outrun(&id)),
    }
}

/// Checks the token, or mints the first one where that is allowed.
async fn admit(
    registry: &Registry,
    access: &Access,
    id: &str,
    presented: Option<TokenHash>,
) -> Answer<Option<Token>> {
    let live = registry.store.tokens(id).await?;
    if presented.is_some_and(|presented| is_one_of(&presented, &live)) {
        return Ok(None);
    }
    let open = access.registration() == Admission::Open && live.is_empty();
    let stranger = match presented {
        Some(presented) if open => !registry.store.knows_token(&presented).await?,
        _ => true,
    };
    if open && stranger { Ok(Some(Token::mint()?)) } else { Err(no_token_of(id)) }
}

fn no_token_of(id: &str) -> Problem {
    Problem::unauthorized(&format!("a live token of workspace {id} is needed"))
}

fn registered(status: Status, minted: Option<Token>, decision: Option<Decision>) -> Json<Registered> {
    Json(Registered {
        status: "registered",
        workspace_status: status,
        auth_token: minted.map(Token::reveal),
        decision_id: decision.map(|d| d.id),
    })
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

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct HeartbeatBody {
    #[schema(required)]
    workspace_id: Option<String>,
    /// Share of the agent's own operations that failed, 0 to 1.
    error_rate: Option<f64>,
    /// A sample for people: what is longer than 4096 bytes is cut there.
    sample_error: Option<String>,
    active_tasks: Option<f64>,
    uptime_seconds: Option<f64>,
    /// A sample for people: what is longer than 4096 bytes is cut there.
    current_task: Option<String>,
    /// Empty when healthy, `wedged` when the agent's runtime is stuck. At most 64 bytes.
    runtime_state: Option<String>,
    mcp_server_present: Option<bool>,
    model_present: Option<bool>,
    loaded_mcp_tools: Option<Tools>,
    runtime_metadata: Option<RuntimeMetadata>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct RuntimeMetadata {
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct Capabilities {
    /// The agent reports its own status; none is inferred from its error rate.
    status_mgmt: Option<bool>,
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
}

impl HeartbeatBody {
    /// What is stored and what is judged, checked.
    fn read(self, token: TokenHash) -> Answer<(Beat, Heartbeat)> {
        let workspace_id = required("workspace_id", self.workspace_id)?;
        let error_rate = self.error_rate.unwrap_or_default();
        if !(0.0..=1.0).contains(&error_rate) {
            return Err(Problem::field("error_rate", error_rate.into(), "a number from 0 to 1"));
        }
        // Agents measure a float; whole seconds are kept.
        let uptime = self.uptime_seconds.map(f64::trunc);
        let uptime_seconds = whole("uptime_seconds", uptime, MAX_UPTIME)?;
        let active_tasks = whole("active_tasks", self.active_tasks, MAX_TASKS)?;
        let active_tasks = u32::try_from(active_tasks).unwrap_or(u32::MAX);
        let sample_error = sample(self.sample_error);
        let runtime_state = at_most("runtime_state", MAX_RUNTIME_STATE, self.runtime_state)?;
        let capabilities = self.runtime_metadata.and_then(|m| m.capabilities).unwrap_or_default();
        let heartbeat = Heartbeat {
            readiness: readiness(self.mcp_server_present, self.model_present, self.loaded_mcp_tools)?,
            error_rate,
            sample_error: sample_error.clone(),
            active_tasks,
            uptime: uptime_seconds * 1_000,
            runtime_state: runtime_state.clone(),
            native_status: capabilities.status_mgmt.unwrap_or_default(),
        };
        let beat = Beat {
            workspace_id,
            token,
            error_rate,
            sample_error,
            active_tasks,
            uptime_seconds,
            current_task: sample(self.current_task),
            runtime_state,
        };
        Ok((beat, heartbeat))
    }
}

/// The beginning of a text that only people read.
fn sample(given: Option<String>) -> String {
    let mut text = given.unwrap_or_default();
    text.truncate(text.floor_char_boundary(MAX_SAMPLE));
    text
}

/// A text that means nothing once it is cut.
fn at_most(field: &str, bytes: usize, given: Option<String>) -> Answer<String> {
    match given.unwrap_or_default() {
        text if text.len() > bytes => {
            Err(Problem::field(field, text.into(), format!("at most {bytes} bytes")))
        }
        text => Ok(text),
    }
}

/// Heartbeat
///
/// Stores what the agent says of itself and judges the workspace by it. An
/// answered heartbeat is a stored heartbeat.
#[utoipa::path(
    post, path = "/registry/heartbeat", tag = "agents",
    request_body = HeartbeatBody,
    security(("agent" = [])),
    responses(
        (status = 200, body = HeartbeatAnswer),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`INVALID_FIELD`, `BAD_JSON`"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "Try again: storing it twice does no harm"),
    )
)]
pub(super) async fn heartbeat(
    State(registry): State<Arc<Registry>>,
    Bearer(token): Bearer,
    Payload(body): Payload<HeartbeatBody>,
) -> Answer<Json<HeartbeatAnswer>> {
    let (beat, heartbeat) = body.read(token)?;
    let id = beat.workspace_id.clone();
    match registry.heartbeats.take(beat, heartbeat).await? {
        Heard::Stored { status, decision_id } => {
            Ok(Json(HeartbeatAnswer { status: "ok", workspace_status: status, decision_id }))
        }
        Heard::Unknown => Err(Problem::no_workspace(&id)),
        Heard::Unauthorized => Err(no_token_of(&id)),
        Heard::Removed => Err(Problem::removed(&id)),
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct CardBody {
    #[schema(required)]
    workspace_id: Option<String>,
    /// Any JSON; replaces the card.
    agent_card: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Updated {
    #[schema(example = "updated")]
    status: &'static str,
}

/// Replace the agent card
#[utoipa::path(
    post, path = "/registry/update-card", tag = "agents",
    request_body = CardBody,
    security(("agent" = [])),
    responses(
        (status = 200, body = Updated),
        (status = 400, body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn update_card(
    State(registry): State<Arc<Registry>>,
    Bearer(token): Bearer,
    Payload(body): Payload<CardBody>,
) -> Answer<Json<Updated>> {
    let id = required("workspace_id", body.workspace_id)?;
    let _: Snapshot = registry.store.snapshot(&id).await?.ok_or_else(|| Problem::no_workspace(&id))?;
    if !is_one_of(&token, &registry.store.tokens(&id).await?) {
        return Err(no_token_of(&id));
    }
    if !registry.store.update_card(&id, &body.agent_card.unwrap_or_default()).await? {
        return Err(Problem::removed(&id));
    }
    registry.changed();
    Ok(Json(Updated { status: "updated" }))
}
