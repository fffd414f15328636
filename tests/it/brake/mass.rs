//! Many go silent at once, and it is not their doing.

use rstest::rstest;
use serde_json::json;
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::Backend;

use super::{BLUE, HOUR_MS, RED, Scene, patient};
use crate::support::cli::sprag;

#[rstest]
#[case::one_host(Backend::Sqlite, 1)]
#[case::one_host_of_many(Backend::Postgres, 1)]
#[case::three_hosts(Backend::Postgres, 3)]
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_goes_silent_at_once_stays_up(#[case] backend: Backend, #[case] hosts: usize) {
    let scene = Scene::of(backend, hosts).await;
    scene.crowd(RED, 2_500, HOUR_MS).await;
    scene.crowd(BLUE, 2_500, HOUR_MS).await;
    // As a fleet's are, mixed.
    scene
        .db
        .sql("UPDATE workspaces SET silence_at = CAST(substr(id, length(provider) + 1) AS INTEGER)")
        .await;
    scene.tick("census").await;
    let first = scene.tick("silence").await;
    assert!(first.iter().all(|tally| tally.flipped == 0 && tally.skipped["braked"] == 200), "{first:?}");
    for _ in 0..5 {
        scene.tick("silence").await;
    }
    scene.sweep().await;
    assert_eq!(scene.down().await, 0, "what waits behind a batch was seen");
    for _ in 0..2 {
        scene.tick("pulse").await;
    }

    let held = ["fleet held", "provider:blue held", "provider:red held"];
    scene.stands(&held).await;
    assert_eq!(scene.events("BRAKE_HELD").await, 3, "one for each scope, not for each tick");
    for host in &scene.hosts {
        let fleet = &host.get("/brake").await.ok()["scopes"][0];
        assert_eq!(
            (&fleet["live"], &fleet["bound"], &fleet["flips"]),
            (&json!(5_000), &json!(1_000), &json!(0))
        );
        assert!(fleet["wanted"].as_u64() > Some(1_000) && fleet["over_at"].is_string(), "{fleet}");
        let metrics = host.get("/metrics").await.ok();
        let metrics = metrics.as_str().expect("text");
        for scope in ["fleet", "provider:blue", "provider:red"] {
            for (state, is) in [("free", 0), ("held", 1), ("easing", 0)] {
                let line = format!("sprag_brake{{scope=\"{scope}\",state=\"{state}\"}} {is}\n");
                assert!(metrics.contains(&line), "no {line} in\n{metrics}");
            }
        }
        let shown = sprag(&host.url, &["brake"]).await.exits(0);
        shown.shows(&[
            &["fleet", "held", "5000"],
            &["provider:blue", "held"],
            &["provider:red", "held", "2500"],
        ]);
    }

    // Upward it holds nobody.
    let (booting, token) = scene.host().create(json!({ "name": "w" })).await;
    assert_eq!(scene.host().beat(&booting, &token).await.ok()["workspace_status"], "online");
    scene.db.sql(&format!("UPDATE workspaces SET status = 'offline' WHERE id = '{booting}'")).await;
    assert_eq!(scene.host().beat(&booting, &token).await.ok()["workspace_status"], "online");

    scene.all_speak().await;
    let after = scene.sweep().await;
    assert_eq!((after.looked, after.flipped), (0, 0), "nobody is silent any more");
    assert_eq!(scene.down().await, 0, "and nobody was lost");
}

/// The rows of one batch alone are no failure of the mass; what waits behind them makes it one.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_slips_through_is_within_the_bound_and_comes_back(
    #[values((Backend::Sqlite, 1), (Backend::Postgres, 3))] (backend, hosts): (Backend, usize),
) {
    let brake = BrakeConfig { share: 0.02, ..patient() };
    let loops = LoopsConfig { rows: 7, ..LoopsConfig::default() };
    let scene = Scene::with(backend, hosts, &brake, &loops).await;
    scene.crowd(RED, 1_000, 1_000).await;
    let mut agents = Vec::new();
    for _ in 0..40 {
        let (id, token) = scene.host().create(json!({ "name": "w" })).await;
        scene.host().beat(&id, &token).await.ok();
        agents.push((id, token));
    }
    scene.tick("census").await;
    let hour_ago = format!("(SELECT now FROM clock) - {HOUR_MS}");
    // They go silent by threes, so that nothing waits behind a batch.
    for few in agents.chunks(3) {
        let ids: Vec<_> = few.iter().map(|(id, _)| format!("'{id}'")).collect();
        let ids = ids.join(", ");
        scene
            .db
            .sql(&format!(
                "UPDATE workspaces SET last_heartbeat_at = {hour_ago}, status_since = {hour_ago} WHERE id IN ({ids})"
            ))
            .await;
        scene.sweep().await;
    }
    let down = scene.down().await;
    assert!((18..=20).contains(&down), "{down} of 1040 at most 20");
    assert_eq!(scene.states().await[0], ("fleet".to_owned(), "held".to_owned()));
    assert_eq!(scene.events("BRAKE_HELD").await, 1);
    for (id, token) in &agents {
        assert_eq!(scene.host().beat(id, token).await.ok()["workspace_status"], "online", "{id}");
    }
    let live = "SELECT COUNT(*) FROM workspaces WHERE status = 'online'";
    assert_eq!(scene.db.number(live).await, 1_040);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_provider_that_fails_is_held_and_the_other_is_not(
    #[values((Backend::Sqlite, 1), (Backend::Postgres, 3))] (backend, hosts): (Backend, usize),
) {
    let scene = Scene::of(backend, hosts).await;
    scene.crowd(RED, 300, HOUR_MS).await;
    scene.crowd(BLUE, 1_700, 1_000).await;
    scene
        .db
        .sql("UPDATE workspaces SET last_heartbeat_at = status_since WHERE provider = 'blue' AND id LIKE '%77'")
        .await;
    scene.tick("census").await;
    for _ in 0..4 {
        scene.tick("silence").await;
    }
    scene.stands(&["fleet free", "provider:blue free", "provider:red held"]).await;
    let of = |provider| {
        format!("SELECT COUNT(*) FROM workspaces WHERE status = 'offline' AND provider = '{provider}'")
    };
    assert_eq!(scene.db.number(&of(BLUE)).await, 17);
    assert!(scene.db.number(&of(RED)).await <= 60, "a fifth of red");
    assert_eq!(scene.events("BRAKE_HELD").await, 1);
}

/// They are no share of what lives, and what lives is watched all the same.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn boxes_that_never_came_up_hold_nobody(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 1).await;
    scene.crowd(RED, 40, 1_000).await;
    scene.crowd(BLUE, 30, 1_000).await;
    scene.db.sql("UPDATE workspaces SET status = 'provisioning' WHERE provider = 'blue'").await;
    scene.tick("census").await;
    assert_eq!(scene.tick("provisioning").await[0].flipped, 30);
    scene.stands(&["fleet free", "provider:red free"]).await;
    scene.db.sql("UPDATE brakes SET state = 'held', over_at = 0 WHERE scope = 'fleet'").await;
    scene.db.sql("UPDATE workspaces SET status = 'provisioning', version = 7 WHERE provider = 'blue'").await;
    scene.db.sql("UPDATE workspaces SET provisioning_at = 0").await;
    scene.db.sql(&format!("UPDATE workspaces SET status_since = status_since - {HOUR_MS}")).await;
    let held = &scene.tick("provisioning").await[0];
    assert_eq!(
        (held.flipped, held.skipped.get("braked")),
        (0, Some(&30)),
        "where it holds, nothing goes down"
    );
}
