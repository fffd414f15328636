//! The conformance suite of the store: every test runs on SQLite and on
//! Postgres, and expects the same of both.

mod beats;
mod broken;
mod commit;
mod connect;
mod events;
mod outbox;
mod policies;
mod removal;
mod sweeps;
mod workspaces;

use serde_json::json;
use sprag::facts::{Cause, Decision, Outcome, Question, Readiness, Reason};
use sprag::machine::{CauseKind, Move, Status};
use sprag::store::{Beat, Commit, Registration, Reported, Snapshot, Step, Store};

use crate::support::db::token_of;

/// The move from `from` to `to`, which must be in the table.
fn to(from: Status, to: Status, cause: CauseKind) -> (Move, Reason) {
    let edge = from.edge(cause, "claude-code").expect("an edge of the table");
    (edge.to(to).expect("a target of the edge"), Reason::new("test", "because the test says so"))
}

/// A step that moves `id` from `from` to `target`, judged at `version`, with a decision.
fn step(id: &str, version: i64, from: Status, target: Status, cause: CauseKind) -> Step {
    Step { transition: Some(to(from, target, cause)), ..Step::of(id, version) }
}

/// `provisioning` → `online`, judged at version 1.
fn first_online(id: &str) -> Step {
    step(id, 1, Status::Provisioning, Status::Online, CauseKind::Heartbeat)
}

/// The removal of a row as it was read.
fn removal(read: &Snapshot) -> Step {
    step(&read.workspace.id, read.version, read.workspace.status, Status::Removed, CauseKind::Remove)
}

/// A decision about the row as it was read, which held.
fn decision(id: &str, read: &Snapshot) -> Decision {
    Decision {
        format: Decision::FORMAT.to_owned(),
        id: id.to_owned(),
        row_version: read.version,
        revision: 3,
        question: Question {
            now: read.now,
            workspace: read.workspace.clone(),
            cause: Cause::Silence { for_: 90_000 },
            candidates: vec![Status::Offline],
        },
        votes: Vec::new(),
        recovery: Vec::new(),
        actions: Vec::new(),
        outcome: Outcome::Held { denials: Vec::new() },
    }
}

fn registration(first_token: Option<&str>) -> Registration {
    Registration {
        url: Some("http://10.0.0.7:8000/\"'".to_owned()),
        agent_card: Some(json!({ "name": "héron", "skills": [1.5, null, "'; DROP TABLE workspaces; --"] })),
        readiness: Readiness::default(),
        warnings: None,
        first_token: first_token.map(token_of),
    }
}

/// A heartbeat of `id` with its own token.
fn beat(id: &str) -> Beat {
    Beat {
        workspace_id: id.to_owned(),
        token: token_of(id),
        open: false,
        error_rate: Some(0.25),
        sample_error: Some("connection reset".to_owned()),
        active_tasks: Some(3),
        uptime_seconds: Some(77),
        current_task: Some("reading".to_owned()),
        runtime_state: Some("wedged".to_owned()),
        reported: Reported::default(),
        warnings: None,
    }
}

async fn read(store: &Store, id: &str) -> Snapshot {
    store.snapshot(id).await.expect("reading the row").expect("the row is there")
}

/// Removes `id` and all below it, as the rows stand now.
async fn remove(store: &Store, id: &str) -> Commit {
    let rows = store.subtree(id).await.expect("reading the subtree");
    let steps: Vec<_> = rows.iter().map(removal).collect();
    store.commit(&steps).await.expect("committing")
}
