//! What heartbeats and registrations say: liveness comes first, what is left out
//! stands, and what is wrong in a field is the trouble of that field.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Answer, Setup, TestHost, healthy, read};

const REGISTER: &str = "/registry/register";
const HEARTBEAT: &str = "/registry/heartbeat";

/// Sends a body as it stands.
async fn send(host: &TestHost, path: &str, token: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = host.client.post(format!("{}{path}", host.url)).bearer_auth(token).body(body);
    read(request.send().await.expect("an answer")).await
}

async fn row(host: &TestHost, id: &str) -> Value {
    host.get(&format!("/workspaces/{id}")).await.ok()
}

fn fields(warnings: &Value) -> Vec<&str> {
    let warnings = warnings.as_array().map(Vec::as_slice).unwrap_or_default();
    warnings.iter().map(|w| w["field"].as_str().expect("a field")).collect()
}

/// A field, as JSON has it or nearly; the column, and what it holds then (it held 0.25,
/// "before", 3, 77, "before" and "before").
#[rstest]
#[case("\"error_rate\": 1.5", "error_rate", json!(1.0))]
#[case("\"error_rate\": -0.1", "error_rate", json!(0.0))]
#[case("\"error_rate\": 1e400", "error_rate", json!(1.0))]
#[case("\"error_rate\": NaN", "error_rate", json!(0.25))]
#[case("\"error_rate\": \"high\"", "error_rate", json!(0.25))]
#[case("\"error_rate\": 0.5, \"error_rate\": {\"a\": 1}", "error_rate", json!(0.25))]
#[case("\"active_tasks\": -1", "active_tasks", json!(0))]
#[case("\"active_tasks\": 1e30", "active_tasks", json!(2_147_483_647))]
#[case("\"uptime_seconds\": -3598", "uptime_seconds", json!(0))]
#[case("\"uptime_seconds\": Infinity", "uptime_seconds", json!(77))]
#[case("\"uptime_seconds\": true", "uptime_seconds", json!(77))]
#[case("\"sample_error\": 7", "sample_error", json!("before"))]
#[case("\"sample_error\": \"a\\u0000b\"", "sample_error", json!("a\u{fffd}b"))]
#[case("\"current_task\": \"\\u0000\"", "current_task", json!("\u{fffd}"))]
#[case("\"runtime_state\": \"wedged\\u0000\"", "runtime_state", json!("before"))]
#[case("\"sample_error\": \"\\ud800\"", "sample_error", json!("before"))]
#[case("\"current_task\": [\"x\"]", "current_task", json!("before"))]
#[case("\"runtime_state\": {}", "runtime_state", json!("before"))]
#[case(&format!("\"runtime_state\": \"{}\"", "w".repeat(65)), "runtime_state", json!("before"))]
#[case("\"loaded_mcp_tools\": \"two\"", "loaded_mcp_tools", Value::Null)]
#[case("\"loaded_mcp_tools\": -2", "loaded_mcp_tools", Value::Null)]
#[case("\"mcp_server_present\": \"yes\"", "mcp_server_present", Value::Null)]
#[case("\"runtime_metadata\": 3", "runtime_metadata", Value::Null)]
#[case(
    "\"runtime_metadata\": {\"capabilities\": {\"status_mgmt\": 3}}",
    "runtime_metadata.capabilities.status_mgmt",
    Value::Null
)]
#[tokio::test]
async fn a_wrong_field_costs_no_liveness(
    #[case] text: &str,
    #[case] field: &str,
    #[case] held: Value,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let before = json!({ "workspace_id": id, "error_rate": 0.25, "sample_error": "before", "active_tasks": 3,
        "uptime_seconds": 77, "current_task": "before", "runtime_state": "before" });
    host.agent(HEARTBEAT, Some(&token), before).await.ok();
    db.sql("UPDATE workspaces SET last_heartbeat_at = 1").await;

    let answer = send(&host, HEARTBEAT, &token, format!("{{{text}, \"workspace_id\": \"{id}\"}}")).await.ok();
    assert_eq!(answer["status"], "ok");
    assert_eq!(fields(&answer["warnings"]), [field], "{answer}");
    let row_ = row(&host, &id).await;
    assert!(!row_["last_heartbeat_at"].as_str().expect("a time").starts_with("1970"), "{row_}");
    if !held.is_null() {
        assert_eq!(row_[field], held, "{row_}");
    }
    assert_eq!(row_["warnings"], answer["warnings"]);
    let metrics = host.call(Method::GET, "/metrics", None, None).await.body;
    let counted = format!("sprag_agent_fields_not_taken_total{{call=\"heartbeat\",field=\"{field}\"}} 1");
    assert!(metrics.as_str().expect("text").contains(&counted), "{metrics}");

    host.beat(&id, &token).await.ok();
    assert_eq!(row(&host, &id).await["warnings"], json!([]), "the last heartbeat had none");
}

/// What is absent stands, `null` and `""` clear it.
#[rstest]
#[tokio::test]
async fn what_is_left_out_stands(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "concierge", "kind": "platform" })).await;
    let full = json!({ "workspace_id": id, "error_rate": 0.0, "sample_error": "e", "active_tasks": 3,
        "uptime_seconds": 77, "current_task": "t", "runtime_state": "wedged", "mcp_server_present": true,
        "model_present": true, "loaded_mcp_tools": ["create_workspace"] });
    host.agent(HEARTBEAT, Some(&token), full.clone()).await.ok();
    let only = json!({ "workspace_id": id });
    let columns =
        ["error_rate", "sample_error", "active_tasks", "uptime_seconds", "current_task", "runtime_state"];
    for _ in 0..3 {
        let answer = host.agent(HEARTBEAT, Some(&token), only.clone()).await.ok();
        assert_eq!(answer["workspace_status"], "degraded", "still wedged, and still with its tools");
        assert!(answer.get("warnings").is_none(), "{answer}");
        let row = row(&host, &id).await;
        for column in columns {
            assert_eq!(row[column].as_f64(), full[column].as_f64(), "{column}");
            assert_eq!(row[column].as_str(), full[column].as_str(), "{column}");
        }
    }
    for (column, cleared) in
        columns.into_iter().zip([json!(0.0), json!(""), json!(0), json!(0), json!(""), json!("")])
    {
        for with in [Value::Null, json!("")] {
            host.agent(HEARTBEAT, Some(&token), full.clone()).await.ok();
            let mut body = only.clone();
            body[column] = with;
            let answer = host.agent(HEARTBEAT, Some(&token), body).await.ok();
            assert!(answer.get("warnings").is_none(), "{answer}");
            assert_eq!(row(&host, &id).await[column], cleared, "{column}");
        }
    }
    // The gate of platforms asks for tools; one that is not said of now has them still.
    let mut no_tools = only.clone();
    no_tools["loaded_mcp_tools"] = json!([]);
    no_tools["runtime_state"] = json!("");
    host.agent(HEARTBEAT, Some(&token), no_tools).await.ok();
    let failed = host.agent(HEARTBEAT, Some(&token), only).await.ok();
    assert_ne!(failed["workspace_status"], "online", "it has none since");
}

/// A status that the agent reports itself stays its own where a heartbeat says nothing of it.
#[rstest]
#[tokio::test]
async fn native_status_stands(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let native = |said: Value| json!({ "workspace_id": id, "runtime_metadata": said });
    let steps = [
        (native(json!({ "capabilities": { "status_mgmt": true } })), "online"),
        (json!({ "workspace_id": id, "error_rate": 0.9 }), "online"),
        (native(json!({})), "online"),
        (native(json!({ "capabilities": null })), "degraded"),
    ];
    for (body, expected) in steps {
        let answer = host.agent(HEARTBEAT, Some(&token), body.clone()).await.ok();
        assert_eq!(answer["workspace_status"], expected, "{body}");
    }
}

/// The next process of an agent is not judged by the words of the one before.
#[rstest]
#[tokio::test]
async fn a_registration_begins_anew(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one", "kind": "platform" })).await;
    let registration = json!({ "id": id, "url": "http://agent:8000", "agent_card": { "name": "a" },
        "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": 2 });
    host.agent(REGISTER, Some(&token), registration.clone()).await.ok();
    let mut wedged = healthy(&id);
    wedged["runtime_state"] = json!("wedged");
    assert_eq!(host.agent(HEARTBEAT, Some(&token), wedged).await.ok()["workspace_status"], "degraded");
    let mut again = registration;
    for absent in ["url", "agent_card"] {
        again.as_object_mut().expect("an object").remove(absent);
    }
    host.agent(REGISTER, Some(&token), again.clone()).await.ok();
    let beat = host.agent(HEARTBEAT, Some(&token), json!({ "workspace_id": id })).await.ok();
    assert_eq!(beat["workspace_status"], "online", "its readiness is the registration's");
    let row = row(&host, &id).await;
    assert_eq!((&row["url"], &row["agent_card"]), (&json!("http://agent:8000"), &json!({ "name": "a" })));
    assert_eq!((&row["runtime_state"], &row["active_tasks"]), (&json!(""), &json!(0)));

    again["agent_card"] = Value::Null;
    host.agent(REGISTER, Some(&token), again.clone()).await.ok();
    assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["agent_card"], Value::Null);

    // A card that can't be kept is for people, too.
    again["agent_card"] = json!({ "name": "b" });
    host.agent(REGISTER, Some(&token), again.clone()).await.ok();
    for card in [format!("\"{}\"", "x".repeat(100_000)), "{\"n\": 1e400}".to_owned()] {
        again["agent_card"] = json!("CARD");
        let text = again.to_string().replace("\"CARD\"", &card);
        let answer = send(&host, REGISTER, &token, text).await.ok();
        assert_eq!(fields(&answer["warnings"]), ["agent_card"], "{answer}");
        let row = host.get(&format!("/workspaces/{id}")).await.ok();
        assert_eq!((&row["agent_card"], &row["warnings"]), (&json!({ "name": "b" }), &answer["warnings"]));
    }
}

/// Long samples are taken, a few at a time; and who has no token for it gets nowhere.
#[tokio::test]
async fn a_long_sample_is_cut_and_not_refused() {
    let db = TestDb::new(Backend::Sqlite).await;
    let http = sprag::http::HttpConfig { large_bodies: 1, ..sprag::http::HttpConfig::default() };
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = healthy(&id);
    body["sample_error"] = json!("x".repeat(1_000_000));
    let body = body.to_string();
    let all = (0..6).map(|_| send(&host, HEARTBEAT, &token, body.clone()));
    for answer in futures::future::join_all(all).await {
        assert_eq!(fields(&answer.ok()["warnings"]), ["sample_error"]);
    }
    assert_eq!(row(&host, &id).await["sample_error"], "x".repeat(4_096));
    let pieces = body.as_bytes().chunks(9_999).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces = futures::stream::iter(pieces.collect::<Vec<_>>());
    send(&host, HEARTBEAT, &token, reqwest::Body::wrap_stream(pieces)).await.ok();
    assert_eq!(send(&host, HEARTBEAT, "stranger", body).await.problem(), (401, "UNAUTHORIZED"));
    let card = json!({ "name": "one", "labels": { "a": "x".repeat(100_000) } });
    assert_eq!(host.call(Method::POST, "/workspaces", Some(ADMIN), Some(card)).await.problem().0, 413);
}

/// Nothing becomes another character in silence: neither a byte that is no text, nor a NUL.
#[rstest]
#[tokio::test]
async fn what_no_text_holds_is_said(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let body = [
        format!("{{\"workspace_id\":\"{id}\",\"sample_error\":\"a").as_bytes(),
        b"\xff",
        "\",\"current_task\":\"\u{fffd} of its own\",\"active_tasks\":4}".as_bytes(),
    ]
    .concat();
    let request = host.client.post(format!("{}{HEARTBEAT}", host.url)).bearer_auth(&token).body(body);
    let answer = crate::support::host::read(request.send().await.expect("an answer")).await.ok();
    assert!(fields(&answer["warnings"]).contains(&"sample_error"), "{answer}");
    assert_eq!(answer["warnings"][0]["expected"], "text in UTF-8", "{answer}");
    let held = row(&host, &id).await;
    assert_eq!((&held["sample_error"], &held["active_tasks"]), (&json!("a\u{fffd}"), &json!(4)));
    // Where its own text has that character, it is as it was said.
    let own = json!({ "workspace_id": id, "sample_error": "\u{fffd}" });
    let answer = host.agent(HEARTBEAT, Some(&token), own).await.ok();
    assert!(answer.get("warnings").is_none(), "{answer}");

    // A card holds it; an address with it is none; an id with it is nobody's.
    let card = json!({ "name": "a\0b", "c\0": ["\0"] });
    let register = |url: &str| json!({ "id": id, "url": url, "agent_card": card });
    let refused = host.agent(REGISTER, Some(&token), register("http://agent/\0")).await;
    assert_eq!((refused.problem(), &refused.body["field"]), ((400, "INVALID_FIELD"), &json!("url")));
    host.agent(REGISTER, Some(&token), register("http://agent/")).await.ok();
    assert_eq!(row(&host, &id).await["agent_card"], card);
    let update = json!({ "workspace_id": id, "agent_card": { "n": "\0" } });
    host.agent("/registry/update-card", Some(&token), update).await.ok();
    assert_eq!(row(&host, &id).await["agent_card"], json!({ "n": "\0" }));
    for (path, field) in
        [(REGISTER, "id"), (HEARTBEAT, "workspace_id"), ("/registry/update-card", "workspace_id")]
    {
        let body = json!({ field: format!("{id}\0"), "agent_card": {} });
        assert_eq!(
            host.agent(path, Some(&token), body).await.problem(),
            (404, "WORKSPACE_NOT_FOUND"),
            "{path}"
        );
    }
}
