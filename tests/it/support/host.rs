//! A whole host in the test's own process: the real router on a free port, over
//! a given database, with the shipped policies or others in charge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sprag::advance::Advance;
use sprag::claims::{Claims, ClaimsConfig};
use sprag::effects::{Effects, EffectsConfig, Webhook};
use sprag::heartbeats::{BatchConfig, Heartbeats};
use sprag::http::Registration;
use sprag::http::{Access, Api, HttpConfig, Registry, serve};
use sprag::loops::{BrakeConfig, Loops, LoopsConfig, Parts};
use sprag::metrics::Metrics;
use sprag::policy::{Limits, Sandbox, SandboxConfig};
use sprag::provision::{Dispatcher, Provisioner, ProvisioningConfig};
use sprag::revisions::{FROM_DIR, Revisions, read_dir};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::db::TestDb;
use super::{policy_dir, sprag_bin};

/// The admin token of every test host.
pub const ADMIN: &str = "an-admin-token-for-tests";

/// How a test host differs from an ordinary one.
pub struct Setup {
    pub registration: Registration,
    pub http: HttpConfig,
    /// Whether the shipped policies are made a revision.
    pub policies: bool,
    /// Which those are.
    pub policy_dir: PathBuf,
    /// Advance, as a test wants it.
    pub between: Option<Arc<dyn sprag::advance::Between>>,
    pub providers: BTreeMap<String, Arc<dyn Provisioner>>,
    pub provisioning: ProvisioningConfig,
    pub claims: ClaimsConfig,
    pub effects: EffectsConfig,
    pub webhook: Option<Webhook>,
    pub loops: LoopsConfig,
    pub brake: BrakeConfig,
    /// Whether the loops tick by themselves; else a test ticks them.
    pub timed: bool,
    pub privileged_plugins: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            registration: Registration::Token,
            http: HttpConfig::default(),
            policies: true,
            policy_dir: policy_dir(),
            between: None,
            providers: BTreeMap::new(),
            provisioning: ProvisioningConfig { backoff_ms: 5, backoff_max_ms: 20, ..Default::default() },
            claims: ClaimsConfig { lease_ms: 1_000, tick_ms: 100, ..Default::default() },
            effects: EffectsConfig { tick_ms: 50, backoff_ms: 50, ..Default::default() },
            webhook: None,
            loops: LoopsConfig::default(),
            // A machine that is busy with tests is no host that slept.
            brake: BrakeConfig {
                stall_ms: 600_000,
                slow_ms: 600_000,
                jump_ms: 600_000,
                lost_ms: 600_000,
                forget_ms: 600_000,
                ..BrakeConfig::default()
            },
            timed: true,
            privileged_plugins: Vec::new(),
        }
    }
}

/// A running host. Stops when dropped.
pub struct TestHost {
    pub url: String,
    pub client: reqwest::Client,
    pub loops: Arc<Loops>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The status and the stable code, as a test names a problem.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        for key in ["type", "title", "detail", "error"] {
            assert!(self.body[key].is_string(), "no {key} in {self:?}");
        }
        assert_eq!(self.body["status"], self.status.as_u16());
        (self.status.as_u16(), self.body["code"].as_str().expect("a code"))
    }

    /// The body of a success.
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// One sandbox for all hosts of this process, which keeps what it compiled.
pub fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let make = || {
        let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
        let config = SandboxConfig { limits: Limits::default(), compiler: sprag_bin(), cache_dir };
        Sandbox::new(config).expect("a sandbox")
    };
    SANDBOX.get_or_init(make).clone()
}

impl TestHost {
    pub async fn start(db: &TestDb, setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let store = db.store.clone();
        let metrics = Arc::new(Metrics::default());
        let revisions = Arc::new(Revisions::new(store.clone(), sandbox(), metrics.clone()));
        if setup.policies {
            let shipped =
                read_dir(&setup.policy_dir, &Limits::default()).await.expect("the shipped policies");
            revisions.activate(FROM_DIR, shipped).await.expect("activating them");
        }
        let mut advance = Advance::new(store.clone(), revisions.active(), metrics.clone(), 1);
        if let Some(between) = setup.between {
            advance = advance.with_between(between);
        }
        let batches = BatchConfig::default();
        let (heartbeats, _) = Heartbeats::start(store.clone(), advance.clone(), metrics.clone(), &batches);
        let stop = CancellationToken::new();
        let dispatcher = Arc::new(Dispatcher::new(setup.providers, setup.provisioning));
        let claims = Claims::new(
            store.clone(),
            advance.clone(),
            dispatcher.clone(),
            metrics.clone(),
            setup.claims,
            url.clone(),
        );
        let effects_config =
            EffectsConfig { privileged_plugins: setup.privileged_plugins.clone(), ..setup.effects };
        let effects = Effects::new(
            store.clone(),
            dispatcher.clone(),
            claims.clone(),
            setup.webhook,
            metrics.clone(),
            effects_config,
        );
        let parts = Parts {
            store: store.clone(),
            advance: advance.clone(),
            claims: claims.clone(),
            effects,
            dispatcher,
            metrics: metrics.clone(),
            name: url.clone(),
        };
        let loops = Arc::new(Loops::new(&parts, &setup.loops, &setup.brake));
        if setup.timed {
            tokio::spawn(loops.clone().run(stop.clone()));
            // A new host trusts nothing from before its first pulse: whatever a test writes
            // comes after it.
            while loops.reports().iter().any(|of| of.name == "pulse" && of.ticks == 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let registry = Registry {
            store,
            advance,
            claims,
            heartbeats,
            loops: loops.clone(),
            privileged_plugins: setup.privileged_plugins,
            metrics: metrics.clone(),
        };
        let api = Api {
            registry: Arc::new(registry),
            revisions,
            access: Arc::new(Access::new(ADMIN, setup.registration)),
        };
        let stopped = stop.clone();
        let served = tokio::spawn(async move {
            serve(listener, api, &setup.http, stopped).await.expect("serving");
        });
        Self { url, client: crate::support::client(), loops, metrics, stop, served }
    }

    /// The host with nothing special.
    pub async fn plain(db: &TestDb) -> Self {
        Self::start(db, Setup::default()).await
    }

    /// Tells the host to stop, and goes on.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the host has stopped.
    pub async fn stopped(&mut self) {
        self.stop.cancel();
        (&mut self.served).await.expect("the host's task");
    }

    /// Where the host listens, without the scheme.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Any request, with whatever token.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.expect("an answer")).await
    }

    /// A `GET` of an operator.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Some(ADMIN), None).await
    }

    /// A request of an operator with a body.
    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call(method, path, Some(ADMIN), Some(body)).await
    }

    /// A `POST` of an agent.
    pub async fn agent(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.call(Method::POST, path, token, Some(body)).await
    }

    /// Creates a workspace; its id and token.
    pub async fn create(&self, body: Value) -> (String, String) {
        let made = self.admin(Method::POST, "/workspaces", body).await.ok();
        let text = |key: &str| made[key].as_str().expect("a string").to_owned();
        (text("id"), text("auth_token"))
    }

    /// A heartbeat of a healthy agent that has all its tools.
    pub async fn beat(&self, id: &str, token: &str) -> Answer {
        self.agent("/registry/heartbeat", Some(token), healthy(id)).await
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.stop.cancel();
        if !std::thread::panicking() {
            assert_eq!(self.metrics.claims_unspent.get(), 0, "an open claim was dropped and not ended");
        }
    }
}

/// What a healthy agent says.
pub fn healthy(id: &str) -> Value {
    json!({
        "workspace_id": id, "error_rate": 0.0, "active_tasks": 1, "uptime_seconds": 12,
        "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": ["list_workspaces"],
    })
}

/// Reads an answer, JSON or not.
pub async fn read(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}
