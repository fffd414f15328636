//! A box that speaks for a workspace that was put away is stopped, once.

use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::{RED, Stage, body, ready, until};

fn without_times(mut row: Value) -> Value {
    for key in ["last_heartbeat_at", "uptime_seconds"] {
        row[key] = Value::Null;
    }
    row
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_box_is_stopped(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("paused", "hibernated", "removed")] status: &str,
) {
    let stage = Stage::new(backend).await;
    let stray = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    // Its token lives still, as where a box was resumed behind the host's back.
    stage.db.sql(&format!("UPDATE workspaces SET status = '{status}' WHERE id = '{}'", stray.id)).await;
    let before = without_times(stage.row(&stray.id).await);
    for _ in 0..4 {
        let heard =
            stage.host().agent("/registry/heartbeat", Some(&stray.token), body(&stray.id, &ready())).await;
        assert_eq!(heard.status.as_u16(), if status == "removed" { 410 } else { 200 }, "{heard:?}");
    }
    until("its box is gone", async || stage.plane.running(&stray.id).is_empty()).await;
    stage.delivered().await;
    let owed = stage.owed(&stray.id).await;
    assert_eq!(owed, [("stop_instance".to_owned(), "done".to_owned())]);
    assert_eq!(without_times(stage.row(&stray.id).await), before, "the row is as it was");
}

/// By the time that it is done the workspace may run again.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_may_run_again_is_left_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    let owe = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) \
         VALUES ('late', '{}', 'stop_instance', '{{\"action\":\"stop_instance\"}}', 'due', 0, 0)",
        boxed.id
    );
    stage.db.sql(&owe).await;
    stage.delivered().await;
    assert_eq!(stage.boxed(&boxed.id).instance, boxed.instance);
}
