//! The database: a hundred thousand registered workspaces, each online with a
//! token of its own, put in in bulk; and what is in it afterwards.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sprag::http::hash_token;
use sprag::store::Store;
use sqlx::{PgPool, SqlitePool};

/// Rows of one statement.
const CHUNK: usize = 10_000;

/// What every agent says of its own errors, so that its row can be known by it.
const ERROR_RATE: f64 = 0.0125;

/// Each has sent heartbeats before, so that the row already has the room that one
/// takes. No loop has its turn while this is measured: that work would fall on both
/// handlers alike, but in bursts.
const TABLES: &str = "
    INSERT INTO workspaces (id, name, kind, runtime, provider, instance_id, labels, persistent_volume,
        created_at, status, status_since, version, last_heartbeat_at, error_rate, active_tasks,
        busy_at, uptime_seconds, current_task, silence_at)
    SELECT b.id, b.id, 'workspace', 'claude-code', 'fly', b.id, '{}', FALSE,
        clock.now, 'online', clock.now, 2, clock.now, 0.0375, 1,
        clock.now, 86340, 'reading the issue.', clock.now + 3600000 FROM b CROSS JOIN clock";
const TOKENS: &str = "
    INSERT INTO tokens (hash, id, workspace_id, created_at)
    SELECT b.hash, b.id, b.id, clock.now FROM b CROSS JOIN clock";
const SQLITE_B: &str = "
    WITH b AS (SELECT value AS id, substr($2, key * 32 + 1, 32) AS hash FROM json_each($1))";
const POSTGRES_B: &str = "
    WITH b AS (SELECT * FROM UNNEST($1::text[], $2::bytea[]) AS u (id, hash))";
const STORED: &str = "
    SELECT id FROM workspaces WHERE last_heartbeat_at >= $1 AND error_rate = $2 AND status = 'online'";

/// Where the random digits of an id begin.
const RANDOM: usize = 24;

/// The agents, by their place.
pub struct Fleet {
    ids: Vec<String>,
}

impl Fleet {
    /// The ids, in the order in which they were made.
    fn new(workspaces: usize) -> Self {
        Self { ids: (0..workspaces).map(|_| uuid::Uuid::now_v7().to_string()).collect() }
    }

    /// Neighbours in the fleet are to be none in the database.
    fn shuffled(mut self) -> Self {
        self.ids.sort_unstable_by(|a, b| a[RANDOM..].cmp(&b[RANDOM..]));
        self
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn token(&self, place: usize) -> String {
        token(&self.ids[place])
    }

    /// What a healthy agent sends.
    pub fn body(&self, place: usize) -> String {
        json!({
            "workspace_id": self.ids[place],
            "error_rate": ERROR_RATE,
            "sample_error": "",
            "active_tasks": 2,
            "uptime_seconds": 86_400,
            "current_task": "reading the design",
            "runtime_state": "",
            "mcp_server_present": true,
            "model_present": true,
            "loaded_mcp_tools": ["create_workspace", "list_workspaces"],
        })
        .to_string()
    }
}

fn token(id: &str) -> String {
    format!("sprag_{}{}", id.replace('-', ""), "0".repeat(32))
}

/// A database of the bench's own.
pub struct Database {
    pub url: String,
}

impl Database {
    pub fn sqlite(dir: &Path) -> Self {
        Self { url: format!("sqlite:{}", dir.join("bench.db").display()) }
    }

    /// A new one in a cluster, whose superuser's URL this is.
    pub async fn postgres(cluster: &str) -> Result<Self> {
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        let pool = PgPool::connect(cluster).await.context("connecting to the cluster")?;
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await?;
        pool.close().await;
        let (server, _) = cluster.rsplit_once('/').context("no database in the cluster's URL")?;
        Ok(Self { url: format!("{server}/{name}") })
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// Makes the tables and the workspaces.
    pub async fn fill(&self, workspaces: usize) -> Result<Fleet> {
        let store = Store::connect(&self.url).await?;
        store.migrate().await?;
        store.close().await;
        let fleet = Fleet::new(workspaces);
        if self.is_sqlite() {
            let pool = SqlitePool::connect(&self.url).await?;
            for ids in fleet.ids.chunks(CHUNK) {
                let hashes: Vec<u8> = ids.iter().flat_map(|id| hash_token(&token(id)).0).collect();
                for table in [TABLES, TOKENS] {
                    let sql = sqlx::AssertSqlSafe(format!("{SQLITE_B}{table}"));
                    let ids = serde_json::to_string(ids)?;
                    sqlx::query(sql).bind(ids).bind(hashes.as_slice()).execute(&pool).await?;
                }
            }
            pool.close().await;
        } else {
            let pool = PgPool::connect(&self.url).await?;
            for ids in fleet.ids.chunks(CHUNK) {
                let hashes: Vec<_> = ids.iter().map(|id| hash_token(&token(id)).0.to_vec()).collect();
                for table in [TABLES, TOKENS] {
                    let sql = sqlx::AssertSqlSafe(format!("{POSTGRES_B}{table}"));
                    sqlx::query(sql).bind(ids).bind(hashes.as_slice()).execute(&pool).await?;
                }
            }
            // What autovacuum has long done where a fleet has been running.
            sqlx::query("VACUUM (ANALYZE)").execute(&pool).await?;
            pool.close().await;
        }
        Ok(fleet.shuffled())
    }

    /// The database's own time, in milliseconds.
    pub async fn now(&self) -> Result<i64> {
        const NOW: &str = "SELECT now FROM clock";
        if self.is_sqlite() {
            let pool = SqlitePool::connect(&self.url).await?;
            Ok(sqlx::query_scalar(NOW).fetch_one(&pool).await?)
        } else {
            let pool = PgPool::connect(&self.url).await?;
            Ok(sqlx::query_scalar(NOW).fetch_one(&pool).await?)
        }
    }

    /// Every answered heartbeat is stored; how many workspaces they were.
    pub async fn check(&self, fleet: &Fleet, answered: &[usize], since: i64) -> Result<usize> {
        let stored: Vec<String> = if self.is_sqlite() {
            let pool = SqlitePool::connect(&self.url).await?;
            sqlx::query_scalar(STORED).bind(since).bind(ERROR_RATE).fetch_all(&pool).await?
        } else {
            let pool = PgPool::connect(&self.url).await?;
            sqlx::query_scalar(STORED).bind(since).bind(ERROR_RATE).fetch_all(&pool).await?
        };
        let stored: HashSet<_> = stored.into_iter().collect();
        let answered: HashSet<_> = answered.iter().map(|place| &fleet.ids[*place]).collect();
        let lost = answered.iter().filter(|id| !stored.contains(**id)).count();
        ensure!(lost == 0, "{lost} workspaces' heartbeats were answered and are not in the database");
        Ok(answered.len())
    }
}
