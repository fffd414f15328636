//! `sprag agent` against a real host: what it obeys, and how it ends.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sprag::provision::Plugin;
use sprag::store::Backend;
use tokio::process::{Child, Command};

use super::outside::{Kind, Outside};
use super::{call, running, soon, spec, stopped};
use crate::support::db::TestDb;
use crate::support::host::TestHost;
use crate::support::sprag_bin;

/// A host, and a directory for an agent's files.
struct Stage {
    host: TestHost,
    dir: tempfile::TempDir,
    _db: TestDb,
}

impl Stage {
    async fn new() -> Self {
        let db = TestDb::new(Backend::Sqlite).await;
        let host = TestHost::plain(&db).await;
        Self { host, dir: tempfile::tempdir().expect("a directory"), _db: db }
    }

    fn agent(&self, id: &str, token: &str, kind: &str) -> Child {
        let mut command = Command::new(sprag_bin());
        command.args(["agent", "--kind", kind, "--heartbeat-ms", "20"]);
        command.args(["--url", &self.host.url, "--workspace-id", id]).env("SPRAG_TOKEN", token);
        command.env("SPRAG_CONTROL_FILE", self.dir.path().join("control.json"));
        command.env("SPRAG_PLUGINS_FILE", self.dir.path().join("plugins.json"));
        command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("an agent")
    }

    /// Whole or not at all, as an agent reads it at any time.
    fn write(&self, name: &str, text: &Value) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text.to_string()).expect("writing");
        std::fs::rename(new, self.dir.path().join(name)).expect("renaming");
    }

    async fn row(&self, id: &str) -> Value {
        self.host.get(&format!("/workspaces/{id}")).await.ok()
    }

    async fn becomes(&self, id: &str, status: &str) {
        soon(status, async || self.row(id).await["status"] == status).await;
    }
}

async fn ended(agent: Child) -> (Option<i32>, String) {
    let waited = tokio::time::timeout(Duration::from_secs(10), agent.wait_with_output()).await;
    let Output { status, stderr, .. } = waited.expect("the agent ends").expect("its output");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_says_what_its_control_file_says() {
    let stage = Stage::new().await;
    let (id, token) = stage.host.create(json!({ "name": "one" })).await;
    let agent = stage.agent(&id, &token, "workspace");
    stage.becomes(&id, "online").await;
    stage.write("control.json", &json!({ "error_rate": 0.9, "active_tasks": 4, "current_task": "sums" }));
    stage.becomes(&id, "degraded").await;
    let row = stage.row(&id).await;
    assert_eq!((&row["active_tasks"], &row["current_task"]), (&json!(4), &json!("sums")), "{row}");
    stage.write("control.json", &json!({}));
    stage.becomes(&id, "online").await;
    stage.write("control.json", &json!({ "runtime_state": "wedged" }));
    stage.becomes(&id, "degraded").await;

    stage.write("control.json", &json!({ "silent": true }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let last = stage.row(&id).await["last_heartbeat_at"].clone();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.row(&id).await["last_heartbeat_at"], last, "it said something");

    stage.write("control.json", &json!({ "crash": 7 }));
    assert_eq!(ended(agent).await.0, Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_agent_goes_online_when_its_tools_are_delivered() {
    let stage = Stage::new().await;
    let (id, token) = stage.host.create(json!({ "name": "pia", "kind": "platform" })).await;
    let agent = stage.agent(&id, &token, "platform");
    stage.becomes(&id, "failed").await;
    stage.write("plugins.json", &json!([{ "name": "fleet-tools" }]));
    stage.becomes(&id, "online").await;
    let pid = agent.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
    assert!(sent.success());
    let (code, said) = ended(agent).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("told to"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_leaves_when_it_is_removed_or_not_wanted() {
    let stage = Stage::new().await;
    let (id, token) = stage.host.create(json!({ "name": "one" })).await;
    let (code, said) = ended(stage.agent(&id, "another-token", "workspace")).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("401") && said.contains("SPRAG_TOKEN"), "{said}");
    assert!(!said.contains("another-token"), "{said}");

    let agent = stage.agent(&id, &token, "workspace");
    stage.becomes(&id, "online").await;
    stage
        .host
        .call(Method::DELETE, &format!("/workspaces/{id}"), Some(crate::support::host::ADMIN), None)
        .await
        .ok();
    let (code, said) = ended(agent).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("removed"), "{said}");
}

/// A host that is not there yet, or not there any more, is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_comes_back_when_its_host_does() {
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = crate::support::process::Process::start(&db.url, state.path(), "").await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let (url, client) = (host.url.clone(), host.client.clone());
    host.stop().await;
    let mut command = Command::new(sprag_bin());
    command.args(["agent", "--heartbeat-ms", "20", "--url", &url, "--workspace-id", &id]);
    let agent = command.env("SPRAG_TOKEN", &token).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let agent = agent.expect("an agent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listen = url.trim_start_matches("http://");
    let mut serve = Command::new(sprag_bin());
    serve.args(["serve", "--listen", listen, "--state-dir"]).arg(state.path());
    serve.arg("--policy-dir").arg(crate::support::policy_dir());
    serve.env("SPRAG_DATABASE_URL", &db.url).env("SPRAG_ADMIN_TOKEN", crate::support::process::ADMIN);
    let _host = serve.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("the host again");
    soon("the agent is online", async || {
        let asked = client.get(format!("{url}/workspaces/{id}")).bearer_auth(crate::support::process::ADMIN);
        let Ok(answer) = asked.send().await else { return false };
        let row: Value = answer.json().await.unwrap_or_default();
        row["status"] == "online"
    })
    .await;
    drop(agent);
}

/// Both ends together: a box of `process` whose agent is the sample one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_agent_is_the_default_box() {
    let stage = Stage::new().await;
    let (id, token) = stage.host.create(json!({ "name": "pia", "kind": "platform" })).await;
    let outside = Outside::new(Kind::Process).await;
    let p = outside.process(|settings| {
        settings.command = Vec::new();
        settings.env.insert("SPRAG_HEARTBEAT_MS".to_owned(), "20".to_owned());
    });
    let mut spec = spec();
    spec.kind = "platform".to_owned();
    spec.registry_url.clone_from(&stage.host.url);
    spec.token = sprag::provision::BoxToken(token);
    assert_eq!(p.start(&call(&id, "1.1", "k1"), "a", &spec).await, Ok(running(&id, "a")));
    stage.becomes(&id, "failed").await;
    let tools = [Plugin { name: "fleet-tools".to_owned(), version: None }];
    assert_eq!(p.deliver(&call(&id, "1.2", "k2"), "a", &tools).await, Ok(()));
    stage.becomes(&id, "online").await;
    assert!(Path::new(&outside.place(&id, "a")).join("plugins.json").exists());
    assert_eq!(p.stop(&call(&id, "1.3", "k3"), "a").await, Ok(stopped(&id, "a")));
    let exit = std::fs::read_to_string(outside.place(&id, "a").join("exit.json")).expect("an exit");
    assert!(exit.contains("\"code\":0"), "{exit}");
}
