//! Modules and revisions over HTTP.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Answer, Setup, TestHost, read};
use crate::support::policy_dir;

async fn upload(host: &TestHost, bytes: Vec<u8>) -> Answer {
    let request = host.client.post(format!("{}/policies/modules", host.url)).bearer_auth(ADMIN).body(bytes);
    read(request.send().await.expect("an answer")).await
}

fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(policy_dir().join(format!("{name}.wasm"))).expect("a shipped module")
}

#[rstest]
#[tokio::test]
async fn uploaded_activated_rolled_back(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let shipped_revision = host.get("/policies").await.ok();
    assert_eq!(shipped_revision["active"], true);
    assert_eq!(shipped_revision["modules"].as_array().unwrap().len(), 14);

    let module = upload(&host, shipped("heartbeat")).await;
    assert_eq!(module.status, 201);
    assert_eq!((&module.body["name"], &module.body["hooks"]), (&json!("heartbeat"), &json!(["guard"])));
    let digest = module.body["digest"].clone();
    let wanted = json!({ "modules": [{ "digest": digest, "settings": { "degrade-at": 0.2 } }] });
    let made = host.admin(Method::POST, "/policies/revisions", wanted).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["modules"][0]["digest"], digest);
    let number = made.body["number"].as_i64().unwrap();

    let (id, token) = host.create(json!({ "name": "one" })).await;
    host.beat(&id, &token).await.ok();
    let weak = json!({ "workspace_id": id, "error_rate": 0.3 });
    let answer = host.agent("/registry/heartbeat", Some(&token), weak.clone()).await.ok();
    assert_eq!(answer["workspace_status"], "degraded", "the new threshold decides");
    let decision = host.get(&format!("/decisions/{}", answer["decision_id"].as_str().unwrap())).await.ok();
    assert_eq!(decision["revision"], number);

    let back = host.admin(Method::POST, "/policies/rollback", json!({})).await.ok();
    assert_eq!(back["number"], shipped_revision["number"]);
    let again = format!("/policies/revisions/{number}/activate");
    assert_eq!(host.admin(Method::POST, &again, Value::Null).await.ok()["active"], true);
    let all = host.get("/policies/revisions").await.ok();
    assert_eq!(all[0]["number"], number);
    assert_eq!(all.as_array().unwrap().iter().filter(|r| r["active"] == true).count(), 1);
}

#[rstest]
#[tokio::test]
async fn refused_with_the_reason(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let before = host.get("/policies").await.ok();
    let garbage = upload(&host, b"no module".to_vec()).await;
    assert_eq!(garbage.problem(), (422, "POLICY_REFUSED"));
    assert_eq!(garbage.body["reason"], "not_wasm");
    let digest = before["modules"][0]["digest"].clone();
    let cases = [
        (json!({ "modules": [] }), "module_count"),
        (json!({ "modules": [{ "digest": "sha256:none" }] }), "no_such_module"),
        (json!({ "modules": [{ "digest": digest, "settings": { "nonsense": 1 } }] }), "bad_setting"),
        (json!({ "modules": [{ "digest": digest }, { "digest": digest }] }), "same_name"),
    ];
    for (body, reason) in cases {
        let answer = host.admin(Method::POST, "/policies/revisions", body).await;
        assert_eq!(answer.problem(), (422, "POLICY_REFUSED"));
        assert_eq!(answer.body["reason"], reason);
    }
    let untyped = json!({ "modules": [{ "settings": {} }] });
    assert_eq!(host.admin(Method::POST, "/policies/revisions", untyped).await.problem().0, 400);
    let activate = async |n: &str| {
        host.admin(Method::POST, &format!("/policies/revisions/{n}/activate"), json!({})).await
    };
    assert_eq!(activate("99").await.problem(), (404, "REVISION_NOT_FOUND"));
    assert_eq!(activate("first").await.problem(), (400, "INVALID_FIELD"));
    assert_eq!(
        host.admin(Method::POST, "/policies/rollback", json!({})).await.problem(),
        (409, "NOTHING_BEFORE")
    );
    assert_eq!(host.get("/policies").await.ok(), before);
}

#[tokio::test]
async fn without_a_revision_nothing_moves() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::start(&db, Setup { policies: false, ..Setup::default() }).await;
    assert_eq!(host.get("/policies").await.problem(), (404, "NO_ACTIVE_REVISION"));
    let ready = host.call(Method::GET, "/readyz", None, None).await;
    assert_eq!(ready.problem(), (503, "NOT_SERVING"));
    assert!(ready.body["detail"].as_str().unwrap().contains("revision"), "{ready:?}");
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let beat = host.beat(&id, &token).await.ok();
    assert_eq!(beat["workspace_status"], "provisioning", "liveness is stored, the status stays");
    let register = host.agent("/registry/register", Some(&token), json!({ "id": id })).await;
    assert_eq!(register.problem(), (503, "POLICY_ERROR"));
    assert_eq!(register.body["reason"], "no-active-revision");
    assert!(register.body["decision_id"].is_string());
    let delete = host.call(Method::DELETE, &format!("/workspaces/{id}"), Some(ADMIN), None).await;
    assert_eq!(delete.problem(), (503, "POLICY_ERROR"));
    assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["status"], "provisioning");
}

/// A revision in which nobody rules on removals allows none.
#[tokio::test]
async fn a_removal_that_nobody_allows() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let (id, _) = host.create(json!({ "name": "one" })).await;
    let digest = upload(&host, shipped("heartbeat")).await.ok()["digest"].clone();
    host.admin(Method::POST, "/policies/revisions", json!({ "modules": [{ "digest": digest }] })).await.ok();
    let delete = host.call(Method::DELETE, &format!("/workspaces/{id}"), Some(ADMIN), None).await;
    assert_eq!(delete.problem(), (409, "DENIED_BY_POLICY"));
    assert_eq!(delete.body["reason"], "nobody-allows");
    assert!(delete.body["decision_id"].is_string());
}
