//! A restart that is owed is a claim of the actor `recovery`, and one only.

use rstest::rstest;
use serde_json::json;
use sprag::effects::EffectsConfig;
use sprag::store::Backend;

use super::{RED, Stage, body, ready, until};
use crate::support::host::Setup;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_owed_is_one_claim(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let old = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    let heard = stage.host().agent("/registry/heartbeat", Some(&old.token), body(&old.id, &ready())).await;
    assert_eq!(heard.ok()["workspace_status"], "online");
    let id = "01a20000-0000-7000-8000-000000000001";
    let owe = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) \
         VALUES ('{id}', '{}', 'restart', '{{\"action\":\"restart\"}}', 'due', 0, 0)",
        old.id
    );
    stage.db.sql(&owe).await;
    stage.delivered().await;
    // The host that delivered it died before it could say so, and another delivers it again.
    stage.db.sql(&format!("UPDATE outbox SET state = 'due', due_at = 0 WHERE id = '{id}'")).await;
    stage.delivered().await;
    until("the claim has ended", async || stage.row(&old.id).await["claim_id"].is_null()).await;
    let claims = stage.host().get(&format!("/workspaces/{}/claims", old.id)).await.ok();
    let restarts: Vec<_> =
        claims.as_array().expect("claims").iter().filter(|claim| claim["kind"] == "restart").collect();
    assert_eq!(restarts.len(), 1, "{claims:#}");
    assert_eq!((&restarts[0]["id"], &restarts[0]["actor"]), (&json!(id), &json!("recovery")));
    assert_eq!(restarts[0]["state"], "committed");
    assert_ne!(stage.boxed(&old.id).instance, old.instance);
}

/// It was owed because the box was lost; then its agent was heard of after all.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_back_is_not_restarted(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let old = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    let down = stage.row(&old.id).await["version"].as_i64().expect("a version");
    let heard = stage.host().agent("/registry/heartbeat", Some(&old.token), body(&old.id, &ready())).await;
    assert_eq!(heard.ok()["workspace_status"], "online");
    let owe = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) VALUES
         ('e', '{}', 'restart', '{{\"action\":\"restart\",\"version\":{down}}}', 'due', 0, 0)",
        old.id
    );
    stage.db.sql(&owe).await;
    stage.delivered().await;
    let effects = stage.host().get("/effects").await.ok();
    let note = effects[0]["last_error"].as_str().unwrap_or_default();
    assert!(note.contains("left alone"), "{effects:#}");
    assert_eq!(stage.boxed(&old.id).instance, old.instance);
    assert_eq!(stage.row(&old.id).await["status"], "online");
}

/// Nobody else would ever ask again: a row that is down says nothing.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_had_to_wait_is_asked_for_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let old = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    let id = &old.id;
    stage
        .db
        .sql(&format!(
            "UPDATE fleet SET trusted_from = 1;
            UPDATE workspaces SET status = 'offline', status_since = status_since - 120000,
                last_heartbeat_at = status_since - 120000 WHERE id = '{id}';
            INSERT INTO cooldowns (workspace_id, action, last_fired_at, fired)
            SELECT '{id}', 'restart', now - 10000, 1 FROM clock"
        ))
        .await;
    let look = async || {
        stage.db.sql("UPDATE workspaces SET down_at = 0; UPDATE fleet SET trusted_from = 1").await;
        stage.host().loops.tick("down").await.expect("a loop").expect("a tick")
    };
    assert_eq!(look().await.skipped["asked"], 1);
    stage.delivered().await;
    assert_eq!(stage.boxed(id).instance, old.instance, "it waits for its cooldown");
    stage.db.sql("UPDATE cooldowns SET last_fired_at = last_fired_at - 100000").await;
    assert_eq!(look().await.skipped["asked"], 1);
    stage.delivered().await;
    until("it has another box", async || {
        stage.row(id).await["claim_id"].is_null() && stage.boxed(id).instance != old.instance
    })
    .await;
}

/// A box that can't be started here is not stopped for a restart; somebody has to look.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_can_not_be_done_here_is_parked(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let few = |setup: Setup| {
        let effects = EffectsConfig { attempts: 2, ..setup.effects.clone() };
        Setup { effects, ..setup }
    };
    let stage = Stage::with(backend, 1, few).await;
    let old = stage.booted_without(json!({ "name": "w", "provider": RED })).await;
    let heard = stage.host().agent("/registry/heartbeat", Some(&old.token), body(&old.id, &ready())).await;
    assert_eq!(heard.ok()["workspace_status"], "online");
    let owe = format!(
        "UPDATE workspaces SET provider = 'elsewhere';
         INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) VALUES
         ('e', '{}', 'restart', '{{\"action\":\"restart\"}}', 'due', 0, 0)",
        old.id
    );
    let before = stage.row(&old.id).await["version"].clone();
    stage.db.sql(&owe).await;
    stage.delivered().await;
    let effects = stage.host().get("/effects").await.ok();
    assert_eq!((&effects[0]["id"], &effects[0]["state"]), (&json!("e"), &json!("parked")), "{effects:#}");
    let why = effects[0]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("\"elsewhere\"") && why.contains("configured: red"), "{why}");
    let row = stage.row(&old.id).await;
    assert_eq!(
        (&row["status"], &row["version"], &row["claim_id"]),
        (&json!("online"), &before, &json!(null))
    );
    assert_eq!(stage.boxed(&old.id).instance, old.instance);
}
