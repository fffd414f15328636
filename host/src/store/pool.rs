//! The two backends: how each is opened, migrated and closed, and the few
//! macros that let one statement run on either.
//!
//! SQLite has one writing connection, so that writers queue here and not in
//! SQLite's busy loop, and a few for reading beside it. Its log is flushed at
//! every commit (`synchronous = FULL`): an answered heartbeat is a stored one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction,
};
use tokio::time::{Instant, sleep};

use super::checkpoint::{self, Checkpoint};
use super::error::StoreError;

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Connections that read SQLite beside the one that writes.
const SQLITE_READERS: u32 = 4;
/// How long SQLite waits for another process that writes.
const SQLITE_BUSY: Duration = Duration::from_secs(5);
/// The pause before a file that another process is just making is opened again.
const SQLITE_RETRY: Duration = Duration::from_millis(20);
/// Pages of SQLite's cache, per reader: negative, so KiB.
const SQLITE_CACHE_KIB: &str = "-16384";
/// The same of the writer: heartbeats touch every row of the registry in turn.
const SQLITE_WRITER_CACHE_KIB: &str = "-131072";
/// Bytes of a page, of a file that is made. A heartbeat changes one row of some
/// hundred bytes, and the log takes a whole page for it: a quarter of SQLite's own
/// size makes a batch of 256 a third cheaper (12.6 instead of 16.1 µs a row).
const SQLITE_PAGE: u32 = 1024;
/// Rows of an answer that may wait between SQLite's thread and its reader.
const SQLITE_ROW_BUFFER: usize = 512;
/// More than there are statements here, so that each is prepared once.
const STATEMENT_CACHE: usize = 256;
/// A Postgres connection that idled this long is tried before it is used.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// How many connections there may be, and how long to wait for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolOptions {
    /// Of Postgres. SQLite has one for writing and four for reading.
    pub max_connections: u32,
    /// Waiting longer than this for a connection, in milliseconds, is
    /// [`StoreError::Unavailable`].
    pub acquire_timeout_ms: u64,
    /// How long a statement of Postgres may take, and wait for a lock, in milliseconds.
    pub statement_timeout_ms: u64,
    /// Whether SQLite's file is made where there is none.
    #[serde(skip, default = "yes")]
    pub create: bool,
}

fn yes() -> bool {
    true
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { max_connections: 16, acquire_timeout_ms: 5_000, statement_timeout_ms: 10_000, create: true }
    }
}

/// The registry's database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
}

#[derive(Clone)]
enum Pools {
    Sqlite { writer: SqlitePool, readers: SqlitePool, checkpoint: Arc<Checkpoint> },
    Postgres(PgPool),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.backend()).finish()
    }
}

/// The same thing of either backend: a pool, a transaction, a connection.
pub(super) enum On<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
pub(super) type Tx = On<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>;

/// Something a statement can run on: a pool or a transaction's connection.
macro_rules! on {
    ($executor:expr, $db:ident => $body:expr) => {
        match $executor {
            $crate::store::pool::On::Sqlite($db) => $body,
            $crate::store::pool::On::Postgres($db) => $body,
        }
    };
}

/// Runs a statement that both backends understand; how many rows it changed.
macro_rules! execute {
    ($executor:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        on!($executor, db => sqlx::query($sql)$(.bind($bind))*.execute(db).await.map(|r| r.rows_affected()))
            .map_err($crate::store::StoreError::from)
    };
}

/// The rows of a query that both backends understand, each a `$row`.
macro_rules! fetch_all {
    ($executor:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        on!($executor, db => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_all(db).await)
            .map_err($crate::store::StoreError::from)
    };
}

/// Like [`fetch_all`], for at most one row.
macro_rules! fetch_optional {
    ($executor:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        on!($executor, db => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_optional(db).await)
            .map_err($crate::store::StoreError::from)
    };
}

impl Store {
    /// Opens `sqlite:PATH` (made where absent; `sqlite::memory:` is refused,
    /// since it survives nothing) or `postgres://…`. Does not migrate.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`]; [`StoreError::Unavailable`] where nothing answers.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, &PoolOptions::default()).await
    }

    /// [`Store::connect`], but never makes a file: for those who only read.
    pub async fn connect_existing(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, &PoolOptions { create: false, ..PoolOptions::default() }).await
    }

    /// [`Store::connect`] with other bounds than the default ones.
    pub async fn connect_with(url: &str, options: &PoolOptions) -> Result<Self, StoreError> {
        let pools = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => connect_sqlite(url, options).await?,
            Some("postgres" | "postgresql") => connect_postgres(url, options).await?,
            _ => return Err(bad_url(url, "expected sqlite:PATH or postgres://USER@HOST/DATABASE")),
        };
        Ok(Self { pools })
    }

    /// Which database it is.
    pub const fn backend(&self) -> Backend {
        match self.pools {
            Pools::Sqlite { .. } => Backend::Sqlite,
            Pools::Postgres(_) => Backend::Postgres,
        }
    }

    /// Brings the schema up to date; safe to run from several hosts at once.
    ///
    /// # Errors
    /// [`StoreError::Migration`], also where the schema is newer than this binary.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.pools {
            Pools::Sqlite { writer, .. } => {
                // sqlx takes no lock for SQLite; the write lock does.
                let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
                // Not `run`, whose future is not `Send` for a borrowed connection.
                SQLITE_MIGRATIONS.run_direct(None, &mut *tx, false).await?;
                tx.commit().await?;
            }
            Pools::Postgres(pool) => {
                // sqlx's advisory lock belongs to the session: one that failed
                // must not go back to the pool with it.
                let mut connection = pool.acquire().await?.detach();
                sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0")
                    .execute(&mut connection)
                    .await?;
                let migrated = POSTGRES_MIGRATIONS.run_direct(None, &mut connection, false).await;
                let closed = connection.close().await;
                migrated?;
                closed?;
            }
        }
        Ok(())
    }

    /// One trivial statement: is the database there?
    pub async fn ping(&self) -> Result<(), StoreError> {
        fetch_optional!(self.read(), (i64,), "SELECT CAST(1 AS BIGINT)").map(drop)
    }

    /// Ends every connection; SQLite's log is folded into its file.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers, .. } => {
                // The writer is the last, and so the one that folds.
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    /// Where a query runs that changes nothing.
    pub(super) fn read(&self) -> On<&SqlitePool, &PgPool> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => On::Sqlite(readers),
            Pools::Postgres(pool) => On::Postgres(pool),
        }
    }

    /// Where a single statement runs that changes something.
    pub(super) fn write(&self) -> On<&SqlitePool, &PgPool> {
        match &self.pools {
            Pools::Sqlite { writer, .. } => On::Sqlite(writer),
            Pools::Postgres(pool) => On::Postgres(pool),
        }
    }

    /// After a commit of so many rows: SQLite's log may be long enough.
    pub(super) fn wrote(&self, rows: usize) {
        if let Pools::Sqlite { writer, readers, checkpoint } = &self.pools {
            checkpoint.wrote(rows, writer, readers);
        }
    }

    /// Begins a transaction that writes. In SQLite it is the only one.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.pools {
            Pools::Sqlite { writer, .. } => On::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => On::Postgres(pool.begin().await?),
        })
    }
}

impl Tx {
    /// What its statements run on.
    pub(super) fn on(&mut self) -> On<&mut SqliteConnection, &mut PgConnection> {
        match self {
            On::Sqlite(tx) => On::Sqlite(tx),
            On::Postgres(tx) => On::Postgres(tx),
        }
    }

    pub(super) const fn backend(&self) -> Backend {
        match self {
            On::Sqlite(_) => Backend::Sqlite,
            On::Postgres(_) => Backend::Postgres,
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        on!(self, tx => tx.commit().await).map_err(StoreError::from)
    }

    /// Like a drop, but waits until it is done.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        on!(self, tx => tx.rollback().await).map_err(StoreError::from)
    }

    /// Waits until no other transaction holds the lock of this name. SQLite's
    /// write lock already serves.
    pub(super) async fn lock(&mut self, lock: Lock) -> Result<(), StoreError> {
        if let On::Postgres(tx) = self {
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock as i64).execute(&mut **tx).await?;
        }
        Ok(())
    }
}

/// What Postgres serialises by an advisory lock, because no one row stands for it.
#[derive(Clone, Copy)]
#[repr(i64)]
pub(super) enum Lock {
    /// The shape of the tree: two moves, each fine by itself, can close a circle.
    Tree = 0x5370_7261_0001,
    /// The log of activations.
    Activations = 0x5370_7261_0002,
}

async fn connect_sqlite(url: &str, options: &PoolOptions) -> Result<Pools, StoreError> {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if rest.contains(":memory:") || rest.contains("mode=memory") {
        return Err(bad_url(url, "a database in memory survives nothing; name a file"));
    }
    if rest.is_empty() || rest.starts_with('?') {
        return Err(bad_url(url, "expected the path of a file after sqlite:"));
    }
    let connect = SqliteConnectOptions::from_str(url)
        .map_err(|_| bad_url(url, "expected sqlite:PATH"))?
        .create_if_missing(options.create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(SQLITE_BUSY)
        .statement_cache_capacity(STATEMENT_CACHE)
        .row_buffer_size(SQLITE_ROW_BUFFER)
        .page_size(SQLITE_PAGE)
        .pragma("wal_autocheckpoint", checkpoint::AT_THE_LATEST)
        .disable_statement_logging();
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writer = connect.clone().pragma("cache_size", SQLITE_WRITER_CACHE_KIB);
    let writer = open_writer(|| pool().max_connections(1), writer).await?;
    // Not opened read-only: a reader of a log must be able to write its index.
    let reader = connect.pragma("cache_size", SQLITE_CACHE_KIB).pragma("query_only", "1");
    let readers = pool().max_connections(SQLITE_READERS).connect_lazy_with(reader);
    Ok(Pools::Sqlite { writer, readers, checkpoint: Arc::default() })
}

/// Turning the log on takes the whole file for a moment, and SQLite does not wait
/// where another process does the same: only the making of a file is such a race.
async fn open_writer(
    pool: impl Fn() -> SqlitePoolOptions,
    writer: SqliteConnectOptions,
) -> Result<SqlitePool, StoreError> {
    let until = Instant::now() + SQLITE_BUSY;
    loop {
        match pool().connect_with(writer.clone()).await.map_err(StoreError::from) {
            Err(error) if error.is_busy() && Instant::now() < until => sleep(SQLITE_RETRY).await,
            opened => return opened,
        }
    }
}

async fn connect_postgres(url: &str, options: &PoolOptions) -> Result<Pools, StoreError> {
    let connect = PgConnectOptions::from_str(url)
        .map_err(|_| bad_url(url, "expected postgres://USER@HOST/DATABASE"))?
        .application_name("sprag")
        .statement_cache_capacity(STATEMENT_CACHE)
        .disable_statement_logging();
    let timeout = options.statement_timeout_ms;
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
        // One round trip less for each statement of a busy host.
        .test_before_acquire(false)
        .before_acquire(|connection, idle| Box::pin(is_alive(connection, idle)))
        .after_connect(move |connection, _| Box::pin(prepare_session(connection, timeout)))
        .connect_with(connect)
        .await?;
    Ok(Pools::Postgres(pool))
}

/// Whether a pooled connection can be used; false ends it and opens another.
async fn is_alive(connection: &mut PgConnection, idle: PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    Ok(idle.idle_for < TRY_AFTER_IDLE || connection.ping().await.is_ok())
}

/// A statement that waits for ever would hold up every heartbeat behind it.
///
/// Every statement here touches few rows by their keys. Left to itself, Postgres
/// reads the whole table for a batch of heartbeats while it has no statistics of
/// a new table yet (35 ms instead of 2 at 100,000 rows), and plans it anew each time.
async fn prepare_session(connection: &mut PgConnection, timeout_ms: u64) -> Result<(), sqlx::Error> {
    let settings = format!(
        "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms};
        SET plan_cache_mode = force_generic_plan;
        SET enable_hashjoin = off;
        SET enable_mergejoin = off"
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(drop)
}

/// Shows a file's path, but of any other URL only the scheme: the rest may hold a password.
fn bad_url(url: &str, why: &'static str) -> StoreError {
    let url = match url.split_once(':') {
        Some(("sqlite", _)) => url.to_owned(),
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => format!("{scheme}:…"),
        _ => "the database URL".to_owned(),
    };
    StoreError::BadUrl { url, why }
}
