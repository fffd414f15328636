//! What operators are shown: the store's rows with times that people can read
//! (RFC 3339, UTC, milliseconds).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::facts::{Reason, Timestamp};
use crate::machine::Status;
use crate::store::{BoundModule, Event, RevisionRow, WorkspaceView};

/// `2026-11-21T21:43:12.000Z`.
pub(super) fn rfc3339(at: Timestamp) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| at.to_string(), |at| format!("{at:.3}"))
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkspaceBody {
    id: String,
    name: String,
    kind: String,
    runtime: String,
    provider: Option<String>,
    instance_id: Option<String>,
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
    labels: BTreeMap<String, String>,
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
}

impl From<WorkspaceView> for WorkspaceBody {
    fn from(view: WorkspaceView) -> Self {
        let facts = view.workspace;
        Self {
            id: facts.id,
            name: view.name,
            kind: facts.kind,
            runtime: facts.runtime,
            provider: facts.provider,
            instance_id: facts.instance_id,
            status: facts.status,
            status_since: rfc3339(facts.status_since),
            version: view.version,
            parent_id: view.parent_id,
            ancestor_paused: facts.ancestor_paused,
            tier: view.tier,
            labels: facts.labels,
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
    pub(super) workspace_id: String,
    /// The row's version from this event on.
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
