//! A database of its own for each test: a file of SQLite in a temporary
//! directory, or a database in the throw-away Postgres cluster. Both are gone
//! when the test is over.

use std::collections::BTreeMap;
use std::str::FromStr;

use sprag::store::{Backend, NewWorkspace, Placed, Store, TokenHash};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;

/// A migrated database and the store that is open on it.
pub struct TestDb {
    pub store: Store,
    /// To open it once more.
    pub url: String,
    _place: Place,
}

enum Place {
    File(#[allow(dead_code, reason = "removed on drop")] TempDir),
    Database(String),
    Elsewhere,
}

impl TestDb {
    pub async fn new(backend: Backend) -> Self {
        let db = Self::unmigrated(backend).await;
        db.store.migrate().await.expect("migrating a new database");
        db
    }

    pub async fn unmigrated(backend: Backend) -> Self {
        let (url, place) = match backend {
            Backend::Sqlite => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                (format!("sqlite:{}/sprag.db", dir.path().display()), Place::File(dir))
            }
            Backend::Postgres => create_database().await,
        };
        let store = Store::connect(&url).await.expect("opening a new database");
        Self { store, url, _place: place }
    }

    /// The empty database at `url`, which somebody else makes and removes.
    pub async fn at(url: &str) -> Self {
        let store = Store::connect(url).await.expect("opening a new database");
        store.migrate().await.expect("migrating a new database");
        Self { store, url: url.to_owned(), _place: Place::Elsewhere }
    }

    /// Runs SQL behind the store's back.
    pub async fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.store.backend() {
            Backend::Sqlite => {
                let mut db = sqlx::SqliteConnection::connect(&self.url).await.expect("SQLite");
                sqlx::raw_sql(sql).execute(&mut db).await.expect("the statement");
                db.close().await.expect("closing SQLite");
            }
            Backend::Postgres => {
                let mut db = PgConnection::connect(&self.url).await.expect("Postgres");
                sqlx::raw_sql(sql).execute(&mut db).await.expect("the statement");
                db.close().await.expect("closing Postgres");
            }
        }
    }

    /// One number, read behind the store's back.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.store.backend() {
            Backend::Sqlite => {
                let mut db = sqlx::SqliteConnection::connect(&self.url).await.expect("SQLite");
                sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a number")
            }
            Backend::Postgres => {
                let mut db = PgConnection::connect(&self.url).await.expect("Postgres");
                sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a number")
            }
        }
    }

    /// How many statements wait for another's lock (Postgres).
    pub async fn waiting_for_locks(&self) -> i64 {
        self.number(
            "SELECT COUNT(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
    }

    /// Creates an ordinary workspace named `id` whose token is [`token_of`] it.
    pub async fn workspace(&self, id: &str) {
        self.place(id, None).await;
    }

    /// [`TestDb::workspace`] under a parent.
    pub async fn child(&self, id: &str, parent: &str) {
        self.place(id, Some(parent)).await;
    }

    async fn place(&self, id: &str, parent: Option<&str>) {
        let new = NewWorkspace { parent_id: parent.map(str::to_owned), ..new_workspace(id) };
        assert_eq!(self.store.create(&new).await.expect("creating a workspace"), Placed::Done);
    }
}

/// An ordinary workspace, whose token is [`token_of`] its id.
pub fn new_workspace(id: &str) -> NewWorkspace {
    NewWorkspace {
        id: id.to_owned(),
        name: format!("name of {id}"),
        kind: "workspace".to_owned(),
        runtime: "claude-code".to_owned(),
        provider: None,
        parent_id: None,
        tier: None,
        labels: BTreeMap::new(),
        persistent_volume: false,
        hibernation_idle_minutes: None,
        token: Some(token_of(id)),
        claim: None,
    }
}

/// A different hash for every text.
pub fn token_of(text: &str) -> TokenHash {
    use sha2::Digest;
    TokenHash(sha2::Sha256::digest(text).into())
}

async fn create_database() -> (String, Place) {
    let admin = PgConnectOptions::from_str(&super::postgres_url()).expect("SPRAG_TEST_POSTGRES_URL");
    let name = format!("sprag_test_{}", uuid::Uuid::now_v7().simple());
    let mut connection = admin.connect().await.expect("the throw-away Postgres");
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("creating a database");
    connection.close().await.expect("closing Postgres");
    let url = admin.database(&name).to_url_lossy().to_string();
    (url, Place::Database(name))
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place::Database(name) = self else { return };
        let name = std::mem::take(name);
        // In a thread of its own, that nobody waits for: Postgres drops no database
        // while a connection is being opened, and those of this test's hosts go on
        // only, or end, when its runtime has the thread again. What is left when
        // the process ends goes with the cluster.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let admin = PgConnectOptions::from_str(&super::postgres_url())?;
                let mut connection = admin.connect().await?;
                let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
                sqlx::raw_sql(drop).execute(&mut connection).await?;
                connection.close().await
            })?;
            anyhow::Ok(())
        });
    }
}
