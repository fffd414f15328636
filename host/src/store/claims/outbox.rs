//! What is owed: written with the step that owes it, taken by one host at a time.

use uuid::Uuid;

use super::types::{DueEffect, OwedStop};
use crate::store::error::StoreError;
use crate::store::pool::{Backend, Store, Tx};
use crate::store::rows::{At, count, text};

/// The kind of an [`OwedStop`].
pub const STOP: &str = "stop";

const OWE: &str = "
    INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
    SELECT $1, $2, $3, $4, 'due', clock.now, clock.now FROM clock";

/// Whoever takes a row makes it due again after his lease, should he not come back.
macro_rules! take {
    ($skip:literal) => {
        concat!(
            "UPDATE outbox SET due_at = (SELECT now FROM clock) + $1, attempts = attempts + 1 WHERE id IN (
                SELECT id FROM outbox WHERE state = 'due' AND due_at <= (SELECT now FROM clock)
                ORDER BY due_at LIMIT $2",
            $skip,
            ") RETURNING id, workspace_id, kind, body, attempts"
        )
    };
}

const SQLITE_TAKE: &str = take!("");
const POSTGRES_TAKE: &str = take!(" FOR UPDATE SKIP LOCKED");

const DONE: &str = "
    UPDATE outbox SET state = 'done', ended_at = (SELECT now FROM clock), last_error = NULL WHERE id = $1";

const LATER: &str = "
    UPDATE outbox SET due_at = (SELECT now FROM clock) + $2, last_error = $3,
        state = CASE WHEN $4 THEN 'parked' ELSE state END
    WHERE id = $1 AND state = 'due'";

const OPEN_EFFECTS: &str = "SELECT COUNT(*) FROM outbox WHERE state <> 'done'";

impl Store {
    /// Takes up to `limit` effects that are due, for `lease_ms`.
    pub async fn due_effects(&self, limit: u32, lease_ms: u64) -> Result<Vec<DueEffect>, StoreError> {
        let sql = match self.backend() {
            Backend::Sqlite => SQLITE_TAKE,
            Backend::Postgres => POSTGRES_TAKE,
        };
        let rows = fetch_all!(
            self.write(),
            (String, String, String, String, i64),
            sql,
            count(lease_ms),
            i64::from(limit)
        )?;
        rows.into_iter()
            .map(|(id, workspace_id, kind, body, attempts)| {
                let attempts = At { table: "outbox", id: &id }.number("attempts", attempts)?;
                Ok(DueEffect { id, workspace_id, kind, body, attempts })
            })
            .collect()
    }

    pub async fn effect_done(&self, id: &str) -> Result<(), StoreError> {
        execute!(self.write(), DONE, text(id)).map(drop)
    }

    /// Due again after `delay_ms`; or, where its attempts are spent, parked for a person to see.
    pub async fn effect_failed(
        &self,
        id: &str,
        delay_ms: u64,
        error: &str,
        parked: bool,
    ) -> Result<(), StoreError> {
        execute!(self.write(), LATER, text(id), count(delay_ms), text(error), parked).map(drop)
    }

    /// Effects that are not done.
    pub async fn owed_effects(&self) -> Result<u64, StoreError> {
        let row = fetch_optional!(self.read(), (i64,), OPEN_EFFECTS)?;
        let open = row.map_or(0, |(n,)| n);
        At { table: "outbox", id: "all" }.number("count", open)
    }
}

/// Writes that `stop` is owed.
pub(in crate::store) async fn owe(
    tx: &mut Tx,
    workspace_id: &str,
    stop: &OwedStop,
) -> Result<(), StoreError> {
    let body =
        serde_json::to_string(stop).map_err(|e| StoreError::Statement(sqlx::Error::Encode(e.into())))?;
    execute!(tx.on(), OWE, Uuid::now_v7().to_string(), text(workspace_id), STOP, body).map(drop)
}
