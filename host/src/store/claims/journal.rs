//! The journal: what a claim is about to do, and what became of it.

use super::types::{Begin, Begun, Claim, ClaimState, Effects, Hold, JournaledStep, StepState};
use super::{reason, status};
use crate::facts::Reason;
use crate::store::error::StoreError;
use crate::store::outbox::owe_stop;
use crate::store::pool::{Store, Tx};
use crate::store::rows::{At, count, text};
use crate::store::{events, tokens};

const NEXT_FENCE_OF_CLAIM: &str = "
    UPDATE workspaces SET fence_seq = fence_seq + 1 WHERE id = $1 AND claim_id = $2 AND claim_epoch = $3
    RETURNING fence_seq";

const NEXT_FENCE: &str = "
    UPDATE workspaces SET fence_seq = fence_seq + 1 WHERE id = $1 RETURNING claim_epoch, fence_seq";

const RENEW_AND_NAME: &str = "
    UPDATE claims SET lease_until = (SELECT now FROM clock) + $2,
        new_instance_id = COALESCE($3, new_instance_id),
        spoken = CASE WHEN COALESCE($3, new_instance_id) = new_instance_id THEN spoken END
    WHERE id = $1 AND state = 'open'";

/// A new box has said nothing yet; one whose start is tried again may have.
const SAID_NOTHING_YET: &str = concat!(
    "UPDATE workspaces SET reported = 0, registration_warnings = NULL, ",
    nothing_said!(),
    " WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM claims WHERE id = $2 AND new_instance_id = $3)"
);

const NEXT_NUMBER: &str = "SELECT COALESCE(MAX(number), 0) + 1 FROM claim_steps WHERE claim_id = $1";

const BEGIN: &str = "
    INSERT INTO claim_steps (claim_id, number, step, state, epoch, seq, begun_at)
    SELECT $1, $2, $3, 'begun', $4, $5, clock.now FROM clock";

const HOLD: &str = "
    UPDATE workspaces SET fence_seq = fence_seq WHERE id = $1 AND claim_id = $2 AND claim_epoch = $3
    RETURNING version";

const FINISH: &str = "
    UPDATE claim_steps SET state = $3, detail = $4, ended_at = (SELECT now FROM clock)
    WHERE claim_id = $1 AND number = $2";

const PUT_PROVIDER: &str = "UPDATE workspaces SET provider = $2, instance_id = NULL WHERE id = $1";

const BOX_GONE: &str = "UPDATE workspaces SET instance_id = NULL WHERE id = $1";

/// All but those of the claim's new box: also what an operator was handed.
const REVOKE_OLD: &str = "
    UPDATE tokens SET revoked_at = (SELECT now FROM clock)
    WHERE workspace_id = $1 AND revoked_at IS NULL AND COALESCE(instance_id, '') <> COALESCE(
        (SELECT new_instance_id FROM claims WHERE id = $2), '-')";

macro_rules! claim {
    () => {
        "SELECT id, workspace_id, parent_claim_id, kind, actor, prior_status, old_provider, old_instance_id,
        new_provider, new_instance_id, state, reason_code, reason_detail, decision_id, epoch, takeovers,
        created_at, ended_at FROM claims "
    };
}

const CLAIM: &str = concat!(claim!(), "WHERE id = $1");

/// In the order in which they were opened: ids are made by hosts' clocks.
const CLAIMS_OF: &str =
    concat!(claim!(), "WHERE workspace_id = $1 AND epoch < $2 ORDER BY epoch DESC LIMIT $3");

const EPOCH_OF: &str = "SELECT epoch FROM claims WHERE workspace_id = $1 AND id = $2";

const STEPS: &str = "
    SELECT number, step, state, epoch, seq, detail, begun_at, ended_at FROM claim_steps
    WHERE claim_id = $1 ORDER BY number";

impl Store {
    /// Journals that a step is about to be done, and draws the fence of its
    /// call. None: the claim is no longer this holder's.
    pub async fn begin_step(&self, hold: &Hold, begin: &Begin<'_>) -> Result<Option<Begun>, StoreError> {
        let mut tx = self.begin().await?;
        let (id, claim, epoch) = (text(&hold.workspace_id), text(&hold.claim_id), count(hold.epoch));
        let fence =
            fetch_optional!(tx.on(), (i64,), NEXT_FENCE_OF_CLAIM, id.as_ref(), claim.as_ref(), epoch)?;
        let Some((seq,)) = fence else { return Ok(None) };
        let named = begin.new_box.map(|(instance, _)| instance);
        if let Some(instance) = named {
            execute!(tx.on(), SAID_NOTHING_YET, id.as_ref(), claim.as_ref(), instance)?;
        }
        if execute!(tx.on(), RENEW_AND_NAME, claim.as_ref(), count(begin.lease_ms), named)? == 0 {
            tx.roll_back().await?;
            return Ok(None);
        }
        if let Some((instance, token)) = begin.new_box {
            tokens::insert_for_box(&mut tx, &id, token, instance).await?;
        }
        let number = fetch_optional!(tx.on(), (i64,), NEXT_NUMBER, claim.as_ref())?;
        let number = number.map_or(1, |(number,)| number);
        execute!(tx.on(), BEGIN, claim.as_ref(), number, begin.step, epoch, seq)?;
        tx.commit().await?;
        let seq = At { table: "workspaces", id: &id }.number("fence_seq", seq)?;
        Ok(Some(Begun { number, seq }))
    }

    /// Journals what became of a step, with what it changed. False: the claim
    /// is no longer this holder's, and nothing is written.
    pub async fn finish_step(
        &self,
        hold: &Hold,
        number: i64,
        state: StepState,
        detail: Option<&str>,
        effects: &Effects<'_>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let (id, claim, epoch) = (text(&hold.workspace_id), text(&hold.claim_id), count(hold.epoch));
        let held = fetch_optional!(tx.on(), (i64,), HOLD, id.as_ref(), claim.as_ref(), epoch)?;
        let Some((version,)) = held else { return Ok(false) };
        execute!(tx.on(), FINISH, claim.as_ref(), number, state.as_str(), detail.map(text))?;
        apply(&mut tx, hold, version, effects).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A fence for a call that belongs to no claim. None: no such workspace.
    pub async fn next_fence(&self, workspace_id: &str) -> Result<Option<(u64, u64)>, StoreError> {
        let row = fetch_optional!(self.write(), (i64, i64), NEXT_FENCE, text(workspace_id))?;
        let at = At { table: "workspaces", id: workspace_id };
        row.map(|(epoch, seq)| Ok((at.number("claim_epoch", epoch)?, at.number("fence_seq", seq)?)))
            .transpose()
    }

    /// A claim with its journal.
    pub async fn claim(&self, id: &str) -> Result<Option<Claim>, StoreError> {
        match fetch_optional!(self.read(), ClaimRow, CLAIM, text(id))? {
            Some(row) => Ok(Some(self.with_steps(row).await?)),
            None => Ok(None),
        }
    }

    /// A workspace's claims, newest first; `before` is the last id of the page before.
    pub async fn claims_of(
        &self,
        workspace_id: &str,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        let id = text(workspace_id);
        let before = match before {
            Some(before) => {
                let found = fetch_optional!(self.read(), (i64,), EPOCH_OF, id.as_ref(), text(before))?;
                found.ok_or_else(|| StoreError::BadCursor(before.to_owned()))?.0
            }
            None => i64::MAX,
        };
        let rows = fetch_all!(self.read(), ClaimRow, CLAIMS_OF, id, before, i64::from(limit))?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            claims.push(self.with_steps(row).await?);
        }
        Ok(claims)
    }

    async fn with_steps(&self, row: ClaimRow) -> Result<Claim, StoreError> {
        let steps = fetch_all!(self.read(), StepRow, STEPS, text(&row.id))?;
        let at = At { table: "claim_steps", id: &row.id };
        let steps = steps.into_iter().map(|step| step.read(at)).collect::<Result<_, _>>()?;
        row.read(steps)
    }
}

async fn apply(tx: &mut Tx, hold: &Hold, version: i64, effects: &Effects<'_>) -> Result<(), StoreError> {
    let id = text(&hold.workspace_id);
    if let Some(provider) = effects.provider {
        execute!(tx.on(), PUT_PROVIDER, id.as_ref(), provider.map(text))?;
    }
    if effects.box_gone {
        execute!(tx.on(), BOX_GONE, id.as_ref())?;
        execute!(tx.on(), REVOKE_OLD, id.as_ref(), text(&hold.claim_id))?;
    }
    if let Some(left) = effects.left {
        events::record_left_box(tx, &id, version, left).await?;
        owe_stop(tx, &id, left).await?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    id: String,
    workspace_id: String,
    parent_claim_id: Option<String>,
    kind: String,
    actor: String,
    prior_status: String,
    old_provider: Option<String>,
    old_instance_id: Option<String>,
    new_provider: Option<String>,
    new_instance_id: Option<String>,
    state: String,
    reason_code: Option<String>,
    reason_detail: Option<String>,
    decision_id: Option<String>,
    epoch: i64,
    takeovers: i64,
    created_at: i64,
    ended_at: Option<i64>,
}

impl ClaimRow {
    fn read(self, steps: Vec<JournaledStep>) -> Result<Claim, StoreError> {
        let at = At { table: "claims", id: &self.id };
        let state = self.state.parse::<ClaimState>();
        // What a later version calls it is shown all the same.
        let unknown = state.as_ref().err().map(|_| Reason::new("unknown-state", self.state.as_str()));
        Ok(Claim {
            state: state.unwrap_or(ClaimState::Unknown),
            prior_status: status(at, &self.prior_status)?,
            epoch: at.number("epoch", self.epoch)?,
            takeovers: at.number("takeovers", self.takeovers)?,
            created_at: at.number("created_at", self.created_at)?,
            ended_at: self.ended_at.map(|t| at.number("ended_at", t)).transpose()?,
            workspace_id: self.workspace_id,
            parent_claim_id: self.parent_claim_id,
            kind: self.kind,
            actor: self.actor,
            reason: reason(self.reason_code, self.reason_detail).or(unknown),
            decision_id: self.decision_id,
            old_provider: self.old_provider,
            old_instance_id: self.old_instance_id,
            new_provider: self.new_provider,
            new_instance_id: self.new_instance_id,
            steps,
            id: self.id,
        })
    }
}

#[derive(sqlx::FromRow)]
struct StepRow {
    number: i64,
    step: String,
    state: String,
    epoch: i64,
    seq: i64,
    detail: Option<String>,
    begun_at: i64,
    ended_at: Option<i64>,
}

impl StepRow {
    fn read(self, at: At<'_>) -> Result<JournaledStep, StoreError> {
        let state = self.state.parse::<StepState>();
        let unknown = state.as_ref().err().map(|_| self.state.as_str());
        let detail = match (unknown, self.detail) {
            (Some(state), Some(detail)) => Some(format!("{state}: {detail}")),
            (Some(state), None) => Some(state.to_owned()),
            (None, detail) => detail,
        };
        Ok(JournaledStep {
            state: state.unwrap_or(StepState::Unknown),
            epoch: at.number("epoch", self.epoch)?,
            seq: at.number("seq", self.seq)?,
            begun_at: at.number("begun_at", self.begun_at)?,
            ended_at: self.ended_at.map(|t| at.number("ended_at", t)).transpose()?,
            step: self.step,
            detail,
            number: self.number,
        })
    }
}
