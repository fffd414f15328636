//! Few go silent: those go down, in time, and no other.

use std::time::Duration;

use rstest::rstest;
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::Backend;

use super::{HOUR_MS, RED, Scene, crowd, events, policies, until};
use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost};

/// Twenty of five thousand.
const TWENTY: &str = "id LIKE '%250' OR id LIKE '%500' OR id LIKE '%750' OR id LIKE '%000'";

#[rstest]
#[case::one_host(Backend::Sqlite, 1)]
#[case::three_hosts(Backend::Postgres, 3)]
#[tokio::test(flavor = "multi_thread")]
async fn twenty_of_five_thousand_go_down_and_no_other(#[case] backend: Backend, #[case] hosts: usize) {
    let scene = Scene::of(backend, hosts).await;
    scene.crowd(RED, 5_000, 1_000).await;
    scene.db.sql(&format!("UPDATE workspaces SET last_heartbeat_at = status_since WHERE {TWENTY}")).await;
    scene.tick("census").await;
    for _ in 0..3 {
        scene.sweep().await;
    }
    let silent = format!("SELECT COUNT(*) FROM workspaces WHERE status = 'offline' AND ({TWENTY})");
    assert_eq!((scene.down().await, scene.db.number(&silent).await), (20, 20));
    scene.stands(&["fleet free", "provider:red free"]).await;
    assert_eq!(scene.events("BRAKE_HELD").await, 0);
}

const WINDOW: Duration = Duration::from_secs(4);
const TICK_MS: u64 = 500;

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);

#[rstest]
#[case::one_host(Backend::Sqlite, 1)]
#[case::three_hosts(Backend::Postgres, 3)]
#[tokio::test(flavor = "multi_thread")]
async fn they_go_down_within_one_window_and_one_tick(#[case] backend: Backend, #[case] hosts: usize) {
    let db = TestDb::new(backend).await;
    let dir = policies(WINDOW);
    let mut running = Vec::new();
    for _ in 0..hosts {
        let setup = Setup {
            policy_dir: dir.path().to_owned(),
            loops: LoopsConfig { silence_ms: TICK_MS, silent_after_ms: 2_000, ..LoopsConfig::default() },
            brake: BrakeConfig { count_ms: 200, pulse_ms: 100, ..BrakeConfig::default() },
            ..Setup::default()
        };
        running.push(TestHost::start(&db, setup).await);
    }
    until("trusted", async || db.number("SELECT trusted_from FROM fleet").await > 0).await;
    db.sql(&crowd(RED, 5_000, 0)).await;
    db.sql("UPDATE workspaces SET status_since = (SELECT now FROM clock)").await;
    let spoken = "UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock)";
    let down = "SELECT COUNT(*) FROM workspaces WHERE status = 'offline'";
    until("the silent are down", async || {
        db.sql(&format!("{spoken} WHERE NOT ({TWENTY})")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.number(down).await >= 20
    })
    .await;
    let late = format!(
        "SELECT MAX(events.at - last_heartbeat_at) FROM events JOIN workspaces ON workspaces.id = workspace_id
        WHERE type = 'WORKSPACE_OFFLINE' AND ({TWENTY})"
    );
    let late = u64::try_from(db.number(&late).await).expect("after it was silent");
    let bound = WINDOW + Duration::from_millis(TICK_MS) + SLACK;
    assert!(u128::from(late) <= bound.as_millis(), "{late} ms after it was heard last");
    assert_eq!(events(&db, "WORKSPACE_OFFLINE").await, 20, "no other");
    assert_eq!(events(&db, "BRAKE_HELD").await, 0);
}

/// Or it would be one tick later than it may.
#[rstest]
#[tokio::test]
async fn whoever_is_not_silent_for_long_enough_is_looked_at_by_the_next_tick(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 1).await;
    scene.crowd(RED, 10, 70_000).await;
    let silence_ms = LoopsConfig::default().silence_ms;
    let next = scene.db.number("SELECT now FROM clock").await + i64::try_from(silence_ms).expect("fits");
    let tally = scene.tick("silence").await.remove(0);
    assert_eq!((tally.looked, tally.skipped["held"]), (10, 10));
    let missed = format!("SELECT COUNT(*) FROM workspaces WHERE silence_at > {next}");
    assert_eq!(scene.db.number(&missed).await, 0);
}

/// It may have been alive all the time, and only not yet have spoken.
#[rstest]
#[tokio::test]
async fn whoever_never_spoke_has_its_window_from_when_it_came_there(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 1).await;
    scene.crowd(RED, 4, HOUR_MS).await;
    scene.db.sql("UPDATE workspaces SET last_heartbeat_at = NULL").await;
    scene
        .db
        .sql("UPDATE workspaces SET status_since = (SELECT now FROM clock) - 80000 WHERE id = 'red1'")
        .await;
    scene.sweep().await;
    assert_eq!(scene.down().await, 3);
    assert_eq!(
        scene.db.number("SELECT COUNT(*) FROM workspaces WHERE id = 'red1' AND status = 'online'").await,
        1
    );
}
