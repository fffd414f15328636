//! How each backend is opened, and which of its connections is used again.
//!
//! SQLite has one writing connection, so that writers queue here and not in
//! SQLite's busy loop, and a few for reading beside it. Its log is flushed at
//! every commit (`synchronous = FULL`): an answered heartbeat is a stored one.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::ready;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::checkpoint;
use super::condition::Condition;
use super::error::StoreError;
use super::pool::{PoolOptions, Pools};
use super::sole;

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
/// What Postgres says while it starts or recovers.
const STARTING: &str = "57P03";
/// The pause before it is asked again.
const POSTGRES_RETRY: Duration = Duration::from_millis(200);
/// A Postgres connection that idled this long is tried before it is used.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Opens what the URL names.
pub(super) async fn pools(
    url: &str,
    options: &PoolOptions,
    condition: &Arc<Condition>,
) -> Result<Pools, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => sqlite(url, options, condition).await,
        Some("postgres" | "postgresql") => postgres(url, options, condition).await,
        _ => Err(bad_url(url, "expected sqlite:PATH or postgres://USER@HOST/DATABASE")),
    }
}

async fn sqlite(url: &str, options: &PoolOptions, condition: &Arc<Condition>) -> Result<Pools, StoreError> {
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
    if options.create {
        sole::make(connect.get_filename()).map_err(sqlx::Error::Io)?;
    }
    let pool = || {
        let condition = condition.clone();
        SqlitePoolOptions::new()
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .test_before_acquire(false)
            // Whatever SQLite did to a transaction by itself: what sqlx still counts
            // is none any more, and a connection that saw an error is not repaired.
            .before_acquire(move |connection, idle| {
                let clean = !connection.is_in_transaction() && condition.trusts(idle.age);
                ready(Ok(clean)).boxed()
            })
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

async fn postgres(url: &str, options: &PoolOptions, condition: &Arc<Condition>) -> Result<Pools, StoreError> {
    let connect = PgConnectOptions::from_str(url)
        .map_err(|_| bad_url(url, "expected postgres://USER@HOST/DATABASE"))?
        .application_name("sprag")
        .statement_cache_capacity(STATEMENT_CACHE)
        .disable_statement_logging();
    let patience = Duration::from_millis(options.acquire_timeout_ms);
    let first = timeout(patience, first(&connect)).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let statement_timeout = options.statement_timeout_ms;
    let condition = condition.clone();
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(patience)
        // One round trip less for each statement of a busy host.
        .test_before_acquire(false)
        .before_acquire(move |connection, idle| {
            let in_use = idle.idle_for < TRY_AFTER_IDLE && !connection.is_in_transaction();
            let trusted = condition.trusts(idle.idle_for);
            if in_use && trusted { ready(Ok(true)).boxed() } else { is_usable(connection, trusted).boxed() }
        })
        .after_connect(move |connection, _| Box::pin(prepare_session(connection, statement_timeout)))
        .connect_with(connect)
        .await?;
    first.close().await?;
    Ok(Pools::Postgres(pool))
}

/// The pool would try again whatever came, and in the end say only that its time is over.
async fn first(connect: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    loop {
        match connect.connect().await {
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some(STARTING) => {
                sleep(POSTGRES_RETRY).await;
            }
            Err(error @ sqlx::Error::Database(_)) => return Err(StoreError::refused(error)),
            other => return Ok(other?),
        }
    }
}

/// Whether a pooled connection can be used; false ends it and opens another. After
/// an error it is asked more: it may be one to a server that takes no writes any more.
async fn is_usable(connection: &mut PgConnection, trusted: bool) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        return Ok(false);
    }
    if trusted {
        return Ok(connection.ping().await.is_ok());
    }
    let read_only = sqlx::query_scalar::<_, String>("SHOW transaction_read_only").fetch_one(connection).await;
    Ok(read_only.is_ok_and(|read_only| read_only == "off"))
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
