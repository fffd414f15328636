//! Claims: opened within the guarded step, taken over when their lease lapsed,
//! ended by whoever holds them.
//!
//! The row is the lock: every write of a claim first changes its workspace,
//! `WHERE claim_id = … AND claim_epoch = …`, and then the claim. So two hosts
//! can't both hold one, and all transactions take their rows in one order.

mod below;
mod journal;
mod types;

pub use types::{
    Begin, Begun, Claim, ClaimKind, ClaimState, Effects, Ended, Ending, Hold, JournaledStep, NewClaim,
    OwedStop, StepState, UnknownState,
};

use sqlx::AssertSqlSafe;

use super::error::StoreError;
use super::events;
use super::pool::{Store, Tx};
use super::rows::{At, count, optional_text, text};
use crate::facts::{Reason, Workspace};
use crate::machine::Status;

use super::outbox::owe_stop;

const OPEN_ROW: &str = "
    UPDATE workspaces SET claim_id = $2, claim_epoch = claim_epoch + 1, fence_seq = 0 WHERE id = $1
    RETURNING claim_epoch";

const OPEN: &str = "
    INSERT INTO claims (id, workspace_id, parent_claim_id, kind, actor, prior_status, old_provider,
        old_instance_id, new_provider, state, decision_id, epoch, owner, lease_until, created_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', $10, $11, $12, clock.now + $13, clock.now FROM clock";

const SUPERSEDED_ROW: &str = "
    UPDATE workspaces SET claim_id = NULL, claim_epoch = claim_epoch + 1, fence_seq = 0, instance_id = NULL
    WHERE id = $1";

const SUPERSEDED: &str = "
    UPDATE claims SET state = 'superseded', ended_at = (SELECT now FROM clock),
        reason_code = 'workspace-removed'
    WHERE workspace_id = $1 AND state = 'open'
    RETURNING old_provider, old_instance_id, new_provider, new_instance_id";

const BOX_OF: &str = "SELECT provider, instance_id FROM workspaces WHERE id = $1";

/// Nothing about the claim was written by a version that this one does not understand.
fn understood(steps: &[&str]) -> String {
    let listed = |names: &[&str]| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    format!(
        "kind IN ({}) AND NOT EXISTS (SELECT 1 FROM claim_steps AS s WHERE s.claim_id = claims.id
            AND (s.step NOT IN ({}) OR s.state NOT IN ({})))",
        listed(&ClaimKind::ALL.map(ClaimKind::as_str)),
        listed(steps),
        listed(&StepState::ALL.map(StepState::as_str)),
    )
}

const TAKE_ROW: &str = "
    UPDATE workspaces SET claim_epoch = claim_epoch + 1, fence_seq = 0
    WHERE id = $1 AND claim_id = $2 AND claim_epoch = $3 RETURNING claim_epoch";

/// The lease is looked at once more: its owner may have renewed it.
const TAKE: &str = "
    UPDATE claims SET epoch = $2, owner = $3, takeovers = takeovers + 1,
        lease_until = (SELECT now FROM clock) + $4
    WHERE id = $1 AND state = 'open' AND lease_until < (SELECT now FROM clock)";

const RENEW: &str = "
    UPDATE claims SET lease_until = (SELECT now FROM clock) + $3
    WHERE id = $1 AND epoch = $2 AND state = 'open'";

const SPEAK: &str = "
    UPDATE claims SET spoken = $2 WHERE id = $1 AND state = 'open' AND EXISTS (
        SELECT 1 FROM tokens AS t
        WHERE t.hash = $3 AND t.revoked_at IS NULL AND t.instance_id = claims.new_instance_id
    )";

/// A boot counts from here, where its box has been started: what came before was
/// the old box's stop.
const END_ROW: &str = "
    UPDATE workspaces SET claim_id = NULL, provider = $4, instance_id = $5,
        status_since = CASE WHEN status = 'provisioning' THEN (SELECT now FROM clock) ELSE status_since END
    WHERE id = $1 AND claim_id = $2 AND claim_epoch = $3 RETURNING version";

const END_ROW_MOVED: &str = "
    UPDATE workspaces SET claim_id = NULL, provider = $4, instance_id = $5, status = $6,
        version = version + 1, status_since = (SELECT now FROM clock), down_at = 0
    WHERE id = $1 AND claim_id = $2 AND claim_epoch = $3 AND status = $7
    RETURNING version";

const END: &str = "
    UPDATE claims SET state = $2, ended_at = (SELECT now FROM clock), reason_code = $3, reason_detail = $4
    WHERE id = $1 AND state = 'open' RETURNING spoken";

/// Those of no box stay, unless `$3`.
const REVOKE_OTHERS: &str = "
    UPDATE tokens SET revoked_at = (SELECT now FROM clock)
    WHERE workspace_id = $1 AND revoked_at IS NULL AND (instance_id IS NOT NULL OR $3)
    AND COALESCE(instance_id, '') <> COALESCE($2, '-')";

const IS_OPEN: &str = "SELECT id FROM claims WHERE id = $1 AND epoch = $2 AND state = 'open'";

/// Opens `new` on a row that `tx` has just moved (or made), as `facts` was before.
/// False: the claim that would take it along is over, or another's.
pub(super) async fn open(
    tx: &mut Tx,
    new: &NewClaim,
    facts: &Workspace,
    decision_id: Option<&str>,
) -> Result<bool, StoreError> {
    if let Some((parent, epoch)) = &new.parent
        && fetch_optional!(tx.on(), (String,), IS_OPEN, text(parent), count(*epoch))?.is_none()
    {
        return Ok(false);
    }
    let row = fetch_optional!(tx.on(), (i64,), OPEN_ROW, text(&facts.id), text(&new.id))?;
    let epoch = row.map_or(1, |(epoch,)| epoch);
    let new_provider = new.target_provider.as_ref().or(facts.provider.as_ref());
    execute!(
        tx.on(),
        OPEN,
        text(&new.id),
        text(&facts.id),
        new.parent.as_ref().map(|(parent, _)| text(parent)),
        new.kind.as_str(),
        text(&new.actor),
        facts.status.as_str(),
        optional_text(&facts.provider),
        optional_text(&facts.instance_id),
        new_provider.map(|p| text(p)),
        decision_id,
        epoch,
        new.owner.as_str(),
        count(new.lease_ms),
    )?;
    Ok(true)
}

type Boxes = (Option<String>, Option<String>, Option<String>, Option<String>);

/// The removal of `id` wins over its open claim, and owes a stop for whatever box there is.
pub(super) async fn supersede(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    let own = fetch_optional!(tx.on(), (Option<String>, Option<String>), BOX_OF, text(id))?;
    execute!(tx.on(), SUPERSEDED_ROW, text(id))?;
    let mut owed = Vec::new();
    owed.extend(own.and_then(|(provider, instance)| stop_of(provider, instance)));
    if let Some((old, old_box, new, new_box)) = fetch_optional!(tx.on(), Boxes, SUPERSEDED, text(id))? {
        owed.extend(stop_of(old, old_box));
        owed.extend(stop_of(new, new_box));
    }
    owed.dedup();
    for stop in &owed {
        owe_stop(tx, id, stop).await?;
    }
    Ok(())
}

fn stop_of(provider: Option<String>, instance_id: Option<String>) -> Option<OwedStop> {
    Some(OwedStop { provider: provider?, instance_id: instance_id? })
}

impl Store {
    /// Open claims whose lease lapsed, the oldest first. Those of a kind, or with a
    /// step, that this version does not know are left to hosts that do; `steps` are
    /// the names of those that it does.
    pub async fn lapsed_claims(&self, steps: &[&str], limit: u32) -> Result<Vec<Hold>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT id, workspace_id, epoch FROM claims
            WHERE state = 'open' AND lease_until < (SELECT now FROM clock) AND {}
            ORDER BY lease_until LIMIT $1",
            understood(steps)
        ));
        let rows = fetch_all!(self.read(), (String, String, i64), sql, i64::from(limit))?;
        rows.into_iter()
            .map(|(claim_id, workspace_id, epoch)| {
                let epoch = At { table: "claims", id: &claim_id }.number("epoch", epoch)?;
                Ok(Hold { claim_id, workspace_id, epoch })
            })
            .collect()
    }

    /// How many open claims this version leaves alone, because it does not understand them.
    pub async fn foreign_claims(&self, steps: &[&str]) -> Result<u64, StoreError> {
        let understood = understood(steps);
        let sql =
            AssertSqlSafe(format!("SELECT COUNT(*) FROM claims WHERE state = 'open' AND NOT ({understood})"));
        let count = fetch_optional!(self.read(), (i64,), sql)?.map_or(0, |(count,)| count);
        At { table: "claims", id: "open" }.number("count", count)
    }

    /// Takes a lapsed claim over at the next epoch. None: somebody else did, or
    /// its owner lives, or it has ended.
    pub async fn take_over(
        &self,
        lapsed: &Hold,
        owner: &str,
        lease_ms: u64,
    ) -> Result<Option<Hold>, StoreError> {
        let mut tx = self.begin().await?;
        let (id, claim, epoch) = (text(&lapsed.workspace_id), text(&lapsed.claim_id), count(lapsed.epoch));
        let Some((epoch,)) = fetch_optional!(tx.on(), (i64,), TAKE_ROW, id, claim.as_ref(), epoch)? else {
            return Ok(None);
        };
        if execute!(tx.on(), TAKE, claim.as_ref(), epoch, owner, count(lease_ms))? == 0 {
            tx.roll_back().await?;
            return Ok(None);
        }
        tx.commit().await?;
        let epoch = At { table: "claims", id: &lapsed.claim_id }.number("epoch", epoch)?;
        Ok(Some(Hold { epoch, ..lapsed.clone() }))
    }

    /// Renews the lease; false: the claim is no longer this holder's. A lease of
    /// 0 gives it up to whoever comes.
    pub async fn renew_claim(&self, hold: &Hold, lease_ms: u64) -> Result<bool, StoreError> {
        let lease = if lease_ms == 0 { -1 } else { count(lease_ms) };
        let renewed = execute!(self.write(), RENEW, text(&hold.claim_id), count(hold.epoch), lease)?;
        Ok(renewed == 1)
    }

    /// Keeps what the claim's new box says until the claim has ended. False: the
    /// claim has ended, or the token is not that box's.
    pub async fn speak(
        &self,
        claim_id: &str,
        token: &super::TokenHash,
        cause: &str,
    ) -> Result<bool, StoreError> {
        let kept = execute!(self.write(), SPEAK, text(claim_id), text(cause), token.0.as_slice())?;
        Ok(kept == 1)
    }

    /// Ends a claim, with the row's status, provider and box, the event, and
    /// what is left owed: all of it or nothing.
    pub async fn end_claim(&self, hold: &Hold, ending: &Ending<'_>) -> Result<Ended, StoreError> {
        let mut tx = self.begin().await?;
        let Some(version) = end_row(&mut tx, hold, ending).await? else {
            tx.roll_back().await?;
            return Ok(Ended::Lost);
        };
        let reason = ending.transition.as_ref().map(|(_, reason)| reason);
        let code = reason.map(|r| r.code.as_str());
        let detail = reason.and_then(|r| r.detail.as_deref()).map(text);
        let claim = text(&hold.claim_id);
        let ended =
            fetch_optional!(tx.on(), (Option<String>,), END, claim, ending.state.as_str(), code, detail)?;
        let Some((spoken,)) = ended else {
            tx.roll_back().await?;
            return Ok(Ended::Lost);
        };
        let id = text(&hold.workspace_id);
        execute!(tx.on(), REVOKE_OTHERS, id, ending.instance_id, ending.sole)?;
        for stop in &ending.owed {
            events::record_left_box(&mut tx, &hold.workspace_id, version, stop).await?;
            owe_stop(&mut tx, &hold.workspace_id, stop).await?;
        }
        tx.commit().await?;
        Ok(Ended::Done { spoken })
    }
}

/// The row's version then; None: the claim is not this holder's.
async fn end_row(tx: &mut Tx, hold: &Hold, ending: &Ending<'_>) -> Result<Option<i64>, StoreError> {
    let (id, claim, epoch) = (text(&hold.workspace_id), text(&hold.claim_id), count(hold.epoch));
    let (provider, instance) = (ending.provider.map(text), ending.instance_id.map(text));
    let Some(transition) = &ending.transition else {
        let ended = fetch_optional!(tx.on(), (i64,), END_ROW, id, claim, epoch, provider, instance)?;
        return Ok(ended.map(|(version,)| version));
    };
    let (to, from) = (transition.0.to().as_str(), transition.0.from().as_str());
    let moved = fetch_optional!(
        tx.on(),
        (i64,),
        END_ROW_MOVED,
        id.as_ref(),
        claim,
        epoch,
        provider,
        instance,
        to,
        from
    )?;
    let Some((version,)) = moved else { return Ok(None) };
    events::record_move(tx, &id, version, transition, None).await?;
    Ok(Some(version))
}

pub(super) fn reason(code: Option<String>, detail: Option<String>) -> Option<Reason> {
    code.map(|code| Reason { code, detail })
}

pub(super) fn status(at: At<'_>, found: &str) -> Result<Status, StoreError> {
    at.parse("prior_status", found, "a status")
}
