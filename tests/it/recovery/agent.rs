//! Case 4 with a real host, a real provider and a real agent: it boots without
//! its tools, is failed, gets them delivered once, and comes online.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::machine::Status;
use sprag::provision::Provisioner;
use sprag::provision::process::{Process as Provider, Settings};
use sprag::store::Backend;
use tempfile::TempDir;

use super::{TOOLS, until};
use crate::provision::outside::stop_all;
use crate::support::db::TestDb;
use crate::support::process::Process;
use crate::support::sprag_bin;

/// Long enough that the row is seen as failed before its cure is delivered.
const TICK_MS: u64 = 700;

struct Ground {
    host: Option<Process>,
    db: TestDb,
    state: TempDir,
    boxes: TempDir,
}

impl Ground {
    /// Every agent waits for a file before it speaks.
    async fn new(backend: Backend) -> Self {
        let dir = || tempfile::tempdir().expect("a directory");
        let (db, state, boxes) = (TestDb::new(backend).await, dir(), dir());
        let wait = format!(
            "while [ ! -e {:?} ]; do sleep 0.02; done; exec {:?} agent",
            state.path().join("go"),
            sprag_bin()
        );
        let config = format!(
            "[claims]\nlease_ms = 1000\ntick_ms = 100\n[effects]\ntick_ms = {TICK_MS}\nbackoff_ms = 50\n\
             privileged_plugins = [{TOOLS:?}]\n\
             [providers.local]\ntype = \"process\"\ndir = {:?}\nstop_grace_ms = 3000\n\
             command = [\"sh\", \"-c\", {wait:?}]\nenv = {{ SPRAG_HEARTBEAT_MS = \"50\" }}\n",
            boxes.path()
        );
        let host = Process::start(&db.url, state.path(), &config).await;
        Self { host: Some(host), db, state, boxes }
    }

    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.host.as_ref().expect("a host that runs").admin(method, path, body).await
    }

    async fn row(&self, id: &str) -> Value {
        self.admin(Method::GET, &format!("workspaces/{id}"), None).await
    }

    async fn becomes(&self, id: &str, status: &str) {
        until(status, async || self.row(id).await["status"] == status).await;
    }

    async fn effects(&self, id: &str) -> Vec<Value> {
        let found = self.admin(Method::GET, &format!("effects?workspace_id={id}"), None).await;
        found.as_array().expect("effects").clone()
    }

    /// What lies in its box.
    fn place(&self, id: &str, row: &Value) -> PathBuf {
        let instance = row["instance_id"].as_str().expect("a box");
        self.boxes.path().join(id).join("boxes").join(instance)
    }
}

/// No test leaves a process behind.
impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.host.take());
        let provider: Arc<dyn Provisioner> = Arc::new(Provider::new(Settings {
            dir: self.boxes.path().to_owned(),
            sprag: sprag_bin(),
            command: Vec::new(),
            env: [].into(),
            stop_grace: Duration::from_millis(200),
            kept_boxes: 8,
        }));
        stop_all(provider);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_agent_is_cured_by_one_delivery(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ground = Ground::new(backend).await;
    let body = json!({ "name": "concierge", "kind": "platform", "provider": "local" });
    let made = ground.admin(Method::POST, "workspaces", Some(body)).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    until("its first claim has ended", async || ground.row(&id).await["claim_id"].is_null()).await;
    let plugins = json!({ "plugins": [{ "name": TOOLS, "version": "1.0" }] });
    ground.admin(Method::PUT, &format!("workspaces/{id}/plugins"), Some(plugins)).await;
    assert_eq!(ground.effects(&id).await.len(), 0, "it has not spoken yet");

    std::fs::write(ground.state.path().join("go"), "").expect("telling it to speak");
    ground.becomes(&id, "failed").await;
    let first = ground.row(&id).await;
    ground.becomes(&id, "online").await;
    // Some more heartbeats, and it coming online, ask for nothing within the window.
    tokio::time::sleep(Duration::from_millis(2 * TICK_MS)).await;

    let effects = ground.effects(&id).await;
    let [effect] = effects.as_slice() else { panic!("{effects:#?}") };
    assert_eq!((&effect["kind"], &effect["state"]), (&json!("reconcile_plugins"), &json!("done")));
    assert_eq!(
        (&effect["attempts"], &effect["body"]["reason"]["code"]),
        (&json!(1), &json!("mcp-server-missing"))
    );
    let last = ground.row(&id).await;
    assert_eq!(last["instance_id"], first["instance_id"], "the box is the same");

    let place = ground.place(&id, &last);
    let log = std::fs::read_to_string(place.join("agent.log")).expect("the agent's log");
    let failed = log.find("is failed (NOT_READY)").unwrap_or_else(|| panic!("no 400 in\n{log}"));
    let online = log.find("is online").unwrap_or_else(|| panic!("not online in\n{log}"));
    assert!(failed < online, "{log}");
    let delivered = std::fs::read_to_string(place.join("plugins.json")).expect("what was delivered");
    assert!(delivered.contains(TOOLS), "{delivered}");

    let mut events = ground.db.store.events(Some(&id), None, 100).await.expect("reading events");
    events.reverse();
    let path: Vec<_> = events.iter().filter_map(|event| Some((event.from?, event.to?))).collect();
    assert_eq!(path, [(Status::Provisioning, Status::Failed), (Status::Failed, Status::Online)]);
}
