//! The field's own agent against a whole host: an early failure, fields that are
//! wrong or left out, and answers that come before its bodies were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::provision::{BoxSpec, BoxToken};
use sprag::store::Backend;

use crate::provision::outside::{AGENT, Kind, Outside, shell};
use crate::provision::{call, soon, spec};
use crate::support::db::TestDb;
use crate::support::field_agent::FieldAgent;
use crate::support::host::{ADMIN, Setup, TestHost};

/// What it says when it says everything.
fn full() -> Value {
    json!({ "error_rate": 0.0, "sample_error": "", "active_tasks": 1, "current_task": "",
        "uptime_seconds": 90, "runtime_state": "wedged",
        "runtime_metadata": { "capabilities": { "provides_native_heartbeat": false }, "idle_timeout_seconds": 30 } })
}

async fn unclaimed(host: &TestHost) -> FieldAgent {
    let body = json!({ "name": "one", "issue_token": false });
    let made = host.admin(Method::POST, "/workspaces", body).await.ok();
    FieldAgent::by_hand(&host.url, made["id"].as_str().expect("an id"))
}

/// One that has registered.
async fn registered(host: &TestHost) -> FieldAgent {
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut agent = FieldAgent::by_hand(&host.url, &id);
    agent.token = Some(token);
    agent.register("http://agent:8000").await.ok();
    agent
}

/// Its one registration fails, and it goes on without a token.
#[rstest]
#[tokio::test]
async fn an_agent_whose_registration_failed_is_heard_in_open_mode(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Registration::Open, Registration::Token)] mode: Registration,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::start(&db, Setup { registration: mode, ..Setup::default() }).await;
    let mut agent = unclaimed(&host).await;
    assert!(!agent.register("file:///nowhere").await.status.is_success());
    let mut full = full();
    full["uptime_seconds"] = json!(-3598);
    if mode == Registration::Token {
        assert_eq!(agent.beat(full).await.problem(), (401, "UNAUTHORIZED"));
        assert_eq!(agent.update_card(json!({})).await.problem(), (401, "UNAUTHORIZED"));
        return;
    }
    // Online by the first, degraded by the second; what it leaves out does not bring it back.
    agent.beat(full.clone()).await.ok();
    assert_eq!(agent.beat(full.clone()).await.ok()["workspace_status"], "degraded");
    for _ in 0..3 {
        assert_eq!(agent.beat(json!({ "active_tasks": 2 })).await.ok()["workspace_status"], "degraded");
    }
    assert_eq!(agent.beat(json!({ "runtime_state": "" })).await.ok()["workspace_status"], "online");
    agent.update_card(json!({ "name": "b" })).await.ok();
    let row = host.get(&format!("/workspaces/{}", agent.id)).await.ok();
    assert_eq!((&row["agent_card"], &row["active_tasks"]), (&json!({ "name": "b" }), &json!(2)));

    // A token of nobody is none; one of another workspace, or that has ended, is no stranger's.
    agent.token = Some("sprag_of_nobody".to_owned());
    agent.beat(full.clone()).await.ok();
    let (other, others) = host.create(json!({ "name": "two" })).await;
    agent.token = Some(others.clone());
    assert_eq!(agent.beat(full.clone()).await.problem(), (401, "UNAUTHORIZED"));
    db.store.revoke_tokens(&other).await.expect("ending it");
    let mut ended = FieldAgent::by_hand(&host.url, &other);
    ended.token = Some(others);
    assert_eq!(ended.beat(full.clone()).await.problem(), (401, "UNAUTHORIZED"));

    // Once it has a token, nothing else counts.
    agent.token = None;
    agent.register("http://agent:8000").await.ok();
    assert!(agent.token.is_some());
    agent.beat(full.clone()).await.ok();
    let mut stranger = FieldAgent::by_hand(&host.url, &agent.id);
    assert_eq!(stranger.beat(full.clone()).await.problem(), (401, "UNAUTHORIZED"));
    assert_eq!(stranger.update_card(json!({})).await.problem(), (401, "UNAUTHORIZED"));

    let mut gone = unclaimed(&host).await;
    host.call(Method::DELETE, &format!("/workspaces/{}", gone.id), Some(ADMIN), None).await.ok();
    assert_eq!(gone.beat(full).await.problem(), (410, "WORKSPACE_REMOVED"));
}

/// Nothing but its environment, as a box of this host has it, and what that names.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_box_it_finds_all_that_it_needs(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (parent, _) = host.create(json!({ "name": "parent" })).await;
    let (id, token) = host.create(json!({ "name": "child", "parent_id": parent })).await;
    let outside = Outside::new(Kind::Process).await;
    let provider = outside.process(|settings| {
        settings.command = shell(&format!("env -0 > new; mv new environment; {AGENT}"));
    });
    let spec = BoxSpec { registry_url: host.url.clone(), token: BoxToken(token), ..spec() };
    Arc::clone(&provider).start(&call(&id, "1.1", "k1"), "a", &spec).await.expect("a start");
    let environment = outside.place(&id, "a").join("environment");
    soon("the box runs", async || environment.exists()).await;
    let text = std::fs::read_to_string(environment).expect("its environment");
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    let environment: BTreeMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();

    let mut agent = FieldAgent::of(&environment);
    assert_eq!(agent.id, id);
    assert_eq!(agent.register("http://agent:8000").await.ok()["workspace_status"], "online");
    assert_eq!(agent.beat(json!({ "active_tasks": 3 })).await.ok()["workspace_status"], "online");
    let own = agent.itself().await.ok();
    assert_eq!(
        (&own["name"], &own["parent_id"], &own["active_tasks"]),
        (&json!("child"), &json!(parent), &json!(3))
    );
    // As it looks for its parent's name; and what it asks of another service.
    let about_parent = agent.ask(Method::GET, &format!("/workspaces/{parent}"), Vec::new()).await;
    assert_eq!(about_parent.problem(), (401, "UNAUTHORIZED"));
    for (method, path) in others(&id) {
        let body = if method == Method::GET { Vec::new() } else { b"{\"message\":\"hello\"}".to_vec() };
        let answer = agent.ask(method.clone(), &path, body).await;
        assert_eq!(answer.problem(), (404, "NO_SUCH_ROUTE"), "{method} {path}");
    }
    agent.beat(json!({})).await.ok();
    assert_eq!(agent.connections, 1 + agent.farewells);
}

/// Calls of docs/agents.md that are another service's.
fn others(id: &str) -> Vec<(Method, String)> {
    let of = |method: Method, path: &str| (method, format!("/workspaces/{id}/{path}"));
    vec![
        (Method::GET, "/registry/discover/x".to_owned()),
        (Method::GET, format!("/registry/{id}/peers")),
        of(Method::POST, "a2a"),
        of(Method::POST, "notify"),
        of(Method::POST, "activity"),
        of(Method::POST, "delegate"),
        of(Method::POST, "chat/uploads"),
        of(Method::GET, "delegations"),
        of(Method::POST, "delegations/record"),
        of(Method::POST, "delegations/x/update"),
        of(Method::GET, "approvals"),
        of(Method::POST, "approvals"),
        of(Method::GET, "memories"),
        of(Method::POST, "memories"),
        of(Method::DELETE, "memories/x"),
        of(Method::POST, "checkpoints"),
        of(Method::GET, "checkpoints/latest"),
        of(Method::GET, "shared-context"),
        of(Method::GET, "instructions/resolve"),
        of(Method::GET, "github-installation-token"),
    ]
}

/// What is wrong in a field that is only for people does not take a healthy agent offline.
#[rstest]
#[case::a_clock_step(json!({ "uptime_seconds": -3598 }), "uptime_seconds")]
#[case::a_long_sample(json!({ "sample_error": "x".repeat(70_000) }), "sample_error")]
#[case::a_long_task(json!({ "current_task": "é".repeat(400_000) }), "current_task")]
#[case::other_types(json!({ "sample_error": { "code": 1 }, "active_tasks": "many" }), "sample_error")]
#[tokio::test]
async fn what_is_wrong_for_people_is_heard_all_the_same(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] wrong: Value,
    #[case] field: &str,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut agent = registered(&host).await;
    for round in 0..3 {
        let before = agent.itself().await.ok()["last_heartbeat_at"].clone();
        let mut said = full();
        said["runtime_state"] = json!("");
        said.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        let answer = agent.beat(said).await.ok();
        assert_eq!(answer["workspace_status"], "online", "round {round}");
        let own = agent.itself().await.ok();
        assert_ne!(own["last_heartbeat_at"], before, "it is stored");
        for warnings in [&answer["warnings"], &own["warnings"]] {
            let named: Vec<_> = warnings.as_array().expect("warnings").iter().map(|w| &w["field"]).collect();
            assert!(named.contains(&&json!(field)), "{named:?}");
        }
    }
    assert_eq!(agent.connections, 1 + agent.farewells);
}

/// Between two full beats it sends others at every task, which leave most out.
#[rstest]
#[tokio::test]
async fn what_it_leaves_out_stands(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut agent = registered(&host).await;
    assert_eq!(agent.beat(full()).await.ok()["workspace_status"], "degraded");
    let path = format!("/workspaces/{}", agent.id);
    let version = host.get(&path).await.ok()["version"].clone();
    for task in 0..5 {
        let at_a_task = json!({ "current_task": format!("task {task}"), "active_tasks": 1, "error_rate": 0,
            "sample_error": "", "uptime_seconds": 0 });
        for said in [at_a_task, json!({ "current_task": "", "active_tasks": 0 }), json!({})] {
            assert_eq!(agent.beat(said.clone()).await.ok()["workspace_status"], "degraded", "{said}");
        }
    }
    assert_eq!(host.get(&path).await.ok()["version"], version, "it never moved");
    for (cleared, again) in [(json!(null), "online"), (json!("wedged"), "degraded"), (json!(""), "online")] {
        let answer = agent.beat(json!({ "runtime_state": cleared })).await.ok();
        assert_eq!(answer["workspace_status"], again, "{cleared}");
    }
}

/// Whatever answers before it read a body, the next beat is stored on the same connection.
#[rstest]
#[tokio::test]
async fn it_keeps_its_connection(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(2, 9_000, 60_000)] bytes: usize,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let mut agent = registered(&host).await;
    let path = format!("/workspaces/{}", agent.id);
    let body = || format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes();
    for round in 0..10 {
        let token = agent.token.clone();
        for (method, early, wrong, status) in [
            (Method::POST, "/registry/heartbeat", None, 401),
            (Method::POST, path.as_str(), Some("nobodys"), 405),
            (Method::POST, &format!("{path}/activity"), token.as_deref(), 404),
            (Method::PUT, "/registry/heartbeat", token.as_deref(), 405),
            (Method::GET, path.as_str(), Some("nobodys"), 401),
        ] {
            agent.token = wrong.map(str::to_owned);
            let answer = agent.ask(method.clone(), early, body()).await;
            assert_eq!(answer.status, status, "{round}: {method} {early}");
            agent.token.clone_from(&token);
            agent.beat(json!({ "active_tasks": round })).await.ok();
        }
    }
    assert_eq!(agent.connections, 1 + agent.farewells, "it connects again only where it was told");
    assert!(agent.farewells < 10, "{} of 100 answers closed", agent.farewells);
}
