//! Opening, migrating, closing; a database that is not there; URLs and secrets.

use rstest::rstest;
use sprag::store::{Backend, PoolOptions, Store, StoreError};
use sqlx::Connection as _;

use crate::support::db::{TestDb, token_of};

#[rstest]
#[tokio::test]
async fn migrating_twice_changes_nothing(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.store.migrate().await.unwrap();
    assert_eq!(db.store.backend(), backend);
    assert!(db.store.snapshot("w").await.unwrap().is_some());
}

#[rstest]
#[tokio::test]
async fn many_hosts_open_and_migrate_at_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = match backend {
        // For SQLite the file must not be there yet: making it is the race.
        Backend::Sqlite => None,
        Backend::Postgres => Some(TestDb::unmigrated(backend).await),
    };
    let dir = tempfile::tempdir().unwrap();
    let url = match &db {
        Some(db) => db.url.clone(),
        None => format!("sqlite:{}/new.db", dir.path().display()),
    };
    let hosts = (0..8).map(|_| {
        let url = url.clone();
        async move {
            let store = Store::connect(&url).await?;
            store.migrate().await?;
            store.ping().await?;
            store.close().await;
            Ok::<_, StoreError>(())
        }
    });
    futures::future::try_join_all(hosts).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn what_was_stored_is_there_after_reopening(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.store.close().await;
    let again = Store::connect(&db.url).await.unwrap();
    assert_eq!(again.snapshot("w").await.unwrap().unwrap().version, 1);
    again.close().await;
}

#[rstest]
#[tokio::test]
async fn a_closed_store_is_unavailable(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.store.close().await;
    let store = &db.store;
    assert!(store.ping().await.unwrap_err().is_unavailable());
    assert!(store.snapshot("w").await.unwrap_err().is_unavailable());
    assert!(store.beat(&[super::beat("w")]).await.unwrap_err().is_unavailable());
    assert!(store.commit(&[super::first_online("w")]).await.unwrap_err().is_unavailable());
    assert!(store.tokens("w").await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn sqlite_is_folded_into_its_file_when_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::connect(&format!("sqlite:{}/sprag.db", dir.path().display())).await.unwrap();
    store.migrate().await.unwrap();
    assert!(dir.path().join("sprag.db-wal").exists());
    store.close().await;
    assert!(!dir.path().join("sprag.db-wal").exists());
}

#[tokio::test]
async fn a_postgres_whose_connections_were_ended_is_used_again() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    // A call may still meet an ended connection; it says so and another is opened.
    let mut calls = 0;
    while let Err(e) = db.store.ping().await {
        assert!(e.is_unavailable(), "{e:?}");
        calls += 1;
        assert!(calls < 20);
    }
    assert_eq!(super::read(&db.store, "w").await.version, 1);
}

/// All that a log could show of an error: it, its sources, and their inner form.
fn chain(error: &StoreError) -> String {
    let mut shown = format!("{error:?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        shown += &format!(": {error}");
        next = error.source();
    }
    shown
}

#[rstest]
#[case("sqlite::memory:")]
#[case("sqlite://:memory:")]
#[case("sqlite:x.db?mode=memory")]
#[case("sqlite:")]
#[case("sqlite:x.db?nonsense=1")]
#[case("mysql://me:s3cret@host/db")]
#[case("postgres://me:s3cret@host:99999999/db")]
#[case("postgres://me:s3cret@host/db?sslmode=nonsense")]
#[case("me:s3cret@host/db")]
#[case("s3cret")]
#[tokio::test]
async fn a_url_that_is_none_is_refused_without_its_password(#[case] url: &str) {
    let error = Store::connect(url).await.unwrap_err();
    assert!(matches!(error, StoreError::BadUrl { .. }), "{error:?}");
    assert!(!chain(&error).contains("s3cret"), "{error:?}");
}

#[rstest]
#[case("postgres://me:s3cret@127.0.0.1:1/db")]
#[case("sqlite:/dev/null/s3cret-is-no-secret-here/x.db")]
#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable(#[case] url: &str) {
    let options = PoolOptions { acquire_timeout_ms: 300, ..PoolOptions::default() };
    let error = Store::connect_with(url, &options).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(!chain(&error).contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_is_not_repeated() {
    let mut url = crate::support::postgres_url();
    url.push_str(if url.contains('?') { "&" } else { "?" });
    url.push_str("user=nobody_of_this_name&password=s3cret");
    let error = Store::connect(&url).await.unwrap_err();
    assert!(!chain(&error).contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn waiting_for_a_connection_has_an_end() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    let options = PoolOptions { max_connections: 1, acquire_timeout_ms: 200, ..PoolOptions::default() };
    let store = Store::connect_with(&db.url, &options).await.unwrap();
    // Someone else holds the row, so that the only connection waits for it.
    let holder = hold_row(&db.url, "w").await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(&[super::first_online("w")]).await }
    });
    let error = loop {
        if let Err(e) = store.ping().await {
            break e;
        }
    };
    assert!(error.is_unavailable(), "{error:?}");
    drop(holder);
    assert_eq!(waiting.await.unwrap().unwrap(), sprag::store::Commit::Done);
}

/// A transaction of Postgres that has the row locked until it is dropped.
async fn hold_row(url: &str, id: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM workspaces WHERE id = $1 FOR UPDATE")
        .bind(id)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

#[test]
fn a_token_hash_is_not_shown() {
    let hash = token_of("x");
    assert_eq!(format!("{hash:?}"), "TokenHash(..)");
    assert!(hash.matches(&token_of("x")));
    assert!(!hash.matches(&token_of("y")));
}

#[tokio::test]
async fn who_only_reads_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/typo.db", dir.path().display());
    let error = Store::connect_existing(&url).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_ended() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    let options = PoolOptions { statement_timeout_ms: 200, ..PoolOptions::default() };
    let store = Store::connect_with(&db.url, &options).await.unwrap();
    let mut holder = sqlx::PgConnection::connect(&db.url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::query("UPDATE workspaces SET name = 'held' WHERE id = 'w'").execute(&mut *held).await.unwrap();
    let error = store.beat(&[super::beat("w")]).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    held.rollback().await.unwrap();
    assert!(matches!(store.beat(&[super::beat("w")]).await.unwrap()[0], sprag::store::Beaten::Stored(_, _)));
}
