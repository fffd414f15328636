//! A restart that is owed is a claim of the actor `recovery`, and one only.

use rstest::rstest;
use serde_json::json;
use sprag::store::Backend;

use super::{RED, Stage, body, ready, until};

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
