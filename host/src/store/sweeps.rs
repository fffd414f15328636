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

const NOW: &str = "(SELECT now FROM clock)";

const TRUSTED_FROM: &str = "(SELECT trusted_from FROM fleet)";

const CLOCK_FROM: &str = "(SELECT clock_from FROM fleet)";

/// Time to say something, for those that could not be heard.
const GRACE_MS: u64 = 60_000;

const HOUR_MS: u64 = 3_600_000;

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

    /// How far ahead its loop plans at the least.
    fn plans(self, after_ms: u64, every_ms: u64) -> u64 {
        let grace = match self {
            Sweep::Instances | Sweep::Provisioning | Sweep::Idle => GRACE_MS,
            Sweep::Silence | Sweep::Down => 0,
        };
        after_ms.max(every_ms).max(grace)
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

    /// Since when the row has been so. Silence while nobody listened proves nothing,
    /// and what a clock said before it jumped says nothing by this one.
    fn since(self) -> String {
        match self {
            Sweep::Silence | Sweep::Down => format!(
                "GREATEST(COALESCE({}, 0), {}, {TRUSTED_FROM})",
                past("last_heartbeat_at"),
                past("status_since")
            ),
            Sweep::Instances => CLOCK_FROM.to_owned(),
            Sweep::Provisioning => format!("GREATEST({}, {CLOCK_FROM})", past("status_since")),
            Sweep::Idle => format!("GREATEST({}, {CLOCK_FROM})", past("COALESCE(busy_at, created_at)")),
        }
    }

    /// From when on it is asked about: `$1` milliseconds after `since`, and its own
    /// limit. Whoever could not be heard for a while gets a minute to say something;
    /// so does a box whose agent may have been heard of by another clock only.
    fn from(self) -> String {
        let later = |from: String| format!("GREATEST({from}, {TRUSTED_FROM} + {GRACE_MS})");
        let from = format!("{} + $1", self.since());
        match self {
            Sweep::Idle => later(format!("{from} + hibernation_idle_minutes * 60000")),
            Sweep::Provisioning => later(from),
            Sweep::Instances => format!("{from} + {GRACE_MS}"),
            Sweep::Silence | Sweep::Down => from,
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
        self.update(backend, true, &self.next(), "$2", "")
    }

    /// Where it could be due next, as far ahead as anybody plans.
    fn next(self) -> String {
        format!("LEAST({}, {})", self.from(), farthest())
    }

    fn take(self, backend: Backend) -> String {
        let returning = format!(
            " RETURNING {}, {} AS since, {NOW} AS taken_at, {CLOCK_FROM} AS clock_from,
                (SELECT clock_ahead FROM fleet) AS clock_ahead",
            facts!("(SELECT now FROM clock)"),
            self.since()
        );
        self.update(backend, false, &self.again(), "$3", &returning)
    }

    /// When it is looked at again: `$2` milliseconds later; what has been silent or
    /// down for long, ever more seldom, but every hour. Never further ahead than the
    /// clock has run evenly, or it would be recalled.
    fn again(self) -> String {
        let seldom = |since: String, part| {
            format!("{NOW} + GREATEST($2, LEAST(({NOW} - {since}) / {part}, {HOUR_MS}))")
        };
        match self {
            Sweep::Down => seldom(format!("GREATEST({}, {CLOCK_FROM})", past("status_since")), 4),
            // A policy's window of eight minutes is still met to the tick.
            Sweep::Silence => seldom(self.since(), 32),
            _ => format!("{NOW} + $2"),
        }
    }

    /// What lies further ahead than anybody plans was planned by a clock that has been
    /// set back since (or before one was found to have been set ahead). It stands at
    /// the far end of the index.
    fn recall(self, backend: Backend) -> String {
        let turn = format!(
            "SELECT id FROM {} WHERE {} AND {column} > {} ORDER BY {column} DESC LIMIT $2",
            self.table(backend),
            self.watched(),
            farthest(),
            column = self.column(),
        );
        self.set(backend, &turn, &self.next(), "")
    }

    fn update(self, backend: Backend, heard: bool, to: &str, limit: &str, returning: &str) -> String {
        self.set(backend, &self.turn(backend, heard, limit), to, returning)
    }

    fn set(self, backend: Backend, turn: &str, to: &str, returning: &str) -> String {
        let set = format!("{} = {to}, {}", self.column(), mended());
        let sql = match backend {
            Backend::Sqlite => format!("UPDATE workspaces SET {set} WHERE id IN ({turn}){returning}"),
            // Whoever is writing a row just now has news of it; and two hosts share the work.
            Backend::Postgres => format!(
                "WITH due AS MATERIALIZED ({turn} FOR NO KEY UPDATE SKIP LOCKED)
                UPDATE workspaces SET {set} FROM due WHERE workspaces.id = due.id{returning}"
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

/// A time that lies ahead was written before the clock was set back. By as much as it
/// is ahead it is taken to be past, up to a minute: a small step makes no row old. What
/// was before a jump that was noticed counts from there.
fn past(column: &str) -> String {
    format!(
        "(CASE WHEN {column} > {NOW}
            THEN LEAST({NOW}, GREATEST(2 * {NOW} - {column}, {NOW} - {GRACE_MS}, {TRUSTED_FROM}))
        ELSE {column} END)"
    )
}

/// Whatever else is written of a row, its times are made right, or they would come
/// true when the clock is there again.
fn mended() -> String {
    let mend = |column: &str| format!("{column} = {}", past(column));
    ["last_heartbeat_at", "status_since", "busy_at"].map(mend).join(", ")
}

/// Nobody plans further ahead than this: `$3` milliseconds (the least that its loop
/// has to), or for as long as the clock has run evenly, up to an hour. So right after a
/// jump whatever was planned before it stands out.
fn farthest() -> String {
    format!("{NOW} + GREATEST($3, LEAST({NOW} - {CLOCK_FROM}, {HOUR_MS}))")
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
    clock_from: i64,
    clock_ahead: i64,
}

impl DueRow {
    /// What is down says nothing more: how long ago it was heard of is reckoned by the
    /// clock as it was, or one that is set ahead by a day would have it given up.
    fn reckon(facts: &mut Snapshot, clock_from: i64, ahead: i64) {
        let from = u64::try_from(clock_from).unwrap_or(0).min(facts.now);
        let ahead = u64::try_from(ahead).unwrap_or(0);
        let reckon = |at: &mut Timestamp| {
            if *at < from {
                *at = at.saturating_add(ahead).min(from);
            }
        };
        reckon(&mut facts.workspace.status_since);
        facts.workspace.last_heartbeat_at.as_mut().map(reckon);
    }
}

impl Store {
    /// Has up to `limit` rows looked at when they could be due, that a clock has put
    /// off which has been set since; how many. `every_ms`: how often the loop looks at a row.
    pub async fn recall(
        &self,
        sweep: Sweep,
        after_ms: u64,
        every_ms: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.plan_anew(sweep.recall(self.backend()), after_ms, sweep.plans(after_ms, every_ms), limit).await
    }

    /// Moves up to `limit` rows that were heard of meanwhile to where they could
    /// be due next; how many.
    pub async fn rearm(
        &self,
        sweep: Sweep,
        after_ms: u64,
        every_ms: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        if sweep == Sweep::Instances {
            // Its turn is all that makes a box due.
            return Ok(0);
        }
        self.plan_anew(sweep.rearm(self.backend()), after_ms, sweep.plans(after_ms, every_ms), limit).await
    }

    /// `least`: how far ahead the loop plans at the least, in milliseconds.
    async fn plan_anew(&self, sql: String, after_ms: u64, least: u64, limit: u32) -> Result<u64, StoreError> {
        execute!(self.write(), AssertSqlSafe(sql), count(after_ms), i64::from(limit), count(least))
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
                Ok(mut facts) => {
                    if sweep == Sweep::Down {
                        DueRow::reckon(&mut facts, row.clock_from, row.clock_ahead);
                    }
                    taken.due.push(Due { since: since.min(facts.now), facts, taken_at });
                }
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

    /// Its plan for recalling what was put off; for tests.
    pub async fn plan_of_recalling(&self, sweep: Sweep) -> Result<Vec<String>, StoreError> {
        self.plan(&sweep.recall(self.backend()), &[0, 0, 0]).await
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
