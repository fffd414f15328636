//! Real hosts that are stopped for two windows and go on as if nothing had been,
//! while their agents had nobody to talk to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sprag::store::Backend;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{events, policies, until};
use crate::support::db::TestDb;
use crate::support::process::{Launch, Process, beat};

pub(super) const WINDOW: Duration = Duration::from_secs(3);

/// From one heartbeat to the next.
const EVERY: Duration = Duration::from_millis(300);

/// Agents of each host.
const AGENTS: usize = 12;

/// Real hosts without a bound, so that nothing but their distrust holds, and
/// agents that each talk to one of them.
pub(super) struct Hosts {
    pub(super) hosts: Vec<Process>,
    agents: Vec<Agents>,
    dirs: Vec<TempDir>,
    policies: TempDir,
    pub(super) db: TestDb,
}

/// The agents of one host.
struct Agents {
    ids: Vec<String>,
    speak: Arc<AtomicBool>,
    talking: JoinHandle<()>,
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.talking.abort();
    }
}

impl Hosts {
    pub(super) async fn start(db: TestDb, hosts: usize) -> Self {
        let mut this =
            Self { hosts: Vec::new(), agents: Vec::new(), dirs: Vec::new(), policies: policies(WINDOW), db };
        for _ in 0..hosts {
            let dir = tempfile::tempdir().expect("a directory");
            let host = this.host("127.0.0.1:0", &dir).await;
            this.dirs.push(dir);
            this.agents.push(agents(&host).await);
            this.hosts.push(host);
        }
        this.online().await;
        // Whatever the start made them distrust is long over, or what follows would be no news.
        this.db.sql("UPDATE fleet SET trusted_from = trusted_from - 60000").await;
        this
    }

    async fn host(&self, listen: &str, dir: &TempDir) -> Process {
        let config = format!(
            "policy_dir = {:?}\n[database]\nacquire_timeout_ms = 500\n\
             [loops]\nsilence_ms = 200\nsilent_after_ms = 1000\n\
             [brake]\nnumber = 1000\npulse_ms = 100\nstall_ms = 1000\nlost_ms = 900\nslow_ms = 1000\n",
            self.policies.path()
        );
        Launch { listen, ..Launch::bare(&self.db.url, dir.path(), &config) }.start().await
    }

    /// Nobody of this host speaks, or everybody does.
    pub(super) fn speak(&self, host: usize, speak: bool) {
        self.agents[host].speak.store(speak, Ordering::SeqCst);
    }

    pub(super) fn all_speak(&self, speak: bool) {
        (0..self.agents.len()).for_each(|host| self.speak(host, speak));
    }

    /// Waits until every agent was heard of lately and is online.
    pub(super) async fn online(&self) {
        let all = self.agents.iter().map(|of| of.ids.len()).sum::<usize>();
        let online = "SELECT COUNT(*) FROM workspaces WHERE status = 'online'
            AND last_heartbeat_at > (SELECT now FROM clock) - 1000";
        until("everybody is online", async || self.db.number(online).await == all as i64).await;
    }

    /// Nobody went down, and everybody is heard of again.
    pub(super) async fn nobody_went_down(&self) {
        self.online().await;
        sleep(WINDOW / 2).await;
        let down = events(&self.db, "WORKSPACE_OFFLINE").await;
        assert_eq!(down, 0, "{}", self.hosts.iter().map(Process::log).collect::<String>());
    }

    /// Whoever is silent now goes down: the sweeps do work.
    pub(super) async fn the_silent_go_down(&self) {
        self.speak(0, false);
        until("the silent are down", async || events(&self.db, "WORKSPACE_OFFLINE").await == AGENTS as i64)
            .await;
    }

    /// Whether this host has found that this was the matter; an event is only of the first of several.
    pub(super) async fn distrusts(&self, host: usize, reason: &str) -> bool {
        let host = &self.hosts[host];
        let metrics = host.client.get(format!("{}/metrics", host.url)).send().await.expect("an answer");
        let line = format!("sprag_distrusted_total{{reason=\"{reason}\"}}");
        metrics.text().await.expect("text").contains(&line)
    }
}

/// Makes agents that talk to this host, each as one of them would: an answer or none, it goes on.
async fn agents(host: &Process) -> Agents {
    let mut made = Vec::new();
    for _ in 0..AGENTS {
        made.push(host.create(json!({ "name": "agent" })).await);
    }
    let client = crate::support::client_with(|c| c.timeout(EVERY));
    let (speak, url) = (Arc::new(AtomicBool::new(true)), host.url.clone());
    let ids = made.iter().map(|(id, _)| id.clone()).collect();
    let talking = tokio::spawn({
        let speak = speak.clone();
        async move {
            for uptime in 1.. {
                if speak.load(Ordering::SeqCst) {
                    let beats = made.iter().map(|(id, token)| beat(&client, &url, id, token, uptime, 0.0));
                    futures::future::join_all(beats).await;
                }
                sleep(EVERY).await;
            }
        }
    });
    Agents { ids, speak, talking }
}

/// Side by side, since they mostly wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_frozen_for_two_windows_takes_nobody_down() {
    tokio::join!(frozen(Backend::Sqlite, 1), frozen(Backend::Postgres, 1));
}

/// Nobody but it could have heard its agents, and the others do not take that for silence.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_down_while_one_host_of_three_is_frozen() {
    frozen(Backend::Postgres, 3).await;
}

async fn frozen(backend: Backend, hosts: usize) {
    let fleet = Hosts::start(TestDb::new(backend).await, hosts).await;
    // Its agents do not queue for it: what they said meanwhile is lost.
    fleet.speak(0, false);
    fleet.hosts[0].freeze(WINDOW * 2).await;
    // And they come back within their window, but not at once.
    sleep(WINDOW / 2).await;
    fleet.speak(0, true);
    fleet.nobody_went_down().await;
    // Which it calls it depends on where its last pulse was when it froze.
    let mut suspects = false;
    for own in ["stalled", "database-slow", "database-away", "clock-jumped"] {
        suspects |= fleet.distrusts(0, own).await;
    }
    assert!(suspects);
    for other in 1..hosts {
        assert!(fleet.distrusts(other, "host-lost").await);
    }
    assert!(events(&fleet.db, "REGISTRY_DISTRUSTED").await > 0);
    fleet.the_silent_go_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_back_under_its_name_is_not_missed() {
    let mut fleet = Hosts::start(TestDb::new(Backend::Postgres).await, 2).await;
    let listen = fleet.hosts[0].url.trim_start_matches("http://").to_owned();
    fleet.hosts.remove(0).kill().await;
    until("it is missed", async || fleet.distrusts(0, "host-lost").await).await;
    let again = fleet.host(&listen, &fleet.dirs[0]).await;
    fleet.hosts.insert(0, again);
    fleet.online().await;
    let hosts = fleet.db.store.hosts().await.expect("reading hosts");
    assert_eq!(hosts.len(), 2, "{hosts:?}");
    fleet.nobody_went_down().await;
    // Were it still missed, silence would never count again.
    fleet.the_silent_go_down().await;
}
