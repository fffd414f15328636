//! What policies set in motion, how often, and that it is done: case 4 of the
//! design's cases above all, the gate that starves its own cure.

mod agent;
mod crash;
mod gate;
mod notices;
mod operators;
mod races;
mod replays;
mod restarts;
mod storm;
mod strays;

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::control_plane::{self, ControlPlane, Entry, Outcome, Verb};
use crate::support::db::TestDb;
use crate::support::host::{Answer, Setup, TestHost};

const RED: &str = "red";
const TOOLS: &str = "sprag-tools";

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One database, one control plane, and hosts that share them.
struct Stage {
    hosts: Vec<TestHost>,
    plane: ControlPlane,
    db: TestDb,
}

/// A workspace whose box runs, and the token of that box.
struct Boxed {
    id: String,
    instance: String,
    token: String,
}

impl Stage {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, 1, |setup| setup).await
    }

    async fn with(backend: Backend, hosts: usize, change: impl Fn(Setup) -> Setup) -> Self {
        let db = TestDb::new(backend).await;
        let plane = ControlPlane::start(&[RED]).await;
        let mut stage = Self { hosts: Vec::new(), plane, db };
        for _ in 0..hosts {
            let setup = change(Setup { providers: stage.plane.clients(), ..Setup::default() });
            let host = TestHost::start(&stage.db, setup).await;
            stage.hosts.push(host);
        }
        stage
    }

    fn host(&self) -> &TestHost {
        &self.hosts[0]
    }

    /// A workspace whose first box runs, and whose agent has not spoken.
    async fn booted_without(&self, body: Value) -> Boxed {
        let made = self.host().admin(Method::POST, "/workspaces", body).await.ok();
        let id = made["id"].as_str().expect("an id").to_owned();
        until("no claim is open", async || self.row(&id).await["claim_id"].is_null()).await;
        self.boxed(&id)
    }

    /// The same of this kind, with [`TOOLS`] declared.
    async fn booted(&self, kind: &str) -> Boxed {
        let boxed = self.booted_without(json!({ "name": "w", "kind": kind, "provider": RED })).await;
        self.declare(&boxed.id, json!([{ "name": TOOLS }])).await.ok();
        boxed
    }

    fn boxed(&self, id: &str) -> Boxed {
        let boxes = self.plane.running(id);
        let [only] = boxes.as_slice() else { panic!("{} boxes run of {id}: {boxes:?}", boxes.len()) };
        let token = self.plane.spec(RED, &only.instance).expect("it runs").token;
        Boxed { id: id.to_owned(), instance: only.instance.clone(), token }
    }

    async fn declare(&self, id: &str, plugins: Value) -> Answer {
        self.host()
            .admin(Method::PUT, &format!("/workspaces/{id}/plugins"), json!({ "plugins": plugins }))
            .await
    }

    async fn row(&self, id: &str) -> Value {
        self.host().get(&format!("/workspaces/{id}")).await.ok()
    }

    /// A heartbeat that says this of its readiness; the row's status after it.
    async fn beat(&self, of: &Boxed, says: &Value) -> String {
        let answer = self.host().agent("/registry/heartbeat", Some(&of.token), body(&of.id, says)).await.ok();
        answer["workspace_status"].as_str().expect("a status").to_owned()
    }

    async fn register(&self, of: &Boxed, says: &Value) -> Answer {
        let mut body = says.clone();
        body["id"] = of.id.clone().into();
        self.host().agent("/registry/register", Some(&of.token), body).await
    }

    /// What was ever owed for this workspace, newest first: kind and state.
    async fn owed(&self, id: &str) -> Vec<(String, String)> {
        let effects = self.host().get(&format!("/effects?workspace_id={id}")).await.ok();
        let text = |effect: &Value, key: &str| effect[key].as_str().expect("text").to_owned();
        let all = effects.as_array().expect("effects");
        all.iter().map(|effect| (text(effect, "kind"), text(effect, "state"))).collect()
    }

    /// Waits until nothing is due.
    async fn delivered(&self) {
        until("nothing is due", async || self.db.store.effect_counts().await.expect("reading").0 == 0).await;
    }

    /// The deliveries that reached the control plane.
    fn deliveries(&self, id: &str) -> Vec<Entry> {
        let calls = self.plane.journal.calls(id);
        calls.into_iter().filter(|call| call.verb == Verb::Deliver).collect()
    }

    /// Those that did something.
    fn done(&self, id: &str) -> usize {
        self.deliveries(id).iter().filter(|call| call.outcome == Outcome::Done).count()
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.host().call(Method::GET, "/metrics", None, None).await.body;
        let text = text.as_str().expect("text").to_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

/// Waits until `so`.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn body(id: &str, says: &Value) -> Value {
    let mut body = says.clone();
    body["workspace_id"] = id.into();
    body
}

/// Its management tools are missing.
fn without_tools() -> Value {
    json!({ "mcp_server_present": false, "model_present": true, "loaded_mcp_tools": [] })
}

fn ready() -> Value {
    json!({ "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": [TOOLS] })
}

/// One delivery, and what became of it.
fn one(state: &str) -> Vec<(String, String)> {
    vec![("reconcile_plugins".to_owned(), state.to_owned())]
}

/// The configuration of a real host that shares `plane`, and gives an effect up soon; its files lie in `dir`.
fn config(plane: &ControlPlane, dir: &Path, lease_ms: u64) -> String {
    let token = dir.join("plane-token");
    std::fs::write(&token, control_plane::TOKEN).expect("writing a token");
    format!(
        "[claims]\nlease_ms = 1000\ntick_ms = 100\n\
         [effects]\ntick_ms = 50\nbackoff_ms = 50\nlease_ms = {lease_ms}\n\
         [provisioning]\nattempts = 1\nstop_attempts = 1\ncall_timeout_ms = 300\nbackoff_ms = 5\nbackoff_max_ms = 20\n\
         [providers.{RED}]\ntype = \"control-plane\"\nurl = {:?}\ntoken_file = {token:?}\n",
        plane.base(RED)
    )
}
