//! Commands against a control plane that can be told to fail: case 3 of the
//! design's cases, line by line, and every step with every fault.

mod boots;
mod case3;
mod cli;
mod crash;
mod foreign;
mod holders;
mod process;
mod providers;
mod steps;
mod storm;
mod strays;
mod tree_storm;
mod trees;
mod wire;

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::control_plane::{self, BoxName, ControlPlane};
use crate::support::db::TestDb;
use crate::support::host::{Answer, Setup, TestHost};

const RED: &str = "red";
const BLUE: &str = "blue";

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One database, one control plane, and hosts that share them.
pub(crate) struct Scene {
    hosts: Vec<TestHost>,
    pub(crate) plane: ControlPlane,
    pub(crate) db: TestDb,
}

impl Scene {
    pub(crate) async fn new(backend: Backend) -> Self {
        Self::of(backend, 1).await
    }

    async fn of(backend: Backend, hosts: usize) -> Self {
        let db = TestDb::new(backend).await;
        let plane = ControlPlane::start(&[RED, BLUE]).await;
        let mut scene = Self { hosts: Vec::new(), plane, db };
        for _ in 0..hosts {
            let host = TestHost::start(&scene.db, scene.setup()).await;
            scene.hosts.push(host);
        }
        scene
    }

    fn setup(&self) -> Setup {
        Setup { providers: self.plane.clients(), ..Setup::default() }
    }

    pub(crate) fn host(&self) -> &TestHost {
        &self.hosts[0]
    }

    /// A workspace whose first box runs at `provider` and has spoken.
    pub(crate) async fn workspace(&self, provider: &str) -> Running {
        self.workspace_with(json!({ "name": "w", "provider": provider })).await
    }

    /// A workspace whose first box runs at `provider` and has not spoken.
    pub(crate) async fn boot(&self, provider: &str) -> String {
        let body = json!({ "name": "w", "provider": provider });
        let made = self.host().admin(Method::POST, "/workspaces", body).await.ok();
        self.ended(made["claim_id"].as_str().expect("a claim")).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn workspace_with(&self, body: Value) -> Running {
        let made = self.host().admin(Method::POST, "/workspaces", body).await.ok();
        let id = made["id"].as_str().expect("an id").to_owned();
        self.ended(made["claim_id"].as_str().expect("a claim")).await;
        let running = self.running(&id).await;
        assert_eq!(self.host().beat(&id, &running.token).await.ok()["workspace_status"], "online");
        running
    }

    /// The one box of a workspace, with its token.
    pub(crate) async fn running(&self, id: &str) -> Running {
        let boxes = self.plane.running(id);
        let [only] = boxes.as_slice() else { panic!("{} boxes run of {id}: {boxes:?}", boxes.len()) };
        let spec = self.plane.spec(&only.provider, &only.instance).expect("it runs");
        Running { id: id.to_owned(), at: only.clone(), token: spec.token }
    }

    async fn command(&self, id: &str, command: &str, body: Value) -> Answer {
        self.host().admin(Method::POST, &format!("/workspaces/{id}/{command}"), body).await
    }

    /// Commands, and waits for the end of the claim.
    async fn carried_out(&self, id: &str, command: &str, body: Value) -> Value {
        let opened = self.command(id, command, body).await;
        assert_eq!(opened.status, 202, "{opened:?}");
        self.ended(opened.body["id"].as_str().expect("an id")).await
    }

    /// The claim, once it has ended.
    async fn ended(&self, claim: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let read = self.host().get(&format!("/claims/{claim}")).await.ok();
            if read["state"] != "open" {
                return read;
            }
            assert!(Instant::now() < until, "still open: {read:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn row(&self, id: &str) -> Value {
        self.host().get(&format!("/workspaces/{id}")).await.ok()
    }

    /// Waits until `so`.
    pub(crate) async fn until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !so().await {
            assert!(Instant::now() < until, "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is under way, and then holds the row to what runs.
    pub(crate) async fn settled(&self, id: &str) {
        self.until("no claim is open", async || self.row(id).await["claim_id"].is_null()).await;
        self.until("nothing is owed", async || {
            self.db.store.effect_counts().await.expect("reading the outbox") == (0, 0)
        })
        .await;
        let row = self.row(id).await;
        let running = self.plane.running(id);
        match (&row["instance_id"], running.as_slice()) {
            (Value::Null, []) => {}
            (Value::String(instance), [only]) => {
                assert_eq!((instance, &row["provider"]), (&only.instance, &json!(only.provider)), "{row:#}");
            }
            _ => panic!(
                "the row says {row:#}\nand there run {running:#?}\n{:#?}",
                self.plane.journal.calls(id)
            ),
        }
        let live = self.db.store.tokens(id).await.expect("reading tokens");
        assert!(running.len() <= live.len(), "a box without a token: {row:#}");
    }
}

/// A running box.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) at: BoxName,
    pub(crate) token: String,
}

fn to(provider: &str) -> Value {
    json!({ "provider": provider, "force": true })
}

fn forced() -> Value {
    json!({ "force": true })
}

/// What a command is sent with: a switch alone says where to.
fn sent_with(command: &str) -> Value {
    if command == "switch-provider" { to(BLUE) } else { forced() }
}

/// The configuration of a real host that shares `plane`; its files lie in `dir`.
fn config(plane: &ControlPlane, dir: &Path, lease_ms: u64, tick_ms: u64) -> String {
    let token = dir.join("plane-token");
    std::fs::write(&token, control_plane::TOKEN).expect("writing a token");
    let provider = |name: &str| {
        format!(
            "[providers.{name}]\ntype = \"control-plane\"\nurl = {:?}\ntoken_file = {token:?}\n",
            plane.base(name)
        )
    };
    format!(
        "[claims]\nlease_ms = {lease_ms}\ntick_ms = {tick_ms}\n[effects]\ntick_ms = 50\nbackoff_ms = 50\n\
         lease_ms = 3500\n[provisioning]\ncall_timeout_ms = 400\nbackoff_ms = 5\nbackoff_max_ms = 20\n{}{}",
        provider(RED),
        provider(BLUE)
    )
}

/// Waits until no claim is open on the workspace.
async fn unclaimed(db: &TestDb, id: &str) {
    let until = Instant::now() + PATIENCE;
    while db.store.snapshot(id).await.expect("reading").is_some_and(|row| row.claim_id.is_some()) {
        assert!(Instant::now() < until, "still claimed: {:#?}", db.store.claims_of(id, None, 1).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
