//! Register, heartbeat, update-card.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::store::Backend;
use sqlx::Connection as _;
use tokio::time::timeout;

use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost, healthy};

const REGISTER: &str = "/registry/register";
const HEARTBEAT: &str = "/registry/heartbeat";
const CARD: &str = "/registry/update-card";

fn ready(id: &str) -> Value {
    json!({ "id": id, "url": "http://agent:8000", "agent_card": { "name": "a" }, "mcp_server_present": true,
        "model_present": true, "loaded_mcp_tools": 2 })
}

async fn open(db: &TestDb) -> TestHost {
    TestHost::start(db, Setup { registration: Registration::Open, ..Setup::default() }).await
}

/// A batch that waits for a row is overtaken by the next, though that is not full.
#[tokio::test]
async fn a_row_that_is_held_holds_up_nobody_else() {
    let db = TestDb::new(Backend::Postgres).await;
    let host = TestHost::plain(&db).await;
    let (held, held_token) = host.create(json!({ "name": "held" })).await;
    let (free, free_token) = host.create(json!({ "name": "free" })).await;
    let mut holder = sqlx::PgConnection::connect(&db.url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE workspaces SET name = 'still' WHERE name = 'held'")
        .execute(&mut holder)
        .await
        .unwrap();
    let behind = host.beat(&held, &held_token);
    let beside = async {
        while db.waiting_for_locks().await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let beat = timeout(Duration::from_secs(10), host.beat(&free, &free_token)).await;
        beat.expect("an answer while the other waits").ok();
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    };
    let (behind, ()) = tokio::join!(behind, beside);
    behind.ok();
}

/// A workspace whose creator was handed no token, as older ones are.
async fn tokenless(db: &TestDb, id: &str) {
    let new = sprag::store::NewWorkspace { token: None, ..crate::support::db::new_workspace(id) };
    db.store.create(&new).await.expect("creating");
}

#[rstest]
#[tokio::test]
async fn an_agent_registers_and_heartbeats(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;

    let registered = host.agent(REGISTER, Some(&token), ready(&id)).await.ok();
    assert_eq!(registered["status"], "registered");
    assert_eq!(registered["workspace_status"], "online");
    assert!(registered.get("auth_token").is_none(), "a live token exists: {registered}");
    let decision =
        host.get(&format!("/decisions/{}", registered["decision_id"].as_str().unwrap())).await.ok();
    assert_eq!(decision["format"], "sprag.decision/1");

    let beat = host.beat(&id, &token).await.ok();
    assert_eq!((&beat["status"], &beat["workspace_status"]), (&json!("ok"), &json!("online")));

    let row = host.get(&format!("/workspaces/{id}")).await.ok();
    assert_eq!(row["url"], "http://agent:8000");
    assert_eq!(row["agent_card"], json!({ "name": "a" }));
    assert_eq!(row["uptime_seconds"], 12);
    assert!(row["last_heartbeat_at"].as_str().unwrap().ends_with('Z'), "{row}");
}

#[rstest]
#[tokio::test]
async fn open_registration_hands_out_one_token(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = open(&db).await;
    tokenless(&db, "w").await;
    let first = host.agent(REGISTER, None, ready("w")).await.ok();
    let token = first["auth_token"].as_str().expect("a first token").to_owned();
    assert!(token.starts_with("sprag_") && token.len() == 6 + 64, "{token}");
    host.beat("w", &token).await.ok();
    assert_eq!(host.agent(REGISTER, None, ready("w")).await.problem(), (401, "UNAUTHORIZED"));
    assert_eq!(host.agent(REGISTER, Some("sprag_other"), ready("w")).await.problem(), (401, "UNAUTHORIZED"));
    let again = host.agent(REGISTER, Some(&token), ready("w")).await.ok();
    assert!(again.get("auth_token").is_none());
}

#[rstest]
#[tokio::test]
async fn token_registration_hands_out_none(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    tokenless(&db, "w").await;
    assert_eq!(host.agent(REGISTER, None, ready("w")).await.problem(), (401, "UNAUTHORIZED"));
    let row = host.get("/workspaces/w").await.ok();
    assert_eq!((&row["status"], &row["url"]), (&json!("provisioning"), &Value::Null));
}

#[rstest]
#[tokio::test]
async fn the_gate_fails_a_platform_that_is_not_ready(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "concierge", "kind": "platform" })).await;
    let mut body = ready(&id);
    body["loaded_mcp_tools"] = json!([]);
    // Failed first; then, being failed already, it is held.
    for _ in 0..2 {
        let answer = host.agent(REGISTER, Some(&token), body.clone()).await;
        assert_eq!(answer.problem(), (400, "NOT_READY"));
        assert_eq!(answer.body["reason"], "mcp-tools-not-loaded");
        assert_eq!(answer.body["workspace_status"], "failed");
        let id = answer.body["decision_id"].as_str().expect("a decision");
        host.get(&format!("/decisions/{id}")).await.ok();
    }
    let online = host.agent(REGISTER, Some(&token), ready(&id)).await.ok();
    assert_eq!(online["workspace_status"], "online");
}

#[rstest]
#[case::paused("paused", 409, "WORKSPACE_PAUSED")]
#[case::hibernated("hibernated", 409, "WORKSPACE_HIBERNATED")]
#[case::removed("removed", 410, "WORKSPACE_REMOVED")]
#[tokio::test]
async fn what_was_put_away_stays_away(
    #[case] status: &str,
    #[case] code: u16,
    #[case] name: &str,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    db.sql(&format!("UPDATE workspaces SET status = '{status}' WHERE id = '{id}'")).await;
    let answer = host.agent(REGISTER, Some(&token), ready(&id)).await;
    assert_eq!(answer.problem(), (code, name));
    assert_eq!(answer.body["workspace_status"], status);
    assert_eq!(host.agent(REGISTER, Some("stranger"), ready(&id)).await.problem(), (401, "UNAUTHORIZED"));
    assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["status"], status);
}

#[rstest]
#[tokio::test]
async fn who_may_not_heartbeat(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let (_, others) = host.create(json!({ "name": "two" })).await;
    for (path, body) in
        [(HEARTBEAT, healthy(&id)), (CARD, json!({ "workspace_id": id, "agent_card": { "v": 1 } }))]
    {
        for wrong in [None, Some("stranger"), Some(others.as_str())] {
            assert_eq!(
                host.agent(path, wrong, body.clone()).await.problem(),
                (401, "UNAUTHORIZED"),
                "{path}"
            );
        }
        let mut unknown = body.clone();
        unknown["workspace_id"] = json!("nobody");
        assert_eq!(host.agent(path, Some(&token), unknown).await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    }
    assert_eq!(
        host.agent(REGISTER, Some(&token), ready("nobody")).await.problem(),
        (404, "WORKSPACE_NOT_FOUND")
    );
    let basic = host.client.post(format!("{}{HEARTBEAT}", host.url)).basic_auth("a", Some("b"));
    assert_eq!(basic.json(&healthy(&id)).send().await.unwrap().status(), 401);
    let row = host.get(&format!("/workspaces/{id}")).await.ok();
    assert_eq!((&row["last_heartbeat_at"], &row["agent_card"]), (&Value::Null, &Value::Null));

    host.call(Method::DELETE, &format!("/workspaces/{id}"), Some(crate::support::host::ADMIN), None)
        .await
        .ok();
    assert_eq!(host.beat(&id, &token).await.problem(), (410, "WORKSPACE_REMOVED"));
    let card = json!({ "workspace_id": id, "agent_card": {} });
    assert_eq!(host.agent(CARD, Some(&token), card).await.problem(), (410, "WORKSPACE_REMOVED"));
    assert_eq!(host.beat(&id, "stranger").await.problem(), (401, "UNAUTHORIZED"));
}

#[rstest]
#[tokio::test]
async fn a_card_is_replaced_and_logged(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    for card in [json!({ "skills": ["a"] }), json!("any JSON"), Value::Null] {
        let body = json!({ "workspace_id": id, "agent_card": card });
        assert_eq!(host.agent(CARD, Some(&token), body).await.ok(), json!({ "status": "updated" }));
        assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["agent_card"], card);
    }
    let newest = &host.get(&format!("/events/{id}")).await.ok()[0];
    assert_eq!(newest["type"], "AGENT_CARD_UPDATED");
    // A card that is not there is no card that is to be cleared.
    let answer = host.agent(CARD, Some(&token), json!({ "workspace_id": id })).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!(answer.body["field"], "agent_card");
}

#[rstest]
#[case::nothing_but_the_id(json!({}))]
#[case::null_is_absent(json!({ "error_rate": null, "active_tasks": null, "runtime_metadata": null,
    "loaded_mcp_tools": null, "current_task": null }))]
#[case::unknown_fields(json!({ "tomorrow": { "a": [1] }, "runtime_metadata": { "capabilities": { "new": 1 } } }))]
#[case::floats_and_names(json!({ "uptime_seconds": 12.9, "active_tasks": 2.0, "loaded_mcp_tools": ["a", "b"] }))]
#[case::text_that_no_database_likes(json!({ "sample_error": "a\u{0}b", "current_task": "💥" }))]
#[tokio::test]
async fn heartbeats_that_are_taken(
    #[case] fields: Value,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = fields;
    body["workspace_id"] = json!(id);
    let answer = host.agent(HEARTBEAT, Some(&token), body).await.ok();
    assert_eq!(answer["workspace_status"], "online");
}

#[rstest]
#[case("workspace_id", json!(""), "a string that is not empty")]
#[case("workspace_id", json!(null), "a string that is not empty")]
#[case("workspace_id", json!(7), "a string that is not empty")]
#[tokio::test]
async fn heartbeats_that_are_not(#[case] field: &str, #[case] value: Value, #[case] expected: &str) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = healthy(&id);
    body[field] = value.clone();
    let answer = host.agent(HEARTBEAT, Some(&token), body).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!(answer.body["field"], field);
    assert_eq!(answer.body["expected"], expected);
    assert_eq!(answer.body["value"], value);
    let row = host.get(&format!("/workspaces/{id}")).await.ok();
    assert_eq!(row["last_heartbeat_at"], Value::Null, "a refused heartbeat is not stored");
}

/// Samples for people are cut, and never within a character.
#[rstest]
#[tokio::test]
async fn samples_are_cut(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = healthy(&id);
    body["sample_error"] = json!(format!("x{}", "🦀".repeat(2_000)));
    body["current_task"] = json!("y".repeat(4_097));
    body["runtime_state"] = json!("w".repeat(64));
    host.agent(HEARTBEAT, Some(&token), body).await.ok();
    let row = host.get(&format!("/workspaces/{id}")).await.ok();
    assert_eq!(row["sample_error"], format!("x{}", "🦀".repeat(1_023)));
    assert_eq!(row["current_task"], "y".repeat(4_096));
    assert_eq!(row["runtime_state"], "w".repeat(64));
}

#[tokio::test]
async fn an_address_is_bounded() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = ready(&id);
    body["url"] = json!(format!("http://a/{}", "u".repeat(2_040)));
    let answer = host.agent(REGISTER, Some(&token), body.clone()).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!(
        (&answer.body["field"], &answer.body["expected"]),
        (&json!("url"), &json!("at most 2048 bytes"))
    );
    assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["status"], "provisioning");
    for url in ["file:///etc/passwd", "http://169.254.169.254/latest", "agent:8000"] {
        body["url"] = json!(url);
        assert_eq!(host.agent(REGISTER, Some(&token), body.clone()).await.problem(), (400, "INVALID_FIELD"));
        assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["status"], "provisioning");
    }
    body["url"] = json!(format!("http://a/{}", "u".repeat(2_039)));
    host.agent(REGISTER, Some(&token), body).await.ok();
}

/// JSON as such, but no number that anybody could store.
#[rstest]
#[case(CARD, "{\"agent_card\": {\"a.b\": [1, 1e400]}}", "agent_card.a.b[1]", "1e400")]
#[tokio::test]
async fn numbers_out_of_range(
    #[case] path: &str,
    #[case] body: &'static str,
    #[case] field: &str,
    #[case] value: &str,
) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let request = host.client.post(format!("{}{path}", host.url)).bearer_auth("t").body(body);
    let answer = crate::support::host::read(request.send().await.unwrap()).await;
    assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
    assert_eq!((&answer.body["field"], &answer.body["value"]), (&json!(field), &json!(value)));
}

/// Writes to the row between every judgement and its write.
struct Meddler(String);

impl sprag::advance::Between for Meddler {
    fn judged<'a>(&'a self, _: &'a str) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {
            let sql = "UPDATE workspaces SET version = version + 1";
            let mut db = sqlx::SqliteConnection::connect(&self.0).await.expect("SQLite");
            sqlx::raw_sql(sql).execute(&mut db).await.expect("the statement");
            db.close().await.expect("closing SQLite");
        })
    }
}

#[tokio::test]
async fn a_registration_that_is_always_outrun_comes_again() {
    let db = TestDb::new(Backend::Sqlite).await;
    let between = std::sync::Arc::new(Meddler(db.url.clone()));
    let host = TestHost::start(&db, Setup { between: Some(between), ..Setup::default() }).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let answer = host.agent(REGISTER, Some(&token), ready(&id)).await;
    assert_eq!(answer.problem(), (503, "OUTRUN"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[rstest]
#[case("{", "BAD_JSON")]
#[case("", "BAD_JSON")]
#[case("[1]", "INVALID_FIELD")]
#[tokio::test]
async fn bodies_that_are_no_heartbeat(#[case] body: &'static str, #[case] code: &str) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let request = host.client.post(format!("{}{HEARTBEAT}", host.url)).bearer_auth("t").body(body);
    let answer = crate::support::host::read(request.send().await.unwrap()).await;
    assert_eq!(answer.problem(), (400, code));
}

/// An agent that reports its own status is not inferred about.
#[rstest]
#[case(json!({}), "degraded")]
#[case(json!({ "runtime_metadata": { "capabilities": { "status_mgmt": true } } }), "online")]
#[tokio::test]
async fn native_status_is_passed_on(#[case] fields: Value, #[case] expected: &str) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    host.beat(&id, &token).await.ok();
    let mut body = fields;
    body["workspace_id"] = json!(id);
    body["error_rate"] = json!(0.9);
    let answer = host.agent(HEARTBEAT, Some(&token), body).await.ok();
    assert_eq!(answer["workspace_status"], expected);
}
