//! The hot path: one statement stores the liveness of a whole batch of
//! heartbeats, checks every token, and returns every row's facts, so that each
//! decision is made on what the database holds and no heartbeat costs a
//! statement of its own. The token is found in the row (`live_token`); one that
//! is not its workspace's newest is looked for among `tokens`. Only those that it
//! did not take are looked at again, to say why.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;

use super::error::StoreError;
use super::pool::{Executor, On, Store};
use super::reported::BeatRow;
use super::rows::{count, optional_text, text};
use super::types::{Beat, Beaten};

macro_rules! set {
    ($rate:literal, $error:literal, $active:literal, $uptime:literal, $task:literal, $state:literal,
        $keep:literal, $said:literal, $warnings:literal) => {
        concat!(
            "UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock), error_rate = COALESCE(",
            $rate,
            ", workspaces.error_rate), sample_error = COALESCE(",
            $error,
            ", workspaces.sample_error), active_tasks = COALESCE(",
            $active,
            ", workspaces.active_tasks), busy_at = CASE WHEN COALESCE(",
            $active,
            ", workspaces.active_tasks) > 0 THEN (SELECT now FROM clock) ELSE workspaces.busy_at END",
            ", uptime_seconds = COALESCE(",
            $uptime,
            ", workspaces.uptime_seconds), current_task = COALESCE(",
            $task,
            ", workspaces.current_task), runtime_state = COALESCE(",
            $state,
            ", workspaces.runtime_state), reported = (workspaces.reported & ",
            $keep,
            ") | ",
            $said,
            ", heartbeat_warnings = ",
            $warnings
        )
    };
}

/// What is judged and not in the facts, as it is after the heartbeat.
macro_rules! rest {
    () => {
        ", workspaces.error_rate, workspaces.sample_error, workspaces.uptime_seconds, workspaces.runtime_state"
    };
}

/// Whoever presents a live token of the workspace.
macro_rules! sqlite_own {
    () => {
        "(workspaces.live_token = substr($2, b.key * 32 + 1, 32) OR EXISTS (
            SELECT 1 FROM tokens AS t WHERE t.hash = substr($2, b.key * 32 + 1, 32)
            AND t.workspace_id = workspaces.id AND t.revoked_at IS NULL
        ))"
    };
}

macro_rules! postgres_own {
    () => {
        "(workspaces.live_token = b.hash OR b.hash = (
            SELECT t.hash FROM tokens AS t
            WHERE t.hash = b.hash AND t.workspace_id = workspaces.id AND t.revoked_at IS NULL
        ))"
    };
}

/// Anybody, where the workspace has no live token and what is presented is nobody's.
macro_rules! unclaimed {
    ($hash:literal) => {
        concat!(
            "(workspaces.live_token IS NULL AND (
                SELECT t.id FROM tokens AS t
                WHERE t.workspace_id = workspaces.id AND t.revoked_at IS NULL LIMIT 1
            ) IS NULL AND (SELECT t.id FROM tokens AS t WHERE t.hash = ",
            $hash,
            ") IS NULL)"
        )
    };
}

/// `$1`: a JSON array of arrays; `$2`: their hashes, 32 bytes each, in the same order.
/// A row comes back as one value: SQLite hands each to another thread, where it
/// is given back to SQLite's own allocator, and fourteen cost more than one and its parsing.
macro_rules! sqlite_beat {
    ($warnings:literal, $rest:expr, $who:expr) => {
        concat!(
            set!(
                "b.value ->> 1",
                "b.value ->> 2",
                "b.value ->> 3",
                "b.value ->> 4",
                "b.value ->> 5",
                "b.value ->> 6",
                "(b.value ->> 7)",
                "(b.value ->> 8)",
                $warnings
            ),
            " FROM json_each($1) AS b
            WHERE workspaces.id = b.value ->> 0 AND workspaces.status <> 'removed' AND ",
            $who,
            " RETURNING json_array(",
            facts!("workspaces.last_heartbeat_at"),
            ", workspaces.reported",
            $rest,
            ")"
        )
    };
}

/// The arrays are taken apart where columns stand: as a table Postgres would keep
/// them aside first. And no `EXISTS`: for it Postgres may read all tokens at once,
/// and go on so when they have become many.
macro_rules! postgres_beat {
    ($warnings:literal, $unnested:literal, $rest:expr, $who:expr) => {
        concat!(
            set!(
                "b.error_rate",
                "b.sample_error",
                "b.active",
                "b.uptime",
                "b.task",
                "b.state",
                "b.keep",
                "b.said",
                $warnings
            ),
            " FROM (SELECT UNNEST($1::text[]) AS id, UNNEST($2::bytea[]) AS hash,
                UNNEST($3::float8[]) AS error_rate, UNNEST($4::text[]) AS sample_error,
                UNNEST($5::bigint[]) AS active, UNNEST($6::bigint[]) AS uptime,
                UNNEST($7::text[]) AS task, UNNEST($8::text[]) AS state,
                UNNEST($9::bigint[]) AS keep, UNNEST($10::bigint[]) AS said",
            $unnested,
            ") AS b
            WHERE workspaces.id = b.id AND workspaces.status <> 'removed' AND ",
            $who,
            " RETURNING ",
            facts!("workspaces.last_heartbeat_at"),
            ", workspaces.reported",
            $rest
        )
    };
}

/// Of heartbeats that say all that is judged and need no warning: nothing is read back that is known.
const SQLITE_BEAT: &str = sqlite_beat!("NULL", "", sqlite_own!());
const POSTGRES_BEAT: &str = postgres_beat!("NULL", "", "", postgres_own!());

/// Of a batch with some that leave something out, or have warnings.
const SQLITE_PARTIAL: &str = sqlite_beat!("b.value ->> 9", rest!(), sqlite_own!());
const POSTGRES_PARTIAL: &str =
    postgres_beat!("b.warnings", ", UNNEST($11::text[]) AS warnings", rest!(), postgres_own!());

/// Of those whose token was not taken, where registration is open.
const SQLITE_OPEN: &str =
    sqlite_beat!("b.value ->> 9", rest!(), unclaimed!("substr($2, b.key * 32 + 1, 32)"));
const POSTGRES_OPEN: &str =
    postgres_beat!("b.warnings", ", UNNEST($11::text[]) AS warnings", rest!(), unclaimed!("b.hash"));

/// Why a heartbeat was not taken: no row here where there is no such workspace. `$3`:
/// whether registration is open.
const SQLITE_WHY: &str = concat!(
    "SELECT workspaces.id, workspaces.status = 'removed' AND COALESCE(",
    sqlite_own!(),
    " OR ($3 AND ",
    unclaimed!("substr($2, b.key * 32 + 1, 32)"),
    "), FALSE) FROM json_each($1) AS b CROSS JOIN workspaces ON workspaces.id = b.value"
);
const POSTGRES_WHY: &str = concat!(
    "SELECT workspaces.id, workspaces.status = 'removed' AND COALESCE(",
    postgres_own!(),
    " OR ($3 AND ",
    unclaimed!("b.hash"),
    "), FALSE) FROM UNNEST($1::text[], $2::bytea[]) AS b (id, hash) JOIN workspaces ON workspaces.id = b.id"
);

/// Which heartbeats a statement takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Those with a live token of their workspace.
    Token,
    /// Those of workspaces that have none.
    Anybody,
}

/// How often a batch is tried that Postgres gave up for another transaction.
const TRIES: u32 = 5;

impl Store {
    /// Stores a batch of heartbeats in one statement and returns each row's
    /// facts, in the order asked. No workspace may occur twice in a batch.
    pub async fn beat(&self, beats: &[Beat]) -> Result<Vec<Beaten>, StoreError> {
        if beats.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch::of(beats);
        let mut beaten: Vec<Option<Beaten>> = vec![None; beats.len()];
        let mut rows = self.store_batch(&batch, By::Token).await?;
        if rows.len() < beats.len() && beats.iter().any(|beat| beat.open) {
            let taken: HashSet<_> = rows.iter().map(|row| row.facts.id().to_owned()).collect();
            let open = |place: usize| {
                let entry = &batch.entries[place];
                entry.beat.open && !taken.contains(entry.id.as_ref())
            };
            rows.extend(self.store_batch(&batch.only(open), By::Anybody).await?);
        }
        self.wrote(rows.len());
        for row in rows {
            if let Some(place) = batch.place(row.facts.id()) {
                // One bad row is the trouble of one agent, not of its whole batch.
                let read = row.heard(batch.entries[place].beat);
                beaten[place] = Some(read.map_or_else(
                    |e| Beaten::Unreadable(Arc::new(e)),
                    |(facts, heartbeat)| Beaten::Stored(Box::new(facts), heartbeat),
                ));
            }
        }
        if beaten.iter().any(Option::is_none) {
            let refused = batch.only(|place| beaten[place].is_none());
            for (id, removed) in self.why_refused(&refused).await? {
                if let Some(place) = batch.place(&id) {
                    beaten[place] = Some(if removed { Beaten::Removed } else { Beaten::Unauthorized });
                }
            }
        }
        let mut answers = vec![Beaten::Unknown; beats.len()];
        for (entry, answer) in batch.entries.iter().zip(beaten) {
            answers[entry.asked] = answer.unwrap_or(Beaten::Unknown);
        }
        Ok(answers)
    }

    async fn store_batch(&self, batch: &Batch<'_>, by: By) -> Result<Vec<BeatRow>, StoreError> {
        let mut tries = 1;
        loop {
            let Executor { db, outcome } = self.write();
            let stored = match db {
                On::Sqlite(db) => sqlite_beat(db, batch, by).await,
                On::Postgres(db) => postgres_beat(db, batch, by).await,
            };
            match outcome.of(stored, |rows| !rows.is_empty()) {
                Err(e) if e.lost_to_another() && tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn why_refused(&self, batch: &Batch<'_>) -> Result<Vec<(String, bool)>, StoreError> {
        let ids = || batch.column(|entry| entry.id.as_ref());
        let open = batch.entries.iter().any(|entry| entry.beat.open);
        let Executor { db, outcome } = self.read();
        let rows = match db {
            On::Sqlite(db) => {
                let ids = json(&ids())?;
                sqlx::query_as(SQLITE_WHY).bind(ids).bind(batch.hashes()).bind(open).fetch_all(db).await
            }
            On::Postgres(db) => {
                let hashes = batch.column(|entry| entry.beat.token.0.as_slice());
                sqlx::query_as(POSTGRES_WHY).bind(ids()).bind(hashes).bind(open).fetch_all(db).await
            }
        };
        outcome.of(rows, |_| false)
    }
}

/// A batch in the order of its ids, so that two batches lock rows in one order.
struct Batch<'a> {
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    id: Cow<'a, str>,
    beat: &'a Beat,
    /// Its place in what was asked.
    asked: usize,
}

impl<'a> Batch<'a> {
    fn of(beats: &'a [Beat]) -> Self {
        let mut entries: Vec<_> = beats
            .iter()
            .enumerate()
            .map(|(asked, beat)| Entry { id: text(&beat.workspace_id), beat, asked })
            .collect();
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self { entries }
    }

    /// The entries whose places are `wanted`.
    fn only(&self, wanted: impl Fn(usize) -> bool) -> Batch<'_> {
        let entries = self.entries.iter().enumerate().filter(|(place, _)| wanted(*place));
        let entries = entries
            .map(|(_, e)| Entry { id: Cow::Borrowed(e.id.as_ref()), beat: e.beat, asked: e.asked })
            .collect();
        Batch { entries }
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.id.as_ref().cmp(id)).ok()
    }

    fn column<'b, T>(&'b self, of: impl Fn(&'b Entry<'a>) -> T) -> Vec<T> {
        self.entries.iter().map(of).collect()
    }

    /// Whether what is judged must be read back, or warnings be written.
    fn is_partial(&self) -> bool {
        self.entries.iter().any(|entry| entry.beat.warnings.is_some() || entry.beat.leaves_out())
    }

    fn hashes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.beat.token.0).collect()
    }
}

/// A number both backends can hold: SQLite makes NaN a NULL.
fn rate(rate: f64) -> f64 {
    if rate.is_finite() { rate } else { 1.0 }
}

fn json<T: serde::Serialize>(rows: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|e| sqlx::Error::Encode(e.into()))
}

async fn sqlite_beat(db: &SqlitePool, batch: &Batch<'_>, by: By) -> Result<Vec<BeatRow>, sqlx::Error> {
    let rows = batch.column(|Entry { id, beat, .. }| {
        (
            id.as_ref(),
            beat.error_rate.map(rate),
            optional_text(&beat.sample_error),
            beat.active_tasks,
            beat.uptime_seconds.map(count),
            optional_text(&beat.current_task),
            optional_text(&beat.runtime_state),
            beat.reported.keep,
            beat.reported.said,
            optional_text(&beat.warnings),
        )
    });
    let sql = match by {
        By::Anybody => SQLITE_OPEN,
        By::Token if batch.is_partial() => SQLITE_PARTIAL,
        By::Token => SQLITE_BEAT,
    };
    let rows: Vec<String> =
        sqlx::query_scalar(sql).bind(json(&rows)?).bind(batch.hashes()).fetch_all(db).await?;
    let parsed = rows.iter().map(|row| serde_json::from_str(row));
    parsed.collect::<Result<_, _>>().map_err(|e| sqlx::Error::Decode(e.into()))
}

async fn postgres_beat(db: &PgPool, batch: &Batch<'_>, by: By) -> Result<Vec<BeatRow>, sqlx::Error> {
    let (sql, warned) = match by {
        By::Anybody => (POSTGRES_OPEN, true),
        By::Token if batch.is_partial() => (POSTGRES_PARTIAL, true),
        By::Token => (POSTGRES_BEAT, false),
    };
    let query = sqlx::query_as(sql)
        .bind(batch.column(|entry| entry.id.as_ref()))
        .bind(batch.column(|entry| entry.beat.token.0.as_slice()))
        .bind(batch.column(|entry| entry.beat.error_rate.map(rate)))
        .bind(batch.column(|entry| optional_text(&entry.beat.sample_error)))
        .bind(batch.column(|entry| entry.beat.active_tasks.map(i64::from)))
        .bind(batch.column(|entry| entry.beat.uptime_seconds.map(count)))
        .bind(batch.column(|entry| optional_text(&entry.beat.current_task)))
        .bind(batch.column(|entry| optional_text(&entry.beat.runtime_state)))
        .bind(batch.column(|entry| entry.beat.reported.keep))
        .bind(batch.column(|entry| entry.beat.reported.said));
    match warned {
        true => query.bind(batch.column(|entry| optional_text(&entry.beat.warnings))).fetch_all(db).await,
        false => query.fetch_all(db).await,
    }
}
