//! What an error leaves behind: a transaction that the database ended by itself,
//! a connection that a server closed, a disk that is full. The next use finds
//! none of it.

use std::time::{Duration, Instant};

use rstest::rstest;
use sprag::store::{Backend, Beaten, Commit, Store};
use tokio::time::sleep;

use super::{beat, first_online, read};
use crate::support::db::TestDb;

/// How long anything here may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// From now on no event is written. SQLite then ends the whole transaction by
/// itself, as it does where its disk is full; Postgres says that its disk is.
async fn break_events(db: &TestDb) {
    db.sql(match db.store.backend() {
        Backend::Sqlite => {
            "CREATE TRIGGER broken BEFORE INSERT ON events BEGIN SELECT RAISE(ROLLBACK, 'broken'); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER broken BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION broken()"
        }
    })
    .await;
}

async fn mend_events(db: &TestDb) {
    db.sql(match db.store.backend() {
        Backend::Sqlite => "DROP TRIGGER broken",
        Backend::Postgres => "DROP TRIGGER broken ON events",
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_transaction_that_the_database_ended_is_in_nobodys_way(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    break_events(&db).await;
    for _ in 0..3 {
        let error = db.store.commit(&[first_online("w")]).await.unwrap_err();
        let cause = format!("{:?}", std::error::Error::source(&error));
        assert!(cause.contains("broken"), "the cause, and not what it left behind: {cause}");
        assert!(matches!(db.store.beat(&[beat("w")]).await.unwrap()[0], Beaten::Stored(_, _)));
    }
    mend_events(&db).await;
    assert_eq!(db.store.commit(&[first_online("w")]).await.unwrap(), Commit::Done);
    assert_eq!(read(&db.store, "w").await.version, 2);
}

/// Nothing of a step that failed is kept, nor of what would have come behind it.
#[rstest]
#[tokio::test]
async fn nothing_of_a_transaction_that_the_database_ended_is_kept(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("v").await;
    db.workspace("w").await;
    break_events(&db).await;
    db.store.commit(&[first_online("v"), first_online("w")]).await.unwrap_err();
    for id in ["v", "w"] {
        assert_eq!(read(&db.store, id).await.version, 1, "{id}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_until_a_write_succeeds() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    assert_eq!(db.store.refuses_writes(), None);
    break_events(&db).await;
    db.store.commit(&[first_online("w")]).await.unwrap_err();
    assert_eq!(db.store.refuses_writes(), Some("its disk is full"));
    // A read is no proof, nor a write that changes nothing.
    db.store.ping().await.unwrap();
    db.store.forget_hosts(1_000_000).await.unwrap();
    assert_eq!(db.store.refuses_writes(), Some("its disk is full"));
    mend_events(&db).await;
    let until = Instant::now() + PATIENCE;
    while db.store.refuses_writes().is_some() {
        assert!(Instant::now() < until, "it is still said to take no writes");
        db.store.beat(&[beat("w")]).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

/// As many as a busy host has, each used a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_connections_that_a_server_ended_one_call_suffers() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    let busy = |store: Store| async move { store.snapshot("w").await.map(drop) };
    const OPEN: &str = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'sprag'";
    let until = Instant::now() + PATIENCE;
    while db.number(OPEN).await < 8 {
        assert!(Instant::now() < until, "the pool does not grow");
        let calls = (0..64).map(|_| busy(db.store.clone()));
        futures::future::try_join_all(calls).await.unwrap();
    }
    let calls = (0..64).map(|_| busy(db.store.clone()));
    futures::future::try_join_all(calls).await.unwrap();
    db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    let mut failed = 0;
    for _ in 0..32 {
        if let Err(error) = db.store.commit(&[]).await.and(db.store.ping().await) {
            assert!(error.is_unavailable(), "{error:?}");
            failed += 1;
        }
    }
    assert!(failed <= 1, "{failed} calls met a connection that was ended");
    assert_eq!(db.store.commit(&[first_online("w")]).await.unwrap(), Commit::Done);
}
