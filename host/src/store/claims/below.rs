//! What hangs below a workspace, as its pause and its resume take it along.
//!
//! A pause takes along what is awake, and a resume what that pause took along. Who
//! was taken along says so in a claim of its own, whose parent is the pause. That is
//! a row's last claim as long as its epoch is the row's.

use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::rows::text;

/// Down to the nearest that are awake, past what is asleep: it stays as it is. What has
/// another claim open is one of them, and not looked past, until that has ended. What this
/// pause has taken along is neither: below it, its own claim does the same. (The workspace
/// itself stands for one that is looked past.)
const AWAKE_BELOW: &str = "
    WITH RECURSIVE below (id, asleep, busy, taken) AS (
        SELECT id, TRUE, FALSE, FALSE FROM workspaces WHERE id = $1
        UNION ALL
        SELECT w.id, w.status IN ('paused', 'hibernated'), w.claim_id IS NOT NULL, EXISTS (
            SELECT 1 FROM claims AS c
            WHERE c.workspace_id = w.id AND c.epoch = w.claim_epoch AND c.parent_claim_id = $2)
        FROM below AS b JOIN workspaces AS w ON w.parent_id = b.id
        WHERE b.asleep AND NOT b.busy AND NOT b.taken AND w.status <> 'removed'
    )
    SELECT id FROM below WHERE NOT taken AND (busy OR NOT asleep) ORDER BY id";

/// Wherever they are in the tree by now. (Before, a pause took hibernated ones along as
/// well: those are not started.)
const TAKEN_ALONG: &str = "
    SELECT w.id FROM claims AS c JOIN workspaces AS w ON w.id = c.workspace_id AND w.claim_epoch = c.epoch
    WHERE c.parent_claim_id = (
        SELECT p.id FROM claims AS p WHERE p.workspace_id = $1 AND p.kind = 'pause'
        ORDER BY p.epoch DESC LIMIT 1)
    AND c.kind = 'pause' AND c.prior_status <> 'hibernated' AND w.status = 'paused' ORDER BY w.id";

impl Store {
    /// What the pause `claim_id` of this workspace has yet to take along.
    pub async fn awake_below(&self, id: &str, claim_id: &str) -> Result<Vec<String>, StoreError> {
        let rows = fetch_all!(self.read(), (String,), AWAKE_BELOW, text(id), text(claim_id))?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// What the last pause of this workspace took along, and is paused since.
    pub async fn taken_along(&self, id: &str) -> Result<Vec<String>, StoreError> {
        let rows = fetch_all!(self.read(), (String,), TAKEN_ALONG, text(id))?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}
