//! What operators are shown, and agents of themselves: the store's rows with
//! times that people can read (RFC 3339, UTC, milliseconds).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::clock::rfc3339;
use crate::facts::Reason;
use crate::machine::Status;
use crate::store::{
    BoundModule, Claim, ClaimState, Effect, EffectState, Event, JournaledStep, RevisionRow, StepState,
    WorkspaceView,
};

/// A workspace, as its own agent may know it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OwnWorkspace {
    id: String,
    name: String,
    kind: String,
    runtime: String,
    #[schema(value_type = String)]
    status: Status,
    #[schema(format = DateTime)]
    status_since: String,
    /// +1 at every change of status.
    version: i64,
    parent_id: Option<String>,
    /// Whether something above it is paused.
    ancestor_paused: bool,
    tier: Option<String>,
    persistent_volume: bool,
    hibernation_idle_minutes: Option<u32>,
    #[schema(format = DateTime)]
    created_at: String,
    url: Option<String>,
    agent_card: Option<Value>,
    #[schema(format = DateTime)]
    last_heartbeat_at: Option<String>,
    error_rate: f64,
    sample_error: String,
    active_tasks: u32,
    uptime_seconds: u64,
    current_task: String,
    runtime_state: String,
    /// What of the last registration and heartbeat was not taken as it was said: the field,
    /// its value, what was taken for it, and what would have been right.
    warnings: Vec<Value>,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkspaceBody {
    #[serde(flatten)]
    own: OwnWorkspace,
    provider: Option<String>,
    instance_id: Option<String>,
    /// The claim that is open on it: `GET /claims/{id}`.
    claim_id: Option<String>,
    labels: BTreeMap<String, String>,
}

/// A workspace: whole for operators, for its own agent without what is theirs.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ReadBody {
    Whole(WorkspaceBody),
    Own(OwnWorkspace),
}

impl PartialSchema for ReadBody {
    fn schema() -> RefOr<Schema> {
        // Not one of: whatever is the first is the second as well.
        let either = [WorkspaceBody::name(), OwnWorkspace::name()].map(Ref::from_schema_name);
        either.into_iter().fold(AnyOfBuilder::new(), AnyOfBuilder::item).into()
    }
}

impl ToSchema for ReadBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        for (name, schema) in
            [(WorkspaceBody::name(), WorkspaceBody::schema()), (OwnWorkspace::name(), OwnWorkspace::schema())]
        {
            schemas.push((name.into_owned(), schema));
        }
    }
}

impl From<WorkspaceView> for OwnWorkspace {
    fn from(view: WorkspaceView) -> Self {
        let facts = view.workspace;
        Self {
            id: facts.id,
            name: view.name,
            kind: facts.kind,
            runtime: facts.runtime,
            status: facts.status,
            status_since: rfc3339(facts.status_since),
            version: view.version,
            parent_id: view.parent_id,
            ancestor_paused: facts.ancestor_paused,
            tier: view.tier,
            persistent_volume: facts.persistent_volume,
            hibernation_idle_minutes: view.hibernation_idle_minutes,
            created_at: rfc3339(view.created_at),
            url: view.url,
            agent_card: view.agent_card,
            last_heartbeat_at: facts.last_heartbeat_at.map(rfc3339),
            error_rate: view.error_rate,
            sample_error: view.sample_error,
            active_tasks: facts.active_tasks,
            uptime_seconds: view.uptime_seconds,
            current_task: view.current_task,
            runtime_state: view.runtime_state,
            warnings: view.warnings,
        }
    }
}

impl From<WorkspaceView> for WorkspaceBody {
    fn from(mut view: WorkspaceView) -> Self {
        Self {
            provider: view.workspace.provider.take(),
            instance_id: view.workspace.instance_id.take(),
            claim_id: view.claim_id.take(),
            labels: std::mem::take(&mut view.workspace.labels),
            own: view.into(),
        }
    }
}

/// One line of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventBody {
    /// Its place in the log.
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    /// Null: it is the whole fleet's.
    pub(super) workspace_id: Option<String>,
    /// The row's version from this event on; 0 where it is the whole fleet's.
    version: i64,
    #[schema(value_type = Option<String>)]
    from: Option<Status>,
    #[schema(value_type = Option<String>)]
    to: Option<Status>,
    cause: String,
    reason: Option<Reason>,
    decision_id: Option<String>,
    #[schema(format = DateTime)]
    at: String,
}

impl From<Event> for EventBody {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            event_type: event.event_type,
            workspace_id: event.workspace_id,
            version: event.version,
            from: event.from,
            to: event.to,
            cause: event.cause,
            reason: event.reason,
            decision_id: event.decision_id,
            at: rfc3339(event.at),
        }
    }
}

/// A revision of the policies.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevisionBody {
    number: i64,
    #[schema(format = DateTime)]
    created_at: String,
    /// Where it came from: `dir` or `api`.
    source: String,
    /// Equal means the same rules.
    fingerprint: String,
    /// In the order in which they are asked.
    modules: Vec<BoundModule>,
    active: bool,
    #[schema(format = DateTime)]
    activated_at: Option<String>,
}

impl From<RevisionRow> for RevisionBody {
    fn from(row: RevisionRow) -> Self {
        Self {
            number: row.number,
            created_at: rfc3339(row.created_at),
            source: row.source,
            fingerprint: row.fingerprint,
            modules: row.modules,
            active: row.active,
            activated_at: row.activated_at.map(rfc3339),
        }
    }
}

/// A claim: a command under way, or what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClaimBody {
    pub(super) id: String,
    workspace_id: String,
    /// The claim that took this one along.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_claim_id: Option<String>,
    /// `restart`, `switch_provider`, `pause`, `resume`, `wake`, `hibernate`, or `create`.
    kind: String,
    actor: String,
    state: ClaimState,
    /// Why it did not commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The decision that let it be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    #[schema(value_type = String)]
    prior_status: Status,
    old_provider: Option<String>,
    old_instance_id: Option<String>,
    new_provider: Option<String>,
    new_instance_id: Option<String>,
    /// Grows with every claim and every takeover of the workspace.
    epoch: u64,
    /// How often another host took it over.
    takeovers: u32,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    steps: Vec<StepBody>,
}

/// One line of a claim's journal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepBody {
    step: String,
    state: StepState,
    /// `EPOCH.SEQ`, of its call to a provider.
    fence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[schema(format = DateTime)]
    begun_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
}

impl From<Claim> for ClaimBody {
    fn from(claim: Claim) -> Self {
        Self {
            id: claim.id,
            workspace_id: claim.workspace_id,
            parent_claim_id: claim.parent_claim_id,
            kind: claim.kind,
            actor: claim.actor,
            state: claim.state,
            reason: claim.reason,
            decision_id: claim.decision_id,
            prior_status: claim.prior_status,
            old_provider: claim.old_provider,
            old_instance_id: claim.old_instance_id,
            new_provider: claim.new_provider,
            new_instance_id: claim.new_instance_id,
            epoch: claim.epoch,
            takeovers: claim.takeovers,
            created_at: rfc3339(claim.created_at),
            ended_at: claim.ended_at.map(rfc3339),
            steps: claim.steps.into_iter().map(StepBody::from).collect(),
        }
    }
}

impl From<JournaledStep> for StepBody {
    fn from(line: JournaledStep) -> Self {
        Self {
            step: line.step,
            state: line.state,
            fence: format!("{}.{}", line.epoch, line.seq),
            detail: line.detail,
            begun_at: rfc3339(line.begun_at),
            ended_at: line.ended_at.map(rfc3339),
        }
    }
}

/// What a committed step owes the world.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EffectBody {
    id: String,
    workspace_id: String,
    /// `reconcile_plugins`, `restart`, `stop_instance`, `notify`, or `stop` (of a box that was left).
    kind: String,
    state: EffectState,
    /// What is to be done, and why.
    body: Value,
    /// Deliveries so far.
    attempts: u32,
    #[schema(format = DateTime)]
    due_at: String,
    last_error: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
}

impl From<Effect> for EffectBody {
    fn from(effect: Effect) -> Self {
        Self {
            id: effect.id,
            workspace_id: effect.workspace_id,
            kind: effect.kind,
            state: effect.state,
            body: effect.body,
            attempts: effect.attempts,
            due_at: rfc3339(effect.due_at),
            last_error: effect.last_error,
            created_at: rfc3339(effect.created_at),
            ended_at: effect.ended_at.map(rfc3339),
        }
    }
}
