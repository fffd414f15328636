//! The field's own agent, as docs/agents.md has it: it registers once, never looks
//! back, and heartbeats with whatever it has.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Answer, Setup, TestHost};

/// What it holds between two calls.
struct FieldAgent<'a> {
    host: &'a TestHost,
    id: String,
    token: Option<String>,
}

impl FieldAgent<'_> {
    async fn register(&mut self, url: &str) -> Answer {
        let body = json!({ "id": self.id, "url": url, "agent_card": { "name": "a" } });
        let answer = self.host.agent("/registry/register", self.token.as_deref(), body).await;
        if let Some(token) = answer.body["auth_token"].as_str() {
            self.token = Some(token.to_owned());
        }
        answer
    }

    async fn beat(&self, mut said: Value) -> Answer {
        said["workspace_id"] = json!(self.id);
        self.host.agent("/registry/heartbeat", self.token.as_deref(), said).await
    }

    async fn update_card(&self, card: Value) -> Answer {
        let body = json!({ "workspace_id": self.id, "agent_card": card });
        self.host.agent("/registry/update-card", self.token.as_deref(), body).await
    }
}

async fn unclaimed(host: &TestHost) -> FieldAgent<'_> {
    let body = json!({ "name": "one", "issue_token": false });
    let made = host.admin(Method::POST, "/workspaces", body).await.ok();
    FieldAgent { host, id: made["id"].as_str().expect("an id").to_owned(), token: None }
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
    let full = json!({ "error_rate": 0.0, "sample_error": "", "active_tasks": 1, "uptime_seconds": -3598,
        "runtime_state": "wedged" });
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
    let ended = FieldAgent { host: &host, id: other, token: Some(others) };
    assert_eq!(ended.beat(full.clone()).await.problem(), (401, "UNAUTHORIZED"));

    // Once it has a token, nothing else counts.
    agent.token = None;
    agent.register("http://agent:8000").await.ok();
    assert!(agent.token.is_some());
    agent.beat(full.clone()).await.ok();
    let stranger = FieldAgent { host: &host, id: agent.id.clone(), token: None };
    assert_eq!(stranger.beat(full.clone()).await.problem(), (401, "UNAUTHORIZED"));
    assert_eq!(stranger.update_card(json!({})).await.problem(), (401, "UNAUTHORIZED"));

    let gone = unclaimed(&host).await;
    host.call(Method::DELETE, &format!("/workspaces/{}", gone.id), Some(ADMIN), None).await.ok();
    assert_eq!(gone.beat(full).await.problem(), (410, "WORKSPACE_REMOVED"));
}
