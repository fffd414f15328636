//! The two backends: transactions, migrations, and the few macros that let one
//! statement run on either. Whatever runs on one is heard of by its [`Condition`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use super::checkpoint::Checkpoint;
use super::condition::{Condition, Of, Outcome};
use super::connect;
use super::error::StoreError;

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

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
    condition: Arc<Condition>,
}

#[derive(Clone)]
pub(super) enum Pools {
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

/// Something a statement can run on, a pool or a transaction's connection, and who hears how it went.
pub(super) struct Executor<'a, S, P> {
    pub(super) db: On<S, P>,
    pub(super) outcome: Outcome<'a>,
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
pub(super) struct Tx {
    db: On<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>,
    condition: Arc<Condition>,
    wrote: bool,
}

/// What runs on either backend.
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
    ($executor:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let $crate::store::pool::Executor { db, outcome } = $executor;
        let ended = on!(db, db => sqlx::query($sql)$(.bind($bind))*.execute(db).await.map(|r| r.rows_affected()));
        outcome.of(ended, |rows| *rows > 0)
    }};
}

/// The rows of a query that both backends understand, each a `$row`.
macro_rules! fetch_all {
    ($executor:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let $crate::store::pool::Executor { db, outcome } = $executor;
        let ended = on!(db, db => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_all(db).await);
        outcome.fetched(ended, |rows| !rows.is_empty())
    }};
}

/// Like [`fetch_all`], for at most one row.
macro_rules! fetch_optional {
    ($executor:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let $crate::store::pool::Executor { db, outcome } = $executor;
        let ended = on!(db, db => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_optional(db).await);
        outcome.fetched(ended, Option::is_some)
    }};
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
        let condition = Arc::new(Condition::new());
        let pools = connect::pools(url, options, &condition).await?;
        Ok(Self { pools, condition })
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

    /// Why writes fail, in words for everybody, if the last ones did: a database
    /// that answers may take none.
    pub fn refuses_writes(&self) -> Option<&'static str> {
        self.condition.refuses_writes()
    }

    /// Where a query runs that changes nothing.
    pub(super) fn read(&self) -> Executor<'_, &SqlitePool, &PgPool> {
        let db = match &self.pools {
            Pools::Sqlite { readers, .. } => On::Sqlite(readers),
            Pools::Postgres(pool) => On::Postgres(pool),
        };
        Executor { db, outcome: Outcome { condition: &self.condition, of: Of::Reading } }
    }

    /// Where a single statement runs that changes something.
    pub(super) fn write(&self) -> Executor<'_, &SqlitePool, &PgPool> {
        let db = match &self.pools {
            Pools::Sqlite { writer, .. } => On::Sqlite(writer),
            Pools::Postgres(pool) => On::Postgres(pool),
        };
        Executor { db, outcome: Outcome { condition: &self.condition, of: Of::Writing } }
    }

    /// After a commit of so many rows: SQLite's log may be long enough.
    pub(super) fn wrote(&self, rows: usize) {
        if let Pools::Sqlite { writer, readers, checkpoint } = &self.pools {
            checkpoint.wrote(rows, writer, readers);
        }
    }

    /// Begins a transaction that writes. In SQLite it is the only one.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let begun = match &self.pools {
            Pools::Sqlite { writer, .. } => writer.begin_with("BEGIN IMMEDIATE").await.map(On::Sqlite),
            Pools::Postgres(pool) => pool.begin().await.map(On::Postgres),
        };
        let outcome = Outcome { condition: &self.condition, of: Of::Writing };
        let db = outcome.of(begun, |_| false)?;
        Ok(Tx { db, condition: self.condition.clone(), wrote: false })
    }
}

impl Tx {
    /// What its statements run on.
    pub(super) fn on(&mut self) -> Executor<'_, &mut SqliteConnection, &mut PgConnection> {
        let db = match &mut self.db {
            On::Sqlite(tx) => On::Sqlite(&mut **tx),
            On::Postgres(tx) => On::Postgres(&mut **tx),
        };
        Executor { db, outcome: Outcome { condition: &self.condition, of: Of::Within(&mut self.wrote) } }
    }

    pub(super) const fn backend(&self) -> Backend {
        match self.db {
            On::Sqlite(_) => Backend::Sqlite,
            On::Postgres(_) => Backend::Postgres,
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Self { db, condition, wrote } = self;
        let committed = on!(db, tx => tx.commit().await);
        Outcome { condition: &condition, of: Of::Writing }.of(committed, |()| wrote)
    }

    /// Like a drop, but waits until it is done.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        let Self { db, condition, .. } = self;
        let rolled_back = on!(db, tx => tx.rollback().await);
        Outcome { condition: &condition, of: Of::Writing }.of(rolled_back, |()| false)
    }

    /// Waits until no other transaction holds the lock of this name. SQLite's
    /// write lock already serves.
    pub(super) async fn lock(&mut self, lock: Lock) -> Result<(), StoreError> {
        if self.backend() == Backend::Postgres {
            execute!(self.on(), "SELECT pg_advisory_xact_lock($1)", lock as i64)?;
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
