//! Decisions as they were recorded: the JSON of [`Decision`], and beside it
//! what they are looked up by.

use super::error::StoreError;
use super::pool::{Store, Tx};
use super::rows::{At, text};
use crate::facts::Decision;

const INSERT: &str = "
    INSERT INTO decisions (id, workspace_id, revision, created_at, body)
    SELECT $1, $2, $3, clock.now, $4 FROM clock";

const ONE: &str = "SELECT id, body FROM decisions WHERE id = $1";
const PAGE: &str = "SELECT id, body FROM decisions WHERE id > $1 ORDER BY id LIMIT $2";

impl Store {
    pub async fn decision(&self, id: &str) -> Result<Option<Decision>, StoreError> {
        let row = fetch_optional!(self.read(), (String, String), ONE, text(id))?;
        row.map(decode).transpose()
    }

    /// A page of decisions, oldest first; `after` is the last id of the page before.
    pub async fn decisions(&self, after: Option<&str>, limit: u32) -> Result<Vec<Decision>, StoreError> {
        let after = text(after.unwrap_or_default());
        let rows = fetch_all!(self.read(), (String, String), PAGE, after, i64::from(limit))?;
        rows.into_iter().map(decode).collect()
    }
}

pub(super) async fn record(tx: &mut Tx, decision: &Decision) -> Result<(), StoreError> {
    let body =
        serde_json::to_string(decision).map_err(|e| StoreError::Statement(sqlx::Error::Encode(e.into())))?;
    execute!(
        tx.on(),
        INSERT,
        text(&decision.id),
        text(&decision.question.workspace.id),
        decision.revision,
        body
    )
    .map(drop)
}

fn decode((id, body): (String, String)) -> Result<Decision, StoreError> {
    At { table: "decisions", id: &id }.json("body", &body, "the JSON of a decision")
}
