//! Create, list, read, patch, remove.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::store::Backend;

use crate::support::control_plane::ControlPlane;
use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost};

/// Of several threads: its claim may be at work, and connecting, when the database is dropped.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn created_as_asked(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&["cloud"]).await;
    let host = TestHost::start(&db, Setup { providers: plane.clients(), ..Setup::default() }).await;
    let (parent, _) = host.create(json!({ "name": "parent" })).await;
    let body = json!({ "name": "héllo", "kind": "platform", "runtime": "hermes", "provider": "cloud",
        "parent_id": parent, "tier": "gold", "labels": { "team": "a" }, "persistent_volume": true,
        "hibernation_idle_minutes": 30 });
    let answer = host.admin(Method::POST, "/workspaces", body.clone()).await;
    assert_eq!(answer.status, 201);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/workspaces/{id}"));
    assert_eq!(answer.body["status"], "provisioning");
    let row = host.get(&format!("/workspaces/{id}")).await.ok();
    for (key, value) in body.as_object().unwrap() {
        assert_eq!(&row[key], value, "{key}");
    }
    assert_eq!(row["version"], 1);
    assert!(row["created_at"].as_str().unwrap().ends_with('Z'));
    let (plain, _) = host.create(json!({ "name": "plain" })).await;
    let row = host.get(&format!("/workspaces/{plain}")).await.ok();
    assert_eq!((&row["kind"], &row["runtime"]), (&json!("workspace"), &json!("claude-code")));
}

#[rstest]
#[case("name", json!(null))]
#[case("name", json!("  "))]
#[case("name", json!("x".repeat(201)))]
#[case("name", json!(7))]
#[case("kind", json!("Work Space"))]
#[case("runtime", json!(""))]
#[case("provider", json!("-x"))]
#[case("tier", json!(""))]
#[case("labels", json!([]))]
#[case("parent_id", json!("nobody"))]
#[case("hibernation_idle_minutes", json!(0))]
#[case("hibernation_idle_minutes", json!(1.5))]
#[case("persistent_volume", json!("yes"))]
#[tokio::test]
async fn not_created(
    #[case] field: &str,
    #[case] value: Value,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut body = json!({ "name": "one" });
    body[field] = value;
    let answer = host.admin(Method::POST, "/workspaces", body).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!(answer.body["field"], field);
    assert!(answer.body["expected"].is_string());
    assert_eq!(host.get("/workspaces").await.ok(), json!([]));
}

/// A field's name may hold what a path or a pointer would take for a separator.
#[rstest]
#[case("a.b")]
#[case("a/b~1")]
#[tokio::test]
async fn a_label_with_dots_is_named(#[case] label: &str) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let body = json!({ "name": "one", "labels": { label: 7 } });
    let answer = host.admin(Method::POST, "/workspaces", body).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!(
        (&answer.body["field"], &answer.body["value"]),
        (&json!(format!("labels.{label}")), &json!(7))
    );
}

#[rstest]
#[tokio::test]
async fn a_lost_token_is_replaced(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, old) = host.create(json!({ "name": "one" })).await;
    let path = format!("/workspaces/{id}/token");
    let replace = async |path: &str, token: &str| host.call(Method::POST, path, Some(token), None).await;
    assert_eq!(replace(&path, &old).await.problem(), (401, "UNAUTHORIZED"));
    host.beat(&id, &old).await.ok();
    let answer = replace(&path, ADMIN).await.ok();
    let new = answer["auth_token"].as_str().expect("a token").to_owned();
    assert_eq!(host.beat(&id, &old).await.problem(), (401, "UNAUTHORIZED"));
    host.beat(&id, &new).await.ok();
    assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["version"], 2, "no change of status by it");

    assert_eq!(replace("/workspaces/nobody/token", ADMIN).await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    host.call(Method::DELETE, &format!("/workspaces/{id}"), Some(ADMIN), None).await.ok();
    assert_eq!(replace(&path, ADMIN).await.problem(), (410, "WORKSPACE_REMOVED"));
}

/// Open registration has something to hand out, to the first and to nobody else.
#[rstest]
#[tokio::test]
async fn created_without_a_token(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let setup = Setup { registration: Registration::Open, ..Setup::default() };
    let host = TestHost::start(&db, setup).await;
    let body = json!({ "name": "one", "issue_token": false });
    let made = host.admin(Method::POST, "/workspaces", body).await.ok();
    assert!(made.get("auth_token").is_none(), "{made}");
    let id = made["id"].as_str().expect("an id").to_owned();
    let register = async || host.agent("/registry/register", None, json!({ "id": id })).await;
    let first = register().await.ok();
    host.beat(&id, first["auth_token"].as_str().expect("a token")).await.ok();
    assert_eq!(register().await.problem(), (401, "UNAUTHORIZED"));
}

#[rstest]
#[tokio::test]
async fn listed_by_pages(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut made = Vec::new();
    for n in 0..5 {
        let kind = if n == 2 { "platform" } else { "workspace" };
        made.push(host.create(json!({ "name": format!("w{n}"), "kind": kind })).await.0);
    }
    let mut path = "/workspaces?kind=workspace&limit=2".to_owned();
    let mut seen = Vec::new();
    for pages in [true, false] {
        let page = host.get(&path).await;
        let link = page.header("link").to_owned();
        let ids: Vec<_> =
            page.ok().as_array().unwrap().iter().map(|w| w["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 2);
        seen.extend(ids);
        assert_eq!(link.ends_with("; rel=\"next\""), pages, "{link:?}");
        path = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    }
    made.remove(2);
    assert_eq!(seen, made);

    host.call(Method::DELETE, &format!("/workspaces/{}", made[0]), Some(ADMIN), None).await.ok();
    let count = async |path: &str| host.get(path).await.ok().as_array().unwrap().len();
    assert_eq!(count("/workspaces").await, 4);
    assert_eq!(count("/workspaces?include_removed=true").await, 5);
    assert_eq!(count("/workspaces?status=removed").await, 1);
    assert_eq!(count("/workspaces?status=provisioning&runtime=claude-code").await, 4);
    assert_eq!(count("/workspaces?provider=nobody").await, 0);
    for (query, field) in [
        ("status=alive", "status"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("include_removed=perhaps", "include_removed"),
    ] {
        let answer = host.get(&format!("/workspaces?{query}")).await;
        assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
        assert_eq!(answer.body["field"], field);
    }
    assert_eq!(host.get("/workspaces?limit=1&limit=2").await.problem(), (400, "BAD_QUERY"));
}

#[rstest]
#[tokio::test]
async fn patched(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (parent, _) = host.create(json!({ "name": "parent" })).await;
    let (child, _) = host.create(json!({ "name": "child", "parent_id": parent, "tier": "gold" })).await;
    let path = format!("/workspaces/{child}");
    let row = host.admin(Method::PATCH, &path, json!({ "name": "new", "labels": { "a": "b" } })).await.ok();
    assert_eq!(
        (&row["name"], &row["labels"], &row["tier"]),
        (&json!("new"), &json!({ "a": "b" }), &json!("gold"))
    );
    assert_eq!(row["version"], 1);
    let row = host.admin(Method::PATCH, &path, json!({ "parent_id": null, "tier": null })).await.ok();
    assert_eq!((&row["parent_id"], &row["tier"]), (&Value::Null, &Value::Null));

    host.admin(Method::PATCH, &path, json!({ "parent_id": parent })).await.ok();
    let up = format!("/workspaces/{parent}");
    let moved = |parent: &str| json!({ "parent_id": parent });
    assert_eq!(host.admin(Method::PATCH, &up, moved(&child)).await.problem(), (409, "PARENT_CYCLE"));
    assert_eq!(host.admin(Method::PATCH, &up, moved(&parent)).await.problem(), (409, "PARENT_CYCLE"));
    assert_eq!(host.admin(Method::PATCH, &up, moved("nobody")).await.problem(), (400, "INVALID_FIELD"));
    assert_eq!(
        host.admin(Method::PATCH, "/workspaces/nobody", json!({})).await.problem(),
        (404, "WORKSPACE_NOT_FOUND")
    );
    let (gone, _) = host.create(json!({ "name": "gone" })).await;
    host.call(Method::DELETE, &format!("/workspaces/{gone}"), Some(ADMIN), None).await.ok();
    assert_eq!(host.admin(Method::PATCH, &up, moved(&gone)).await.problem(), (409, "PARENT_REMOVED"));
    let removed = host.admin(Method::PATCH, &format!("/workspaces/{gone}"), json!({ "name": "x" })).await;
    assert_eq!(removed.problem(), (410, "WORKSPACE_REMOVED"));
    let create = json!({ "name": "x", "parent_id": gone });
    assert_eq!(host.admin(Method::POST, "/workspaces", create).await.problem(), (409, "PARENT_REMOVED"));
}

#[rstest]
#[tokio::test]
async fn removed_with_all_below(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (top, _) = host.create(json!({ "name": "top" })).await;
    let (middle, _) = host.create(json!({ "name": "middle", "parent_id": top })).await;
    let (bottom, token) = host.create(json!({ "name": "bottom", "parent_id": middle })).await;
    let path = format!("/workspaces/{top}?cascade=true");
    let answer = host.call(Method::DELETE, &path, Some(ADMIN), None).await.ok();
    assert_eq!((&answer["status"], &answer["removed"]), (&json!("removed"), &json!(3)));
    let decision = host.get(&format!("/decisions/{}", answer["decision_id"].as_str().unwrap())).await.ok();
    assert_eq!(decision["question"]["workspace"]["id"], top);
    for id in [&top, &middle, &bottom] {
        assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["status"], "removed");
        assert_eq!(host.get(&format!("/events/{id}")).await.ok()[0]["type"], "WORKSPACE_REMOVED");
    }
    assert_eq!(host.beat(&bottom, &token).await.problem(), (410, "WORKSPACE_REMOVED"));
    let delete = async |path: &str| host.call(Method::DELETE, path, Some(ADMIN), None).await;
    assert_eq!(delete(&path).await.problem(), (410, "WORKSPACE_REMOVED"));
    assert_eq!(delete("/workspaces/nobody").await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    assert_eq!(host.get("/workspaces/nobody").await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    assert_eq!(host.get("/decisions/nobody").await.problem(), (404, "DECISION_NOT_FOUND"));
}

/// Without a word about them, descendants keep a workspace; those that are removed already don't.
#[rstest]
#[tokio::test]
async fn not_removed_with_others_below_it(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut ids: Vec<String> = Vec::new();
    for depth in 0..5 {
        let (id, _) = host.create(json!({ "name": format!("at {depth}"), "parent_id": ids.last() })).await;
        ids.push(id);
    }
    let delete = async |id: &str, query: &str| {
        host.call(Method::DELETE, &format!("/workspaces/{id}{query}"), Some(ADMIN), None).await
    };
    let removed = async || {
        let rows = host.get("/workspaces?status=removed").await.ok();
        rows.as_array().expect("rows").len()
    };
    for query in ["", "?cascade=false"] {
        for (depth, below) in [(0, 4), (3, 1)] {
            let refused = delete(&ids[depth], query).await;
            assert_eq!(refused.problem(), (409, "HAS_DESCENDANTS"), "{refused:?}");
            assert_eq!(refused.body["descendants"], json!(below));
            let detail = refused.body["detail"].as_str().expect("a detail");
            let said = detail.contains(&format!("{below} workspace")) && detail.contains("cascade");
            assert!(said, "{detail}");
        }
    }
    let wrong = delete(&ids[0], "?cascade=perhaps").await;
    assert_eq!((wrong.problem(), &wrong.body["field"]), ((400, "INVALID_FIELD"), &json!("cascade")));
    assert_eq!(removed().await, 0);
    assert_eq!(delete("nobody", "").await.problem(), (404, "WORKSPACE_NOT_FOUND"));

    assert_eq!(delete(&ids[4], "").await.ok()["removed"], 1);
    assert_eq!(delete(&ids[3], "").await.ok()["removed"], 1, "what is removed hangs below nobody");
    assert_eq!(delete(&ids[0], "").await.body["descendants"], json!(2));
    assert_eq!(delete(&ids[0], "?cascade=true").await.ok()["removed"], 3);
    assert_eq!(delete(&ids[0], "").await.problem(), (410, "WORKSPACE_REMOVED"));
    assert_eq!(removed().await, 5);
}

/// Every operator's route, with the agent's token and with none.
#[tokio::test]
async fn operators_only() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let (get, post) = (Method::GET, Method::POST);
    let calls = [
        (post.clone(), "/workspaces".to_owned()),
        (get.clone(), "/workspaces".to_owned()),
        (Method::PATCH, format!("/workspaces/{id}")),
        (Method::DELETE, format!("/workspaces/{id}")),
        (get.clone(), "/events".to_owned()),
        (get.clone(), format!("/events/{id}")),
        (get.clone(), "/events/stream".to_owned()),
        (get.clone(), "/decisions".to_owned()),
        (get.clone(), "/decisions/x".to_owned()),
        (get.clone(), "/policies".to_owned()),
        (get, "/policies/revisions".to_owned()),
        (post.clone(), "/policies/modules".to_owned()),
        (post.clone(), "/policies/revisions".to_owned()),
        (post.clone(), "/policies/revisions/1/activate".to_owned()),
        (post, "/policies/rollback".to_owned()),
    ];
    for (method, path) in calls {
        for token in [None, Some(token.as_str())] {
            let answer = host.call(method.clone(), &path, token, Some(json!({}))).await;
            assert_eq!(answer.problem(), (401, "UNAUTHORIZED"), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.body.to_string().contains("sprag_"), "{}", answer.body);
        }
    }
}
