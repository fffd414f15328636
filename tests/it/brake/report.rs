//! What the loops tell of themselves: on the wire, in the shell, to Prometheus.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::{HOUR_MS, RED, Scene};
use crate::support::cli::sprag;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_tells_what_it_came_to(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::of(backend, 1).await;
    scene.crowd(RED, 9, HOUR_MS).await;
    let now = "(SELECT now FROM clock)";
    for change in [
        format!("last_heartbeat_at = {now} - 70000 WHERE id IN ('red1', 'red2', 'red3')"),
        format!("last_heartbeat_at = {now} WHERE id = 'red4'"),
        "labels = '{' WHERE id = 'red5'".to_owned(),
    ] {
        scene.db.sql(&format!("UPDATE workspaces SET {change}")).await;
    }
    let host = scene.host();
    let silence = async || {
        let loops = host.get("/loops").await.ok();
        let all = loops.as_array().expect("loops");
        all.iter().find(|of| of["name"] == "silence").expect("the silence loop").clone()
    };
    let before = silence().await;
    assert_eq!((&before["ticks"], &before["last_tick_at"]), (&json!(0), &Value::Null));
    scene.tick("silence").await;

    let after = silence().await;
    assert!(after["last_tick_at"].is_string() && after["last_took_ms"].is_u64(), "{after}");
    let mut told = after.clone();
    for changing in ["last_tick_at", "last_took_ms"] {
        told.as_object_mut().expect("an object").remove(changing);
    }
    let expected = json!({
        "name": "silence", "every_ms": 15_000, "ticks": 1, "failures": 0, "panics": 0, "failures_in_a_row": 0,
        "last_error": null, "looked": 8, "flipped": 4, "skipped": { "held": 3, "unreadable": 1 }, "deferred": 0,
    });
    assert_eq!(told, expected);

    let metrics = host.get("/metrics").await.ok();
    let metrics = metrics.as_str().expect("text");
    for (outcome, rows) in [("looked", 8), ("flipped", 4), ("held", 3), ("unreadable", 1)] {
        let line = format!("sprag_loop_rows_total{{loop=\"silence\",outcome=\"{outcome}\"}} {rows}\n");
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }
    for gauge in ["loop_last_tick_timestamp_seconds", "loop_tick_seconds"] {
        assert!(metrics.contains(&format!("sprag_{gauge}{{loop=\"silence\"}}")), "no {gauge} in\n{metrics}");
    }

    let shown = sprag(&host.url, &["loops"]).await.exits(0);
    let line = shown.out.lines().find(|line| line.starts_with("silence")).expect("the silence loop");
    for what in ["every", "15000 ms", "looked 8 flipped 4 deferred 0", "skipped: held 3, unreadable 1"] {
        assert!(line.contains(what), "no {what:?} in {line}");
    }
    for name in ["pulse", "census", "silence", "instances", "provisioning", "idle", "claims", "outbox"] {
        shown.shows(&[&[name, "every"]]);
    }
    for (method, path) in [(Method::GET, "/loops"), (Method::GET, "/brake")] {
        assert_eq!(host.call(method, path, None, None).await.status, 401, "{path} is for operators");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_fails_is_shown_with_its_error(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 1).await;
    let host = scene.host();
    scene.db.sql("ALTER TABLE workspaces RENAME COLUMN idle_at TO hidden").await;
    host.loops.tick("idle").await.expect("such a loop").expect_err("it fails");
    let shown = sprag(&host.url, &["loops"]).await.exits(0);
    let line = shown.out.lines().find(|line| line.starts_with("idle")).expect("the idle loop");
    assert!(line.contains("FAILS: ") && line.contains("idle_at"), "{line}");
    let metrics = host.get("/metrics").await.ok();
    let line = "sprag_loop_failures_total{loop=\"idle\",outcome=\"error\"} 1\n";
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "{metrics}");
}
