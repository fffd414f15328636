//! What the loops look at next, by index, however many rows there are.
//!
//! Each loop has a column of its own that says when it looks at a row again, and
//! an index of it over the rows it watches. A heartbeat touches none of them (on
//! Postgres that would cost every heartbeat its place on the page): where a row
//! was heard of meanwhile, the loop itself moves it to the time at which it could
//! be due at the earliest. So a live row is touched once per window, and rows that
//! are due come first. Taking a row moves it, too: no two hosts look at it at once.

use sqlx::{AssertSqlSafe, Row as _};

use super::error::StoreError;
use super::pool::{Backend, On, Store};
use super::rows::{FactsRow, count};
use super::types::Snapshot;
use crate::facts::Timestamp;

/// Which loop asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sweep {
    /// Live rows that were not heard of.
    Silence,
    /// Rows that live or boot, whose box a provider can be asked about.
    Instances,
    /// Rows that have been provisioning.
    Provisioning,
    /// Live rows without a task, that have a limit for it.
    Idle,
    /// Rows that are down and have a provider that could bring them up.
    Down,
}

/// A row that is due, as it was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub facts: Snapshot,
    /// Since when it has been so, in the database's time; never later than `facts.now`.
    pub since: Timestamp,
    /// When it was taken, as the database's clock had it.
    pub taken_at: Timestamp,
}

/// What one taking came to.
#[derive(Debug, Default)]
pub struct Taken {
    pub due: Vec<Due>,
    /// Rows that hold what this host can't read.
    pub unreadable: Vec<StoreError>,
}

/// How many rows of each provider (None: of no provider).
pub type ByProvider = std::collections::BTreeMap<Option<String>, u64>;

/// How often a statement is tried that Postgres gave up for another transaction.
const TRIES: u32 = 5;

impl Sweep {
    const fn column(self) -> &'static str {
        match self {
            Sweep::Silence => "silence_at",
            Sweep::Instances => "probe_at",
            Sweep::Provisioning => "provisioning_at",
            Sweep::Idle => "idle_at",
            Sweep::Down => "down_at",
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Sweep::Silence => "workspaces_silence",
            Sweep::Instances => "workspaces_probe",
            Sweep::Provisioning => "workspaces_provisioning",
            Sweep::Idle => "workspaces_idle",
            Sweep::Down => "workspaces_down",
        }
    }

    /// SQLite is told, since it prefers the index of the statuses while it knows
    /// nothing of either; then it refuses the statement if it can't use this one.
    fn table(self, backend: Backend) -> String {
        match backend {
            Backend::Sqlite => format!("workspaces INDEXED BY {}", self.index()),
            Backend::Postgres => "workspaces".to_owned(),
        }
    }

    /// In the words of the index, or it would not be used.
    const fn watched(self) -> &'static str {
        match self {
            Sweep::Silence => "status IN ('online', 'degraded') AND claim_id IS NULL",
            Sweep::Instances => {
                "status IN ('provisioning', 'online', 'degraded') AND claim_id IS NULL
                AND provider IS NOT NULL AND instance_id IS NOT NULL AND runtime <> 'external'
                AND instance_id <> ''"
            }
            Sweep::Provisioning => "status = 'provisioning' AND claim_id IS NULL",
            Sweep::Idle => {
                "status IN ('online', 'degraded') AND claim_id IS NULL AND hibernation_idle_minutes IS NOT NULL"
            }
            Sweep::Down => {
                "status IN ('offline', 'failed') AND claim_id IS NULL
                AND provider IS NOT NULL AND runtime <> 'external'"
            }
        }
    }

    /// Since when the row has been so. Silence while nobody listened proves nothing.
    const fn since(self) -> &'static str {
        match self {
            Sweep::Silence | Sweep::Down => {
                "GREATEST(COALESCE(last_heartbeat_at, 0), status_since, (SELECT trusted_from FROM fleet))"
            }
            Sweep::Instances => "CAST(0 AS BIGINT)",
            Sweep::Provisioning => "status_since",
            Sweep::Idle => "COALESCE(busy_at, created_at)",
        }
    }

    /// From when on it is asked about: `$1` milliseconds after `since`, and its own
    /// limit. Whoever could not be heard for a while gets a minute to say something.
    fn from(self) -> String {
        let later = |from: String| format!("GREATEST({from}, (SELECT trusted_from FROM fleet) + 60000)");
        let from = format!("{} + $1", self.since());
        match self {
            Sweep::Idle => later(format!("{from} + hibernation_idle_minutes * 60000")),
            Sweep::Provisioning => later(from),
            Sweep::Silence | Sweep::Instances | Sweep::Down => from,
        }
    }

    /// Rows whose turn it is; `heard`: those that are not due all the same.
    fn turn(self, backend: Backend, heard: bool, limit: &str) -> String {
        format!(
            "SELECT id FROM {table} WHERE {watched} AND {column} <= (SELECT now FROM clock)
            AND {from} {than} (SELECT now FROM clock) ORDER BY {column} LIMIT {limit}",
            table = self.table(backend),
            watched = self.watched(),
            column = self.column(),
            from = self.from(),
            than = if heard { ">" } else { "<=" },
        )
    }

    fn rearm(self, backend: Backend) -> String {
        self.update(backend, true, &self.from(), "$2", "")
    }

    fn take(self, backend: Backend) -> String {
        let returning = format!(
            " RETURNING {}, {} AS since, (SELECT now FROM clock) AS taken_at",
            facts!("(SELECT now FROM clock)"),
            self.since()
        );
        self.update(backend, false, &self.again(), "$3", &returning)
    }

    /// When it is looked at again: `$2` milliseconds later; what has been silent or
    /// down for long, ever more seldom, but every hour.
    fn again(self) -> String {
        let seldom = |since, part| {
            format!(
                "(SELECT now FROM clock)
                + GREATEST($2, LEAST(((SELECT now FROM clock) - {since}) / {part}, 3600000))"
            )
        };
        match self {
            Sweep::Down => seldom("status_since", 4),
            // A policy's window of eight minutes is still met to the tick.
            Sweep::Silence => seldom(self.since(), 32),
            _ => "(SELECT now FROM clock) + $2".to_owned(),
        }
    }

    /// A clock that ran ahead, and was set back, left its times in the future. None
    /// of these loops looks further ahead than this.
    fn recall(self, backend: Backend) -> String {
        let turn = format!(
            "SELECT id FROM {} WHERE {} AND {} > (SELECT now FROM clock) + 7200000 LIMIT $1",
            self.table(backend),
            self.watched(),
            self.column(),
        );
        self.set(backend, &turn, "0", "")
    }

    fn update(self, backend: Backend, heard: bool, to: &str, limit: &str, returning: &str) -> String {
        self.set(backend, &self.turn(backend, heard, limit), to, returning)
    }

    fn set(self, backend: Backend, turn: &str, to: &str, returning: &str) -> String {
        let column = self.column();
        let sql = match backend {
            Backend::Sqlite => {
                format!("UPDATE workspaces SET {column} = {to} WHERE id IN ({turn}){returning}")
            }
            // Whoever is writing a row just now has news of it; and two hosts share the work.
            Backend::Postgres => format!(
                "WITH due AS MATERIALIZED ({turn} FOR NO KEY UPDATE SKIP LOCKED)
                UPDATE workspaces SET {column} = {to} FROM due WHERE workspaces.id = due.id{returning}"
            ),
        };
        dialect(backend, sql)
    }

    fn waiting(self, backend: Backend) -> String {
        // In their order, or Postgres, which can't know how few they are, reads the whole table.
        let sql = format!(
            "SELECT provider, COUNT(*) FROM (
                SELECT provider FROM {table} WHERE {watched} AND {column} <= (SELECT now FROM clock)
                AND {from} <= (SELECT now FROM clock) ORDER BY {column} LIMIT $2
            ) AS waiting GROUP BY provider",
            table = self.table(backend),
            watched = self.watched(),
            column = self.column(),
            from = self.from(),
        );
        dialect(backend, sql)
    }
}

/// SQLite calls the greatest of several values MAX, and the least MIN.
fn dialect(backend: Backend, sql: String) -> String {
    match backend {
        Backend::Sqlite => sql.replace("GREATEST(", "MAX(").replace("LEAST(", "MIN("),
        Backend::Postgres => sql,
    }
}

#[derive(sqlx::FromRow)]
struct DueRow {
    #[sqlx(flatten)]
    facts: FactsRow,
    since: i64,
    taken_at: i64,
}

impl Store {
    /// Has up to `limit` rows looked at now that a clock put off which has been set
    /// back since; how many.
    pub async fn recall(&self, sweep: Sweep, limit: u32) -> Result<u64, StoreError> {
        if sweep == Sweep::Idle {
            // Its limits are days, for all we know.
            return Ok(0);
        }
        let sql = AssertSqlSafe(sweep.recall(self.backend()));
        execute!(self.write(), sql, i64::from(limit))
    }

    /// Moves up to `limit` rows that were heard of meanwhile to where they could
    /// be due next; how many.
    pub async fn rearm(&self, sweep: Sweep, after_ms: u64, limit: u32) -> Result<u64, StoreError> {
        if sweep == Sweep::Instances {
            // Its turn is all that makes a box due.
            return Ok(0);
        }
        let sql = AssertSqlSafe(sweep.rearm(self.backend()));
        execute!(self.write(), sql, count(after_ms), i64::from(limit))
    }

    /// Takes up to `limit` rows that have been so for `after_ms`, the longest
    /// waiting first; nobody looks at them again before `again_ms`.
    pub async fn take_due(
        &self,
        sweep: Sweep,
        after_ms: u64,
        again_ms: u64,
        limit: u32,
    ) -> Result<Taken, StoreError> {
        let mut tries = 1;
        let rows = loop {
            let sql = AssertSqlSafe(sweep.take(self.backend()));
            let taken =
                fetch_all!(self.write(), DueRow, sql, count(after_ms), count(again_ms), i64::from(limit));
            match taken {
                Err(e) if e.lost_to_another() && tries < TRIES => tries += 1,
                other => break other?,
            }
        };
        let mut taken = Taken::default();
        for row in rows {
            let (since, taken_at) = (u64::try_from(row.since), u64::try_from(row.taken_at));
            let (since, taken_at) = (since.unwrap_or(0), taken_at.unwrap_or(0));
            match Snapshot::try_from(row.facts) {
                Ok(facts) => taken.due.push(Due { since: since.min(facts.now), facts, taken_at }),
                Err(error) => taken.unreadable.push(error),
            }
        }
        Ok(taken)
    }

    /// How many rows are due and not taken, by provider; it stops counting at `limit`.
    pub async fn waiting(&self, sweep: Sweep, after_ms: u64, limit: u64) -> Result<ByProvider, StoreError> {
        let sql = AssertSqlSafe(sweep.waiting(self.backend()));
        let rows = fetch_all!(self.read(), (Option<String>, i64), sql, count(after_ms), count(limit))?;
        Ok(rows.into_iter().map(|(provider, n)| (provider, u64::try_from(n).unwrap_or(0))).collect())
    }

    /// The database's plan for taking what is due, a line each; for tests.
    pub async fn plan_of_taking(&self, sweep: Sweep) -> Result<Vec<String>, StoreError> {
        self.plan(&sweep.take(self.backend()), &[0, 0, 0]).await
    }

    /// Its plan for counting what waits; for tests.
    pub async fn plan_of_waiting(&self, sweep: Sweep) -> Result<Vec<String>, StoreError> {
        self.plan(&sweep.waiting(self.backend()), &[0, 21]).await
    }

    async fn plan(&self, sql: &str, given: &[i64]) -> Result<Vec<String>, StoreError> {
        match self.read().db {
            On::Sqlite(db) => {
                let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                let plan = given.iter().fold(sqlx::query_as(sql), |plan, value| plan.bind(*value));
                let rows: Vec<(i64, i64, i64, String)> = plan.fetch_all(db).await?;
                Ok(rows.into_iter().map(|row| row.3).collect())
            }
            On::Postgres(db) => {
                // As it is run: prepared, and planned without a look at its values.
                let given: Vec<_> = given.iter().map(ToString::to_string).collect();
                let given = given.join(", ");
                let sql = format!("PREPARE p AS {sql}; EXPLAIN EXECUTE p ({given}); DEALLOCATE p");
                let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(db).await?;
                Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
            }
        }
    }
}
