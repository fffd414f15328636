//! The mass-failure brake and the pulse above it: a fleet that went silent at
//! once, a host that was frozen, a database that was away. No row goes down that
//! is not proven gone, and those that are do.
//!
//! What must be exact is ticked by hand, on rows that SQL made; what must be
//! timed runs by itself, with windows of a few seconds.

mod bound;
mod clock;
mod driver;
mod frozen;
mod mass;
mod outage;
mod release;
mod report;
mod silence;

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use sprag::loops::{BrakeConfig, LoopsConfig, Tally};
use sprag::store::Backend;
use tempfile::TempDir;

use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost};
use crate::support::policy_dir;

const RED: &str = "red";
const BLUE: &str = "blue";

const HOUR_MS: u64 = 3_600_000;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hosts that share a database and do nothing by themselves.
struct Scene {
    hosts: Vec<TestHost>,
    db: TestDb,
}

/// Bounds by which time alone, and a busy machine, make no host distrust itself.
fn patient() -> BrakeConfig {
    let long = HOUR_MS / 2;
    BrakeConfig {
        stall_ms: long,
        slow_ms: long,
        jump_ms: long,
        lost_ms: long,
        forget_ms: long,
        count_ms: 1,
        ..BrakeConfig::default()
    }
}

impl Scene {
    async fn of(backend: Backend, hosts: usize) -> Self {
        Self::with(backend, hosts, &patient(), &LoopsConfig::default()).await
    }

    /// So many hosts, that have been trusted for an hour.
    async fn with(backend: Backend, hosts: usize, brake: &BrakeConfig, loops: &LoopsConfig) -> Self {
        let mut scene = Self { hosts: Vec::new(), db: TestDb::new(backend).await };
        for _ in 0..hosts {
            let setup =
                Setup { timed: false, brake: brake.clone(), loops: loops.clone(), ..Setup::default() };
            let host = TestHost::start(&scene.db, setup).await;
            scene.hosts.push(host);
        }
        scene.tick("pulse").await;
        scene.trusted().await;
        scene
    }

    fn host(&self) -> &TestHost {
        &self.hosts[0]
    }

    /// As if nothing had happened for an hour that makes for distrust.
    async fn trusted(&self) {
        self.db.sql(&format!("UPDATE fleet SET trusted_from = (SELECT now FROM clock) - {HOUR_MS}")).await;
    }

    /// So many online rows of `provider`, heard of `ago_ms` ago.
    async fn crowd(&self, provider: &str, rows: u32, ago_ms: u64) {
        self.db.sql(&crowd(provider, rows, ago_ms)).await;
    }

    /// Everybody was heard of just now.
    async fn all_speak(&self) {
        self.db.sql("UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock)").await;
    }

    /// One tick of this loop on every host, all at once.
    async fn tick(&self, name: &str) -> Vec<Tally> {
        let ticks = self.hosts.iter().map(|host| host.loops.tick(name));
        join_all(ticks).await.into_iter().map(|tick| tick.expect("such a loop").expect("a tick")).collect()
    }

    /// What `name` came to on all hosts, with every row its turn again first.
    async fn sweep(&self) -> Tally {
        self.db.sql("UPDATE workspaces SET silence_at = 0").await;
        let mut all = Tally::default();
        for tally in self.tick("silence").await {
            all.looked += tally.looked;
            all.flipped += tally.flipped;
            for (why, n) in tally.skipped {
                *all.skipped.entry(why).or_default() += n;
            }
        }
        all
    }

    /// Rows that are not live, and events that say so, which must be as many.
    async fn down(&self) -> i64 {
        let rows = "SELECT COUNT(*) FROM workspaces WHERE status NOT IN ('online', 'degraded')";
        let down = self.db.number(rows).await;
        assert_eq!(down, events(&self.db, "WORKSPACE_OFFLINE").await, "an event for each row that is down");
        down
    }

    /// Time passes for the brake, and for nothing else.
    async fn later(&self, ms: u64) {
        let seconds = ms / 1_000;
        self.db
            .sql(&format!(
                "UPDATE brakes SET since = since - {ms}, over_at = CASE WHEN over_at > {ms} THEN over_at - {ms} ELSE 0 END;
                UPDATE brake_flips SET second = -(second - {seconds});
                UPDATE brake_flips SET second = -second"
            ))
            .await;
    }

    /// How the brake stands, by scope.
    async fn states(&self) -> Vec<(String, String)> {
        let brake = self.host().get("/brake").await.ok();
        let text = |scope: &Value, key: &str| scope[key].as_str().expect("text").to_owned();
        let scopes = brake["scopes"].as_array().expect("scopes");
        scopes.iter().map(|scope| (text(scope, "scope"), text(scope, "state"))).collect()
    }

    /// Asserts how the brake stands, as `scope state` each.
    async fn stands(&self, states: &[&str]) {
        let standing: Vec<_> =
            self.states().await.into_iter().map(|(scope, state)| format!("{scope} {state}")).collect();
        assert_eq!(standing, states);
    }

    async fn events(&self, event_type: &str) -> i64 {
        events(&self.db, event_type).await
    }
}

/// How many events of this type there are.
async fn events(db: &TestDb, event_type: &str) -> i64 {
    db.number(&format!("SELECT COUNT(*) FROM events WHERE type = '{event_type}'")).await
}

/// Makes so many online rows, heard of `ago_ms` ago; their ids are the provider and a number.
fn crowd(provider: &str, rows: u32, ago_ms: u64) -> String {
    format!(
        "INSERT INTO workspaces (id, name, kind, runtime, provider, instance_id, labels, persistent_volume,
            created_at, status, status_since, last_heartbeat_at, version)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
        SELECT '{provider}' || n, 'w', 'workspace', 'claude-code', '{provider}', 'box', '{{}}', FALSE,
            clock.now - {HOUR_MS}, 'online', clock.now - {HOUR_MS}, clock.now - {ago_ms}, 1 FROM n, clock"
    )
}

/// A directory of policies of which only heartbeats and silence move anything,
/// with this window.
fn policies(window: Duration) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for module in ["registration", "heartbeat", "silence"] {
        let file = format!("{module}.wasm");
        std::fs::copy(policy_dir().join(&file), dir.path().join(&file)).expect("a shipped policy");
    }
    let settings = format!(
        "[[policy]]\nmodule = \"silence\"\n[policy.settings]\nwindow = \"{}ms\"\n",
        window.as_millis()
    );
    std::fs::write(dir.path().join("policies.toml"), settings).expect("the settings");
    dir
}

/// Waits until `so`.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
