//! How a held brake lets go: by hand, and then so many a minute; or by itself,
//! when it has been calm for a window.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::Backend;

use super::{BLUE, HOUR_MS, RED, Scene, patient};
use crate::support::cli::sprag;
use crate::support::host::Answer;

const MINUTE_MS: u64 = 60_000;

/// Rows that go down in a minute, once released.
const PER_MINUTE: i64 = 7;

/// A hundred of red silent, which is too many for red and not for the fleet.
async fn held(backend: Backend, hosts: usize) -> Scene {
    let brake = BrakeConfig { release_per_minute: PER_MINUTE.unsigned_abs(), ..patient() };
    let scene = Scene::with(backend, hosts, &brake, &LoopsConfig::default()).await;
    scene.crowd(RED, 100, HOUR_MS).await;
    scene.crowd(BLUE, 500, 1_000).await;
    scene.tick("census").await;
    // By one host: shared out, some may be few enough to go down before the others are asked about.
    scene.host().loops.tick("silence").await.expect("such a loop").expect("a tick");
    scene.stands(&["fleet free", "provider:blue free", "provider:red held"]).await;
    assert_eq!(scene.down().await, 0);
    scene
}

async fn release(scene: &Scene, body: Value) -> Answer {
    scene.host().admin(Method::POST, "/brake/release", body).await
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn released_by_hand_they_go_down_at_a_bounded_rate(
    #[values((Backend::Sqlite, 1), (Backend::Postgres, 3))] (backend, hosts): (Backend, usize),
) {
    let scene = held(backend, hosts).await;
    let released = release(&scene, json!({ "scope": "provider:red" })).await.ok();
    let red = &released["scopes"][2];
    assert_eq!(
        (&red["scope"], &red["state"], &red["flips"]),
        (&json!("provider:red"), &json!("easing"), &json!(0))
    );
    for minute in 1..=3 {
        for _ in 0..4 {
            scene.sweep().await;
        }
        assert_eq!(scene.down().await, minute * PER_MINUTE, "in {minute} minutes, by {hosts} hosts");
        scene.later(MINUTE_MS + 1_000).await;
    }
    scene.stands(&["fleet free", "provider:blue free", "provider:red easing"]).await;
    assert_eq!((scene.events("BRAKE_HELD").await, scene.events("BRAKE_RELEASED").await), (1, 1));

    // Nothing more wants to go down: after a window it is as it was.
    scene.all_speak().await;
    scene.tick("census").await;
    scene.stands(&["fleet free", "provider:blue free", "provider:red easing"]).await;
    scene.later(BrakeConfig::default().window_ms).await;
    scene.tick("census").await;
    scene.stands(&["fleet free", "provider:blue free", "provider:red free"]).await;
    assert_eq!(scene.events("BRAKE_FREE").await, 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn it_lets_go_by_itself_when_it_was_calm_for_a_window_and_not_before(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = held(backend, 1).await;
    let window = BrakeConfig::default().window_ms;
    let red = async |state: &str| {
        scene.tick("census").await;
        scene.stands(&["fleet free", "provider:blue free", &format!("provider:red {state}")]).await;
    };
    for _ in 0..3 {
        scene.later(window - 10_000).await;
        scene.sweep().await;
        red("held").await;
    }
    // Those that are left would be few enough, but were too many lately.
    scene
        .db
        .sql("UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock) WHERE id <> 'red1'")
        .await;
    scene.later(window - 10_000).await;
    scene.sweep().await;
    red("held").await;
    assert_eq!(scene.down().await, 0);
    scene.later(20_000).await;
    scene.sweep().await;
    red("free").await;
    assert_eq!((scene.events("BRAKE_FREE").await, scene.events("BRAKE_RELEASED").await), (1, 0));
    assert_eq!(scene.down().await, 0, "it was held when the sweep asked");
    scene.sweep().await;
    assert_eq!(scene.down().await, 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_held_can_be_released(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = held(backend, 1).await;
    let refused = release(&scene, json!({ "scope": "provider:green" })).await;
    assert_eq!(refused.problem(), (400, "INVALID_FIELD"));
    let detail = refused.body.to_string();
    assert!(detail.contains("fleet, provider:blue, provider:red"), "{detail}");
    for scope in ["fleet", "provider:blue"] {
        let refused = release(&scene, json!({ "scope": scope })).await;
        assert_eq!(refused.problem(), (409, "NOT_HELD"));
        assert_eq!(refused.body["detail"], format!("{scope} is not held"));
    }
    let nobody = scene.host().call(Method::POST, "/brake/release", None, Some(json!({}))).await;
    assert_eq!(nobody.status, 401);
    assert_eq!(scene.events("BRAKE_RELEASED").await, 0);

    release(&scene, json!({})).await.ok();
    scene.stands(&["fleet free", "provider:blue free", "provider:red easing"]).await;
    let again = release(&scene, json!({})).await;
    assert_eq!((again.problem(), &again.body["detail"]), ((409, "NOT_HELD"), &json!("no brake is held")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn it_is_shown_and_released_from_the_shell(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = held(backend, 1).await;
    let url = &scene.host().url;
    let shown = sprag(url, &["brake"]).await.exits(0);
    assert!(shown.out.starts_with("silence counts from "), "{}", shown.out);
    shown.shows(&[
        &["fleet", "free", "600", "120"],
        &["provider:blue", "free", "500"],
        &["provider:red", "held", "100", "20"],
        &["host", "seen"],
    ]);
    sprag(url, &["brake", "release", "provider:green"]).await.refused(&[
        "400",
        "INVALID_FIELD",
        "provider:red",
    ]);
    sprag(url, &["brake", "release", "fleet"]).await.refused(&["409", "NOT_HELD", "fleet is not held"]);
    let released = sprag(url, &["brake", "release", "provider:red"]).await.exits(0);
    released.shows(&[&["fleet", "free"], &["provider:red", "easing"]]);
    sprag(url, &["brake", "release"]).await.refused(&["409", "NOT_HELD", "no brake is held"]);
}
