//! The database is away for two windows, and then back.

use sprag::store::Backend;
use sqlx::Connection as _;
use tokio::time::sleep;

use super::frozen::{Hosts, WINDOW};
use crate::support::cluster::Cluster;
use crate::support::db::TestDb;

/// It is back, and the agents speak within their window, but not at once.
async fn is_back(fleet: &Hosts) {
    sleep(WINDOW / 2).await;
    fleet.all_speak(true);
    fleet.nobody_went_down().await;
    let reasons = fleet.reasons().await;
    let known = |reason: &String| reason == "database-away" || reason == "database-slow";
    assert!(reasons.iter().any(known), "{reasons:?}");
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
    let mut other = sqlx::SqliteConnection::connect(&fleet.db.url).await.expect("SQLite");
    fleet.all_speak(false);
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.expect("the lock");
    sleep(WINDOW * 2).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("giving it back");
    is_back(&fleet).await;
}
