//! What operators see of a claim.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use sprag::store::Backend;

use super::{RED, Scene, forced, sent_with};
use crate::support::control_plane::{Verb, What, Where};
use crate::support::host::ADMIN;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn each_command_and_what_it_leaves(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let first = scene.workspace(RED).await;
    let id = &first.id;
    for (command, status, boxes) in [
        ("restart", "provisioning", 1),
        ("pause", "paused", 0),
        ("resume", "provisioning", 1),
        ("hibernate", "hibernated", 0),
        ("wake", "provisioning", 1),
        ("switch-provider", "provisioning", 1),
    ] {
        let claim = scene.carried_out(id, command, sent_with(command)).await;
        assert_eq!(claim["state"], "committed", "{claim:#}");
        assert_eq!(claim["kind"], command.replace('-', "_"));
        scene.settled(id).await;
        let row = scene.row(id).await;
        assert_eq!(row["status"], status, "{command}");
        assert_eq!(scene.plane.running(id).len(), boxes, "{command}");
        if boxes == 1 {
            let new = scene.running(id).await;
            assert_eq!(scene.host().beat(id, &new.token).await.ok()["workspace_status"], "online");
        }
        assert_eq!(scene.host().beat(id, &first.token).await.problem().0, 401, "the first box is long gone");
    }
    let claims = scene.host().get(&format!("/workspaces/{id}/claims?limit=2")).await;
    assert_eq!(claims.body.as_array().expect("claims").len(), 2);
    assert!(claims.header("link").contains("before="), "{claims:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_held_as_long_as_it_is_asked_to(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let path = format!("/workspaces/{}/restart", one.id);
    let request = scene.host().client.post(format!("{}{path}", scene.host().url)).bearer_auth(ADMIN);
    let held = request.header("prefer", "wait=10").json(&forced()).send().await.expect("an answer");
    assert_eq!(held.status(), 202);
    assert_eq!(held.headers()["preference-applied"], "wait=10");
    let location = held.headers()["location"].to_str().expect("text").to_owned();
    let claim: serde_json::Value = held.json().await.expect("JSON");
    assert_eq!(claim["state"], "committed");
    assert!(claim["decision_id"].is_string());
    assert_eq!(scene.host().get(&location).await.ok()["id"], claim["id"]);

    let bad = scene.host().client.post(format!("{}{path}", scene.host().url)).bearer_auth(ADMIN);
    let bad = bad.header("prefer", "wait=soon").json(&forced()).send().await.expect("an answer");
    assert_eq!(bad.status(), 400);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    assert_eq!(scene.command("nobody", "restart", json!({})).await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    assert_eq!(scene.command(&one.id, "explode", json!({})).await.problem(), (404, "NO_SUCH_ROUTE"));
    assert_eq!(scene.command(&one.id, "wake", json!({})).await.problem(), (409, "NO_SUCH_EDGE"));
    assert_eq!(scene.host().get("/claims/none").await.problem(), (404, "CLAIM_NOT_FOUND"));
    assert_eq!(scene.host().get("/workspaces/none/claims").await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    let path = format!("/workspaces/{}", one.id);
    scene.host().call(Method::DELETE, &path, Some(ADMIN), None).await.ok();
    assert_eq!(scene.command(&one.id, "restart", json!({})).await.problem(), (410, "WORKSPACE_REMOVED"));
    scene.until("its box is stopped", async || scene.plane.running(&one.id).is_empty()).await;
    let unknown = json!({ "name": "x", "provider": "green" });
    let refused = scene.host().admin(Method::POST, "/workspaces", unknown).await;
    assert_eq!(refused.problem(), (400, "INVALID_FIELD"));
    let empty = scene.host().call(Method::POST, &format!("{path}/restart"), Some(ADMIN), None).await;
    assert_eq!(empty.problem(), (410, "WORKSPACE_REMOVED"), "no body is an empty one");
}

/// A first box that can't be started leaves a failed row, which a restart can cure.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_can_be_tried_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    scene.plane.faults.always(Where::verb(Verb::Start), What::Fail);
    let body = json!({ "name": "w", "provider": RED });
    let made = scene.host().admin(Method::POST, "/workspaces", body).await.ok();
    let id = made["id"].as_str().expect("an id");
    assert!(made["auth_token"].is_null(), "its box gets one of its own: {made}");
    let claim = scene.ended(made["claim_id"].as_str().expect("a claim")).await;
    assert_eq!((&claim["state"], &claim["kind"]), (&json!("failed"), &json!("create")), "{claim:#}");
    let row = scene.row(id).await;
    assert_eq!(row["status"], "failed", "{row:#}");
    scene.settled(id).await;
    scene.plane.faults.clear();
    assert_eq!(scene.carried_out(id, "restart", json!({})).await["state"], "committed");
    scene.settled(id).await;
}
