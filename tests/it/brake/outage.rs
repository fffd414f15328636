//! The database is away for two windows, and then back.

use std::time::Duration;

use rstest::rstest;
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::Backend;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::time::sleep;

use super::frozen::{Hosts, WINDOW};
use super::{HOUR_MS, RED, Scene, events, patient};
use crate::support::cluster::Cluster;
use crate::support::db::TestDb;

/// It is back, and the agents speak within their window, but not at once.
async fn is_back(fleet: &Hosts) {
    sleep(WINDOW / 2).await;
    fleet.all_speak(true);
    fleet.nobody_went_down().await;
    assert!(fleet.distrusts(0, "database-away").await || fleet.distrusts(0, "database-slow").await);
    assert!(events(&fleet.db, "REGISTRY_DISTRUSTED").await > 0);
    fleet.the_silent_go_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_was_stopped_for_two_windows_takes_nobody_down() {
    let mut cluster = Cluster::start().await;
    let fleet = Hosts::start(TestDb::at(&cluster.url).await, 3).await;
    fleet.all_speak(false);
    cluster.stop().await;
    sleep(WINDOW * 2).await;
    cluster.start_again().await;
    is_back(&fleet).await;
}

/// Another process writes, and does not end.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_that_was_locked_for_two_windows_takes_nobody_down() {
    let fleet = Hosts::start(TestDb::new(Backend::Sqlite).await, 1).await;
    fleet.all_speak(false);
    let lock = Lock::take(&fleet.db).await;
    sleep(WINDOW * 2).await;
    lock.give_back().await;
    is_back(&fleet).await;
}

/// Whoever waited for it may have waited for long before it was asked.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_slow_is_distrusted(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let brake = BrakeConfig { slow_ms: 100, ..patient() };
    let scene = Scene::with(backend, 1, &brake, &LoopsConfig::default()).await;
    scene.crowd(RED, 5, HOUR_MS).await;
    let lock = Lock::take(&scene.db).await;
    let loops = scene.host().loops.clone();
    let pulse = tokio::spawn(async move { loops.tick("pulse").await });
    sleep(Duration::from_secs(1)).await;
    lock.give_back().await;
    pulse.await.expect("its task").expect("such a loop").expect("a tick");
    assert_eq!(scene.host().get("/brake").await.ok()["distrust"], "database-slow");
    scene.sweep().await;
    assert_eq!(scene.down().await, 0);
}

/// What a pulse writes is held by somebody else.
enum Lock {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Lock {
    async fn take(db: &TestDb) -> Self {
        match db.store.backend() {
            Backend::Sqlite => {
                let mut other = SqliteConnection::connect(&db.url).await.expect("SQLite");
                sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.expect("the lock");
                Self::Sqlite(other)
            }
            Backend::Postgres => {
                let mut other = PgConnection::connect(&db.url).await.expect("Postgres");
                let lock = "BEGIN; LOCK TABLE hosts IN ACCESS EXCLUSIVE MODE";
                sqlx::raw_sql(lock).execute(&mut other).await.expect("the lock");
                Self::Postgres(other)
            }
        }
    }

    async fn give_back(self) {
        match self {
            Self::Sqlite(other) => other.close().await.expect("closing SQLite"),
            Self::Postgres(other) => other.close().await.expect("closing Postgres"),
        }
    }
}
