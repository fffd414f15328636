//! The guarded step: the one place that writes a status.
//!
//! Each write names the version that was judged. The first that changes no row
//! rolls back the whole transaction, with every event, decision and token that
//! was in it.

use std::borrow::Cow;

use super::error::StoreError;
use super::pool::{Executor, On, Store, Tx};
use super::reported::Reported;
use super::rows::{count, optional_text, text};
use super::types::{Commit, Down, Registration, Step};
use super::workspaces::PUT_CARD;
use super::{brakes, claims, decisions, events, outbox, tokens};
use crate::facts::{Action, Decision, Fate, Reason};
use crate::machine::{Move, Status};

/// What comes to life counts its idle time from then.
const MOVE: &str = "
    UPDATE workspaces SET status = $4, version = version + 1, status_since = (SELECT now FROM clock),
        busy_at = CASE WHEN $4 IN ('online', 'degraded') AND status NOT IN ('online', 'degraded')
            THEN (SELECT now FROM clock) ELSE busy_at END,
        down_at = CASE WHEN $4 IN ('offline', 'failed') THEN 0 ELSE down_at END
    WHERE id = $1 AND version = $2 AND status = $3 AND claim_id IS NULL";

/// [`MOVE`] by a sweep: `$5` and `$6` are -1 and '' where there is none. Taken at
/// `$8`: what was distrusted since is no evidence, nor is it by a clock that is before it.
const MOVE_IF_STILL: &str = "
    UPDATE workspaces SET status = $4, version = version + 1, status_since = (SELECT now FROM clock),
        down_at = 0
    WHERE id = $1 AND version = $2 AND status = $3 AND claim_id IS NULL
    AND COALESCE(last_heartbeat_at, -1) = $5 AND COALESCE(instance_id, '') = $6
    AND (SELECT now FROM clock) BETWEEN $8 AND $7 AND (SELECT trusted_from FROM fleet) <= $8";

/// A removal wins over an open claim.
const REMOVE: &str = "
    UPDATE workspaces SET status = $4, version = version + 1, status_since = (SELECT now FROM clock)
    WHERE id = $1 AND version = $2 AND status = $3";

/// The guard of a step that only owes something. It takes the row, so that of two such steps one comes first.
const AS_JUDGED: &str =
    "UPDATE workspaces SET version = version WHERE id = $1 AND version = $2 RETURNING version";

/// Also the guard of a registration that moves nothing. What the agent's process before this one said is no word of it.
const REGISTER: &str = concat!(
    "UPDATE workspaces SET url = COALESCE($3, url), reported = $4, registration_warnings = $5, ",
    nothing_said!(),
    " WHERE id = $1 AND version = $2 AND status <> 'removed'"
);

/// A child that no longer has a parent. Its descendants need no look: what was
/// removed before took its own with it.
const ORPHAN: &str = "SELECT id FROM workspaces WHERE parent_id = $1 AND status <> 'removed' LIMIT 1";

/// A removed row whose parent is not: it was moved out of the tree that is removed.
const STRAY: &str = "
    SELECT child.id FROM workspaces AS child LEFT JOIN workspaces AS parent ON parent.id = child.parent_id
    WHERE child.id = $1 AND COALESCE(parent.status, '') <> 'removed'";

/// Postgres: takes the rows in one order, so that two commits do not deadlock.
const LOCK_ROWS: &str = "SELECT id FROM workspaces WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

impl Store {
    /// Applies all steps in one transaction, or none.
    pub async fn commit(&self, steps: &[Step]) -> Result<Commit, StoreError> {
        match self.try_commit(steps).await {
            Err(e) if e.lost_to_another() => Ok(Commit::Outran),
            other => other,
        }
    }

    async fn try_commit(&self, steps: &[Step]) -> Result<Commit, StoreError> {
        let mut tx = self.begin().await?;
        lock_rows(&mut tx, steps).await?;
        for step in steps {
            let applied = apply(&mut tx, step).await?;
            if applied != Commit::Done {
                tx.roll_back().await?;
                return Ok(applied);
            }
        }
        if orphans(&mut tx, steps).await? || strays(&mut tx, steps).await? {
            tx.roll_back().await?;
            return Ok(Commit::Outran);
        }
        tx.commit().await?;
        Ok(Commit::Done)
    }
}

async fn lock_rows(tx: &mut Tx, steps: &[Step]) -> Result<(), StoreError> {
    let guarded = steps.iter().filter(|step| step.transition.is_some() || step.registration.is_some());
    let ids: Vec<_> = guarded.map(|step| text(&step.workspace_id)).collect();
    if ids.len() > 1
        && let Executor { db: On::Postgres(db), outcome } = tx.on()
    {
        outcome.of(sqlx::query(LOCK_ROWS).bind(ids).execute(db).await, |_| false)?;
    }
    Ok(())
}

async fn apply(tx: &mut Tx, step: &Step) -> Result<Commit, StoreError> {
    let mut version = step.version;
    if let Some(transition) = &step.transition {
        if !moved(tx, step, &transition.0).await? {
            return Ok(Commit::Outran);
        }
        if let Some(Down { provider, limits }) = step.still.as_ref().and_then(|still| still.down.as_ref())
            && brakes::take(tx, provider.as_deref(), limits).await?.is_some()
        {
            return Ok(Commit::Braked);
        }
        version += 1;
        if transition.0.to() == Status::Removed {
            claims::supersede(tx, &step.workspace_id).await?;
        }
        let decision_id = step.decision.as_ref().map(|decision| decision.id.as_str());
        events::record_move(tx, &step.workspace_id, version, transition, decision_id).await?;
        if let Some((claim, facts)) = &step.claim
            && !claims::open(tx, claim, facts, decision_id).await?
        {
            return Ok(Commit::Outran);
        }
    }
    if let Some(registration) = &step.registration {
        let registered = register(tx, &step.workspace_id, version, registration).await?;
        if registered != Commit::Done {
            return Ok(registered);
        }
    }
    // After the row is held: a claim that ends the token holds it as well. Whoever was
    // just handed the first one has been looked at.
    let writes = step.transition.is_some() || step.registration.is_some();
    let first = step.registration.as_ref().is_some_and(|registration| registration.first_token.is_some());
    if let Some(credential) = step.credential.filter(|_| writes && !first)
        && !tokens::may_speak(tx, &step.workspace_id, credential).await?
    {
        return Ok(Commit::TokenDead);
    }
    if step.transition.is_none() && step.registration.is_none() && !step.owes.is_empty() {
        // Nothing else of this step looks whether the row is as it was judged.
        let id = text(&step.workspace_id);
        if fetch_optional!(tx.on(), (i64,), AS_JUDGED, id, step.version)?.is_none() {
            return Ok(Commit::Outran);
        }
    }
    let lost = owe_all(tx, step, version).await?;
    match &step.decision {
        Some(decision) if lost.is_empty() => decisions::record(tx, decision).await?,
        Some(decision) => decisions::record(tx, &without(decision, &lost)).await?,
        None => {}
    }
    Ok(Commit::Done)
}

/// Writes what a step owes; the actions that somebody else has fired meanwhile.
async fn owe_all(tx: &mut Tx, step: &Step, version: i64) -> Result<Vec<Action>, StoreError> {
    let decision_id = step.decision.as_ref().map(|decision| decision.id.as_str());
    let mut lost = Vec::new();
    for owes in &step.owes {
        if !outbox::owe_action(tx, &step.workspace_id, version, owes, decision_id).await? {
            lost.push(owes.action.clone());
        }
    }
    Ok(lost)
}

/// The decision as it turned out.
fn without(decision: &Decision, lost: &[Action]) -> Decision {
    let mut decision = decision.clone();
    for asked in decision.actions.iter_mut().filter(|asked| lost.contains(&asked.action)) {
        let detail = "another step has just set it in motion";
        asked.fate = Fate::NotNow { reason: Reason::new("fired-meanwhile", detail) };
    }
    decision
}

async fn moved(tx: &mut Tx, step: &Step, to: &Move) -> Result<bool, StoreError> {
    if let Some(still) = &step.still {
        let changed = execute!(
            tx.on(),
            MOVE_IF_STILL,
            text(&step.workspace_id),
            step.version,
            to.from().as_str(),
            to.to().as_str(),
            still.last_heartbeat_at.map_or(-1, count),
            still.instance_id.as_deref().map_or(Cow::Borrowed(""), text),
            count(still.until),
            count(still.taken_at),
        )?;
        return Ok(changed == 1);
    }
    let changed = execute!(
        tx.on(),
        if to.to() == Status::Removed { REMOVE } else { MOVE },
        text(&step.workspace_id),
        step.version,
        to.from().as_str(),
        to.to().as_str()
    )?;
    Ok(changed == 1)
}

async fn register(
    tx: &mut Tx,
    id: &str,
    version: i64,
    registration: &Registration,
) -> Result<Commit, StoreError> {
    let (url, warnings) = (optional_text(&registration.url), optional_text(&registration.warnings));
    let reported = Reported::from(&registration.readiness).said;
    if execute!(tx.on(), REGISTER, text(id), version, url, reported, warnings)? == 0 {
        return Ok(Commit::Outran);
    }
    if let Some(card) = &registration.agent_card {
        execute!(tx.on(), PUT_CARD, text(id), card.to_string())?;
    }
    if let Some(token) = &registration.first_token
        && !tokens::insert_first(tx, id, token).await?
    {
        return Ok(Commit::TokenTaken);
    }
    Ok(Commit::Done)
}

/// Whether a removal of `steps` leaves a child behind that it did not know of.
async fn orphans(tx: &mut Tx, steps: &[Step]) -> Result<bool, StoreError> {
    for step in steps {
        if removes(step) && fetch_optional!(tx.on(), (String,), ORPHAN, text(&step.workspace_id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a removal of `steps`, the root first, takes a row along that has
/// meanwhile been moved elsewhere.
async fn strays(tx: &mut Tx, steps: &[Step]) -> Result<bool, StoreError> {
    for step in steps.iter().skip(1) {
        if removes(step) && fetch_optional!(tx.on(), (String,), STRAY, text(&step.workspace_id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn removes(step: &Step) -> bool {
    step.transition.as_ref().is_some_and(|(to, _)| to.to() == Status::Removed)
}
