//! Time that nobody lived through: a clock that jumped, an hour in which no host
//! ran. Whatever the rows say, nobody was silent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rstest::rstest;
use serde_json::Value;
use sprag::advance::Between;
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::Backend;

use super::{HOUR_MS, RED, Scene, crowd, events, patient};
use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost};

/// From now on the database says that it is so much later.
async fn jump(db: &TestDb, ms: i64) {
    let now = match db.store.backend() {
        Backend::Sqlite => "CAST(unixepoch('subsec') * 1000 + 0.5 AS INTEGER)",
        Backend::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    };
    let make = match db.store.backend() {
        Backend::Sqlite => "DROP VIEW clock; CREATE VIEW",
        Backend::Postgres => "CREATE OR REPLACE VIEW",
    };
    db.sql(&format!("{make} clock AS SELECT {now} + {ms} AS now")).await;
}

async fn distrust(scene: &Scene) -> Value {
    scene.host().get("/brake").await.ok()["distrust"].clone()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_takes_nobody_down(
    #[values((Backend::Sqlite, 1), (Backend::Postgres, 3))] (backend, hosts): (Backend, usize),
    #[values(HOUR_MS, 20_000)] by_ms: u64,
) {
    // Only what went apart tells: every host lives, and nothing is slow.
    let brake = BrakeConfig { jump_ms: 5_000, share: 1.0, ..patient() };
    let scene = Scene::with(backend, hosts, &brake, &LoopsConfig::default()).await;
    // A moment more, and they would be silent; they speak in time.
    scene.crowd(RED, 50, 80_000).await;
    scene.tick("census").await;
    scene.tick("pulse").await;
    jump(&scene.db, by_ms.cast_signed()).await;
    let before = scene.tick("silence").await;
    let skipped: u64 = before.iter().filter_map(|tally| tally.skipped.get("clock-jumped")).sum();
    assert_eq!(skipped, 50, "no pulse has told yet: {before:?}");
    scene.tick("pulse").await;
    assert_eq!(distrust(&scene).await, "clock-jumped");
    let event = scene.db.store.events(None, None, 1).await.expect("reading events").remove(0);
    assert_eq!(
        (event.event_type.as_str(), event.reason.expect("a reason").code.as_str()),
        ("REGISTRY_DISTRUSTED", "clock-jumped")
    );
    assert_eq!(scene.events("REGISTRY_DISTRUSTED").await, 1);
    let after = scene.sweep().await;
    assert_eq!((after.looked, scene.down().await), (0, 0), "silence counts anew");

    scene.db.sql("UPDATE fleet SET trusted_from = trusted_from - 90000").await;
    scene.sweep().await;
    assert_eq!(scene.down().await, 50, "and who is silent for a window after it goes down");
}

/// Makes it so much later once a row was judged, as if the host had slept then.
struct Sleeps {
    db: Arc<TestDb>,
    ms: i64,
}

impl Between for Sleeps {
    fn judged<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(jump(&self.db, self.ms))
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_long_ago_is_not_written(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values((3_000, 1), (6_000, 0))] (ms, down): (i64, i64),
) {
    let db = Arc::new(TestDb::new(backend).await);
    let between: Arc<dyn Between> = Arc::new(Sleeps { db: db.clone(), ms });
    let setup = Setup { timed: false, brake: patient(), between: Some(between), ..Setup::default() };
    let host = TestHost::start(&db, setup).await;
    host.loops.tick("pulse").await.expect("such a loop").expect("a tick");
    db.sql(&format!("UPDATE fleet SET trusted_from = trusted_from - {HOUR_MS}")).await;
    db.sql(&crowd(RED, 1, HOUR_MS)).await;
    let tally = host.loops.tick("silence").await.expect("such a loop").expect("a tick");
    assert_eq!(events(&db, "WORKSPACE_OFFLINE").await, down, "{tally:?}");
    assert_eq!(!tally.skipped.contains_key("outran"), down == 1, "{tally:?}");
}

/// Set right again, a clock that ran ahead is not waited for.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_put_silence_off(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let brake = BrakeConfig { jump_ms: 5_000, share: 1.0, ..patient() };
    let scene = Scene::with(backend, 1, &brake, &LoopsConfig::default()).await;
    jump(&scene.db, HOUR_MS.cast_signed()).await;
    scene.tick("pulse").await;
    jump(&scene.db, 0).await;
    scene.tick("pulse").await;
    let ahead = "SELECT trusted_from - (SELECT now FROM clock) FROM fleet";
    assert!(scene.db.number(ahead).await <= 0, "silence would count from tomorrow on");
    assert_eq!(distrust(&scene).await, "clock-jumped");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_starts_after_an_hour_of_nobody_counts_from_now(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] left_in_order: bool,
) {
    let scene = Scene::of(backend, 1).await;
    scene.crowd(RED, 50, HOUR_MS).await;
    let leave = match left_in_order {
        true => "DELETE FROM hosts".to_owned(),
        false => format!("UPDATE hosts SET seen_at = seen_at - {HOUR_MS}"),
    };
    scene.db.sql(&leave).await;
    let setup = Setup { timed: false, brake: BrakeConfig { share: 1.0, ..patient() }, ..Setup::default() };
    let next = TestHost::start(&scene.db, setup).await;
    let tick = async |name| next.loops.tick(name).await.expect("such a loop").expect("a tick");
    let before = tick("silence").await;
    assert_eq!((before.looked, before.skipped["starting"]), (0, 1), "it has not even looked who lives");
    tick("pulse").await;
    assert_eq!(distrust(&scene).await, "nobody-listened");
    tick("silence").await;
    assert_eq!((scene.down().await, scene.events("REGISTRY_DISTRUSTED").await), (0, 1));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_lost_makes_for_distrust_until_it_is_given_up(
    #[values((Backend::Postgres, 3))] (backend, hosts): (Backend, usize),
) {
    let brake = BrakeConfig { lost_ms: 60_000, forget_ms: 600_000, share: 1.0, ..patient() };
    let scene = Scene::with(backend, hosts, &brake, &LoopsConfig::default()).await;
    scene.crowd(RED, 50, HOUR_MS).await;
    let lost = format!("name = '{}'", scene.hosts[2].url);
    let last_seen = async |ago_ms: u64| {
        let seen = format!("UPDATE hosts SET seen_at = (SELECT now FROM clock) - {ago_ms} WHERE {lost}");
        scene.db.sql(&seen).await;
        scene.trusted().await;
        scene.hosts[0].loops.tick("pulse").await.expect("such a loop").expect("a tick");
        distrust(&scene).await
    };
    assert_eq!(last_seen(50_000).await, "nobody-listened", "what was the matter at first");
    assert_eq!(last_seen(70_000).await, "host-lost");
    let sweep = scene.hosts[1].loops.tick("silence").await.expect("such a loop").expect("a tick");
    assert_eq!((sweep.looked, scene.down().await), (0, 0), "another host's agents count anew, too");
    let event = scene.db.store.events(None, None, 1).await.expect("reading events").remove(0);
    let reason = event.reason.expect("a reason");
    assert_eq!((event.event_type.as_str(), reason.code.as_str()), ("REGISTRY_DISTRUSTED", "host-lost"));
    assert!(reason.detail.is_some_and(|detail| detail.contains(&scene.hosts[2].url)));

    scene.db.sql("UPDATE fleet SET distrust = 'what was before'").await;
    assert_eq!(last_seen(700_000).await, "what was before", "given up");
    scene.hosts[0].loops.tick("census").await.expect("such a loop").expect("a tick");
    let seen = scene.db.store.hosts().await.expect("reading hosts");
    assert!(seen.iter().all(|host| host.name != scene.hosts[2].url), "{seen:?}");
}
