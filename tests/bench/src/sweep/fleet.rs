//! The rows: all of them live, heard of, and due in a day, but for those that a
//! round makes due.

use anyhow::{Context as _, Result, ensure};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};

const SQLITE_N: &str = "
    WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < $1),
    r AS (SELECT n, '019a8c2e-7b10-7000-8000-' || printf('%012d', n) AS id FROM g)";
const POSTGRES_N: &str = "
    WITH r AS (SELECT n, '019a8c2e-7b10-7000-8000-' || LPAD(n::text, 12, '0') AS id
        FROM generate_series(1, $1) AS g (n))";

/// As a fleet is: a few kinds of agent at three providers, some degraded, each
/// heard of within the last quarter of a minute.
const ROWS: &str = "
    INSERT INTO workspaces (id, name, kind, runtime, provider, instance_id, labels, persistent_volume,
        hibernation_idle_minutes, created_at, status, status_since, version, last_heartbeat_at, error_rate,
        active_tasks, uptime_seconds, current_task, busy_at, silence_at, probe_at, idle_at)
    SELECT r.id, 'agent-' || r.n, 'workspace',
        CASE r.n % 10 WHEN 0 THEN 'hermes' WHEN 1 THEN 'codex' ELSE 'claude-code' END,
        CASE r.n % 3 WHEN 0 THEN 'fly' WHEN 1 THEN 'metal' ELSE 'cloud' END,
        r.id || '-e1', '{\"team\":\"search\"}', FALSE,
        CASE WHEN r.n % 4 = 0 THEN 30 END,
        clock.now - 86400000, CASE WHEN r.n % 20 = 0 THEN 'degraded' ELSE 'online' END,
        clock.now - 3600000, 2, clock.now - r.n * 7919 % 15000, 0.0125,
        1, 86340, 'reading the issue', clock.now - r.n * 7919 % 15000,
        clock.now + 86400000 + r.n * 7919 % 60000, clock.now + 86400000 + r.n * 7919 % 60000,
        clock.now + 86400000 + r.n * 7919 % 60000
    FROM r CROSS JOIN clock";

/// Not heard of for ten minutes, longer than any shipped window; and its time has come.
const DUE: &str = "
    UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock) - 600000,
        silence_at = (SELECT now FROM clock) - 1000 WHERE id ";

/// What was silent before the first pulse would prove nothing.
const TRUSTED: &str = "UPDATE fleet SET trusted_from = 0";

const HEARD: &str = "
    UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock),
        silence_at = (SELECT now FROM clock) + 86400000 WHERE id ";

const SQLITE_IDS: &str = "IN (SELECT value FROM json_each($1))";
const POSTGRES_IDS: &str = "= ANY($1)";

const OFFLINE: &str = "SELECT COUNT(*) FROM workspaces WHERE status = 'offline'";

/// What a round does with its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Ticked,
    Taken,
}

/// The bench's own way into the database.
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

pub struct Fleet {
    pool: Pool,
    url: String,
    rows: usize,
    /// Rows that are made due, in all rounds together.
    due: usize,
}

impl Fleet {
    /// Fills an empty database, and has it learn what is in it.
    pub async fn make(url: &str, rows: usize, due: usize) -> Result<Self> {
        ensure!(due <= rows, "{rows} rows are too few: {due} are made due");
        let sql = |n: &str| AssertSqlSafe(format!("{n}{ROWS}"));
        let count = i64::try_from(rows)?;
        let pool = if url.starts_with("sqlite:") {
            let pool = SqlitePool::connect(url).await?;
            sqlx::query(sql(SQLITE_N)).bind(count).execute(&pool).await?;
            sqlx::query("ANALYZE").execute(&pool).await?;
            Pool::Sqlite(pool)
        } else {
            let pool = PgPool::connect(url).await?;
            sqlx::query(sql(POSTGRES_N)).bind(count).execute(&pool).await?;
            // The disk still has the filling to do otherwise, beside the measurement.
            for settle in ["VACUUM (ANALYZE) workspaces", "CHECKPOINT"] {
                sqlx::query(settle).execute(&pool).await?;
            }
            Pool::Postgres(pool)
        };
        Ok(Self { pool, url: url.to_owned(), rows, due })
    }

    /// The rows of a round, from all over the table, and no other round's.
    pub fn turn(&self, turn: Turn, round: usize, rows: usize) -> Vec<String> {
        let turns = self.due / rows;
        let place = 2 * round + usize::from(turn == Turn::Taken);
        let stride = self.rows / self.due;
        (0..rows)
            .map(|k| format!("019a8c2e-7b10-7000-8000-{:012}", 1 + (k * turns + place) * stride))
            .collect()
    }

    pub async fn make_due(&self, ids: &[String]) -> Result<()> {
        match &self.pool {
            Pool::Sqlite(pool) => sqlx::query(TRUSTED).execute(pool).await.map(|_| ())?,
            Pool::Postgres(pool) => sqlx::query(TRUSTED).execute(pool).await.map(|_| ())?,
        }
        self.update(DUE, ids).await
    }

    /// Puts rows back where the others are.
    pub async fn hear(&self, ids: &[String]) -> Result<()> {
        self.update(HEARD, ids).await
    }

    async fn update(&self, set: &str, ids: &[String]) -> Result<()> {
        let changed = match &self.pool {
            Pool::Sqlite(pool) => {
                let sql = AssertSqlSafe(format!("{set}{SQLITE_IDS}"));
                sqlx::query(sql).bind(serde_json::to_string(ids)?).execute(pool).await?.rows_affected()
            }
            Pool::Postgres(pool) => {
                let sql = AssertSqlSafe(format!("{set}{POSTGRES_IDS}"));
                sqlx::query(sql).bind(ids).execute(pool).await?.rows_affected()
            }
        };
        ensure!(usize::try_from(changed)? == ids.len(), "{changed} rows of {} were found", ids.len());
        Ok(())
    }

    pub async fn count_offline(&self) -> Result<i64> {
        Ok(match &self.pool {
            Pool::Sqlite(pool) => sqlx::query_scalar(OFFLINE).fetch_one(pool).await?,
            Pool::Postgres(pool) => sqlx::query_scalar(OFFLINE).fetch_one(pool).await?,
        })
    }

    /// A cluster keeps it otherwise; SQLite's goes with its folder.
    pub async fn drop_database(self) -> Result<()> {
        let Pool::Postgres(pool) = self.pool else { return Ok(()) };
        pool.close().await;
        let (server, name) = self.url.rsplit_once('/').context("no database in the URL")?;
        let pool = PgPool::connect(&format!("{server}/postgres")).await?;
        let sql = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        sqlx::query(sql).execute(&pool).await?;
        pool.close().await;
        Ok(())
    }
}
