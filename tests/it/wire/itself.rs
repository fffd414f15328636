//! `GET /workspaces/{id}` by an agent: about itself, and without what is the operators'.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Answer, Setup, TestHost};

fn keys(body: &Value) -> BTreeSet<&str> {
    body.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[rstest]
#[tokio::test]
async fn an_agent_reads_about_itself_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Registration::Open, Registration::Token)] registration: Registration,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::start(&db, Setup { registration, ..Setup::default() }).await;
    let (parent, parents) = host.create(json!({ "name": "parent" })).await;
    let labels = json!({ "cost-centre": "none-of-its-business" });
    let (id, token) = host.create(json!({ "name": "one", "parent_id": parent, "labels": labels })).await;
    let ask = async |id: &str, token: Option<&str>| -> Answer {
        host.call(Method::GET, &format!("/workspaces/{id}"), token, None).await
    };
    host.beat(&id, &token).await.ok();

    let own = ask(&id, Some(&token)).await.ok();
    let whole = ask(&id, Some(ADMIN)).await.ok();
    let theirs: Vec<_> = keys(&whole).difference(&keys(&own)).copied().collect();
    assert_eq!(theirs, ["claim_id", "instance_id", "labels", "provider"]);
    for key in keys(&own) {
        assert_eq!(own[key], whole[key], "{key}");
    }
    assert_eq!(
        (&own["name"], &own["status"], &own["parent_id"]),
        (&json!("one"), &json!("online"), &json!(parent))
    );
    // Agents are of many versions: what else they ask with is ignored, an operator's is not.
    assert_eq!(ask(&format!("{id}?since=1"), Some(&token)).await.ok(), own);
    assert_eq!(ask(&format!("{id}?since=1"), Some(ADMIN)).await.problem(), (400, "UNKNOWN_FIELD"));

    // Nobody else: no other agent, nobody without a token, and nothing says what there is.
    for (id, token) in [
        (id.as_str(), None),
        (&id, Some("nobodys")),
        (&id, Some(parents.as_str())),
        (&parent, Some(&token)),
        ("no-such-workspace", Some(&token)),
        ("no-such-workspace", None),
    ] {
        assert_eq!(ask(id, token).await.problem(), (401, "UNAUTHORIZED"), "{id} {token:?}");
    }
    let unclaimed =
        host.admin(Method::POST, "/workspaces", json!({ "name": "x", "issue_token": false })).await;
    let unclaimed = unclaimed.ok()["id"].as_str().expect("an id").to_owned();
    assert_eq!(ask(&unclaimed, None).await.problem(), (401, "UNAUTHORIZED"), "open or not");

    // Other calls of operators are no agent's because of it.
    for (method, path) in [
        (Method::PATCH, format!("/workspaces/{id}")),
        (Method::DELETE, format!("/workspaces/{id}")),
        (Method::GET, format!("/workspaces/{id}/claims")),
        (Method::GET, format!("/workspaces/{id}/plugins")),
        (Method::GET, format!("/events/{id}")),
        (Method::GET, "/workspaces".to_owned()),
    ] {
        let answer = host.call(method.clone(), &path, Some(&token), None).await;
        assert_eq!(answer.problem(), (401, "UNAUTHORIZED"), "{method} {path}");
    }

    // A token that has ended is nobody's; a workspace that is removed is gone for its agent.
    let made = host.admin(Method::POST, &format!("/workspaces/{id}/token"), json!({})).await.ok();
    assert_eq!(ask(&id, Some(&token)).await.problem(), (401, "UNAUTHORIZED"));
    let token = made["auth_token"].as_str().expect("a token").to_owned();
    assert_eq!(keys(&ask(&id, Some(&token)).await.ok()), keys(&own));
    host.call(Method::DELETE, &format!("/workspaces/{id}"), Some(ADMIN), None).await.ok();
    assert_eq!(ask(&id, Some(&token)).await.problem(), (410, "WORKSPACE_REMOVED"));
    assert_eq!(ask(&id, Some(ADMIN)).await.ok()["status"], "removed");
}
