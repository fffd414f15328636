//! From columns to facts. A row that can't be one says where it broke: table,
//! column, id. Both backends answer with the same columns.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Column as _, ColumnIndex, FromRow, Row};

use super::error::StoreError;
use super::types::{Snapshot, WorkspaceView};
use crate::facts::Workspace;
use crate::machine::Status;

/// Whether some ancestor of `workspaces` is paused, asked of those rows only that have a parent.
/// (The table goes by its own name because SQLite's RETURNING knows no alias.)
macro_rules! ancestor_paused {
    () => {
        "(CASE WHEN workspaces.parent_id IS NULL THEN FALSE ELSE EXISTS (
            WITH RECURSIVE up (id, parent_id, status) AS (
                SELECT a.id, a.parent_id, a.status FROM workspaces AS a WHERE a.id = workspaces.parent_id
                UNION
                SELECT a.id, a.parent_id, a.status FROM workspaces AS a JOIN up ON a.id = up.parent_id
            )
            SELECT 1 FROM up WHERE up.status = 'paused'
        ) END)"
    };
}

/// The columns of a [`FactsRow`], in its order and without names: they stand first
/// in whatever is selected. The last is when the row was read.
macro_rules! facts {
    ($now:literal) => {
        concat!(
            "workspaces.id, workspaces.version, workspaces.kind, workspaces.runtime, ",
            "workspaces.provider, workspaces.instance_id, workspaces.status, workspaces.status_since, ",
            "workspaces.last_heartbeat_at, workspaces.active_tasks, workspaces.persistent_volume, ",
            "workspaces.labels, workspaces.claim_id, ",
            ancestor_paused!(),
            ", ",
            $now
        )
    };
}

/// How many columns that are.
pub(super) const FACTS: usize = 15;

/// A row of `workspaces`, as a policy may see it: the first columns of a row, or a
/// JSON array of them. By their places, because a heartbeat's row is read this way
/// and a look-up of each name costs it more than the reading.
#[derive(serde::Deserialize)]
pub(super) struct FactsRow {
    id: String,
    version: i64,
    kind: String,
    runtime: String,
    provider: Option<String>,
    instance_id: Option<String>,
    status: String,
    status_since: i64,
    last_heartbeat_at: Option<i64>,
    active_tasks: i64,
    #[serde(deserialize_with = "truth")]
    persistent_volume: bool,
    labels: String,
    claim_id: Option<String>,
    #[serde(deserialize_with = "truth")]
    ancestor_paused: bool,
    now: i64,
}

impl<'r, R> FromRow<'r, R> for FactsRow
where
    R: Row,
    usize: ColumnIndex<R>,
    String: Readable<'r, R>,
    Option<String>: Readable<'r, R>,
    i64: Readable<'r, R>,
    Option<i64>: Readable<'r, R>,
    bool: Readable<'r, R>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let places = &mut (0..);
        Ok(Self {
            id: next(row, places)?,
            version: next(row, places)?,
            kind: next(row, places)?,
            runtime: next(row, places)?,
            provider: next(row, places)?,
            instance_id: next(row, places)?,
            status: next(row, places)?,
            status_since: next(row, places)?,
            last_heartbeat_at: next(row, places)?,
            active_tasks: next(row, places)?,
            persistent_volume: next(row, places)?,
            labels: next(row, places)?,
            claim_id: next(row, places)?,
            ancestor_paused: next(row, places)?,
            now: next(row, places)?,
        })
    }
}

/// What a column of a row can be read as.
trait Readable<'r, R: Row>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database> {}
impl<'r, R: Row, T: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>> Readable<'r, R> for T {}

/// The next column; one that can't be read is named in the error.
fn next<'r, R: Row, T: Readable<'r, R>>(
    row: &'r R,
    places: &mut impl Iterator<Item = usize>,
) -> Result<T, sqlx::Error>
where
    usize: ColumnIndex<R>,
{
    let place = places.next().unwrap_or_default();
    row.try_get(place).map_err(|error| match error {
        sqlx::Error::ColumnDecode { source, .. } => {
            sqlx::Error::ColumnDecode { index: row.column(place).name().to_owned(), source }
        }
        other => other,
    })
}

/// SQLite's JSON has its truth values as numbers.
fn truth<'de, D: serde::Deserializer<'de>>(number: D) -> Result<bool, D::Error> {
    u8::deserialize(number).map(|number| number != 0)
}

impl FactsRow {
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl TryFrom<FactsRow> for Snapshot {
    type Error = StoreError;

    fn try_from(row: FactsRow) -> Result<Self, StoreError> {
        let at = At { table: "workspaces", id: &row.id };
        let status = at.parse("status", &row.status, "a status")?;
        let now: u64 = at.number("now", row.now)?;
        // The statement's time was taken before it waited for the row, and the
        // database's clock may have been set back: no age may come out negative,
        // and time must not stand still until the clock is there again.
        let past = |column, t| at.number::<u64>(column, t).map(|t| t.min(now));
        let status_since = past("status_since", row.status_since)?;
        let last_heartbeat_at = row.last_heartbeat_at.map(|t| past("last_heartbeat_at", t)).transpose()?;
        let active_tasks = at.number("active_tasks", row.active_tasks)?;
        let labels = match row.labels.as_str() {
            "{}" => BTreeMap::new(),
            labels => at.json("labels", labels, "a JSON object of strings")?,
        };
        Ok(Snapshot {
            version: row.version,
            claim_id: row.claim_id,
            now,
            workspace: Workspace {
                kind: row.kind,
                runtime: row.runtime,
                provider: row.provider,
                instance_id: row.instance_id,
                status,
                status_since,
                last_heartbeat_at,
                active_tasks,
                ancestor_paused: row.ancestor_paused,
                persistent_volume: row.persistent_volume,
                labels,
                id: row.id,
            },
        })
    }
}

/// What of `workspaces` and its card `c` a [`ViewRow`] reads.
macro_rules! view {
    () => {
        concat!(
            facts!("(SELECT now FROM clock)"),
            ", workspaces.name, workspaces.parent_id, workspaces.tier, workspaces.url, c.card, ",
            "workspaces.hibernation_idle_minutes, workspaces.created_at, workspaces.error_rate, ",
            "workspaces.sample_error, workspaces.uptime_seconds, workspaces.current_task, ",
            "workspaces.runtime_state, workspaces.registration_warnings, workspaces.heartbeat_warnings"
        )
    };
}

/// A row of `workspaces` with all that an operator sees.
#[derive(FromRow)]
pub(super) struct ViewRow {
    #[sqlx(flatten)]
    facts: FactsRow,
    name: String,
    parent_id: Option<String>,
    tier: Option<String>,
    url: Option<String>,
    card: Option<String>,
    hibernation_idle_minutes: Option<i64>,
    created_at: i64,
    error_rate: f64,
    sample_error: String,
    uptime_seconds: i64,
    current_task: String,
    runtime_state: String,
    registration_warnings: Option<String>,
    heartbeat_warnings: Option<String>,
}

impl TryFrom<ViewRow> for WorkspaceView {
    type Error = StoreError;

    fn try_from(row: ViewRow) -> Result<Self, StoreError> {
        let Snapshot { version, claim_id, workspace, .. } = row.facts.try_into()?;
        let at = At { table: "workspaces", id: &workspace.id };
        let card = At { table: "agent_cards", id: &workspace.id };
        let mut warnings: Vec<Value> = Vec::new();
        for (column, some) in [
            ("registration_warnings", row.registration_warnings),
            ("heartbeat_warnings", row.heartbeat_warnings),
        ] {
            if let Some(some) = some {
                warnings.extend(at.json::<Vec<Value>>(column, &some, "a JSON array")?);
            }
        }
        Ok(WorkspaceView {
            name: row.name,
            version,
            claim_id,
            parent_id: row.parent_id,
            tier: row.tier,
            url: row.url,
            agent_card: row.card.map(|text| card.json("card", &text, "JSON")).transpose()?,
            hibernation_idle_minutes: row
                .hibernation_idle_minutes
                .map(|n| at.number("hibernation_idle_minutes", n))
                .transpose()?,
            created_at: at.number("created_at", row.created_at)?,
            error_rate: row.error_rate,
            sample_error: row.sample_error,
            uptime_seconds: at.number("uptime_seconds", row.uptime_seconds)?,
            current_task: row.current_task,
            runtime_state: row.runtime_state,
            warnings,
            workspace,
        })
    }
}

/// The row that is being read, for the error that names it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) table: &'static str,
    pub(super) id: &'a str,
}

impl At<'_> {
    pub(super) fn number<T: TryFrom<i64>>(self, column: &'static str, found: i64) -> Result<T, StoreError> {
        T::try_from(found).map_err(|_| self.bad(column, found.to_string(), "a number of its range"))
    }

    pub(super) fn parse<T: FromStr>(
        self,
        column: &'static str,
        found: &str,
        expected: &'static str,
    ) -> Result<T, StoreError> {
        found.parse().map_err(|_| self.bad(column, found.to_owned(), expected))
    }

    pub(super) fn json<T: DeserializeOwned>(
        self,
        column: &'static str,
        found: &str,
        expected: &'static str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(found).map_err(|_| self.bad(column, shortened(found), expected))
    }

    pub(super) fn status(
        self,
        column: &'static str,
        found: Option<&str>,
    ) -> Result<Option<Status>, StoreError> {
        found.map(|status| self.parse(column, status, "a status")).transpose()
    }

    pub(super) fn bad(self, column: &'static str, found: String, expected: &'static str) -> StoreError {
        StoreError::BadRow { table: self.table, column, id: self.id.to_owned(), found, expected }
    }
}

/// Enough of a long text to recognise it by.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// Text as both backends can hold it. Postgres has no NUL in a text, and one
/// heartbeat with a NUL must not fail the batch that it is in.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Like [`text`], where there may be none.
pub(super) fn optional_text(text: &Option<String>) -> Option<Cow<'_, str>> {
    text.as_deref().map(self::text)
}

/// A count as both backends can hold it.
pub(super) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
