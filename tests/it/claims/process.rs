//! The provider `process` under a real host: a box is a real agent that
//! registers and heartbeats, and every command is seen in the processes there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::provision::Provisioner;
use sprag::provision::process::{Process as Provider, Settings};
use sprag::store::Backend;
use tempfile::TempDir;

use super::{BLUE, RED, sent_with, to};
use crate::provision::escapes::{Escape, Held, alive, escaped};
use crate::provision::outside::stop_all;
use crate::provision::soon;
use crate::support::cli;
use crate::support::db::TestDb;
use crate::support::process::{Launch, Process, beat};
use crate::support::sprag_bin;

/// A host whose two providers start processes on this machine.
struct Ground {
    /// None: it is killed, and not yet started again.
    host: Option<Process>,
    listen: String,
    db: TestDb,
    state: TempDir,
    boxes: TempDir,
    /// Lines that both providers' sections have besides.
    settings: String,
}

/// A box by its process group, and the token that it was given.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    provider: String,
    instance: String,
    id: i64,
    token: String,
}

impl Ground {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, "").await
    }

    async fn with(backend: Backend, settings: &str) -> Self {
        // Nobody else's address: while the host is dead, no other socket is given its port.
        let port = std::net::TcpListener::bind("127.77.0.1:0").expect("a free port");
        let listen = port.local_addr().expect("an address").to_string();
        drop(port);
        let dir = || tempfile::tempdir().expect("a directory");
        let db = TestDb::new(backend).await;
        let settings = settings.to_owned();
        let mut ground = Self { host: None, listen, db, state: dir(), boxes: dir(), settings };
        ground.start().await;
        ground
    }

    /// Always at the same address, where the boxes look for it.
    async fn start(&mut self) {
        let provider = |name: &str| {
            let dir = self.boxes.path().join(name);
            format!(
                "[providers.{name}]\ntype = \"process\"\ndir = {dir:?}\nstop_grace_ms = 3000\n\
                 env = {{ SPRAG_HEARTBEAT_MS = \"50\" }}\n{}\n",
                self.settings
            )
        };
        let config = format!(
            "[claims]\nlease_ms = 1000\ntick_ms = 100\n[effects]\ntick_ms = 100\nbackoff_ms = 100\n\
             backoff_max_ms = 1000\n[provisioning]\nstop_attempts = 2\n{}{}",
            provider(RED),
            provider(BLUE)
        );
        let host =
            Launch { listen: &self.listen, config: &config, ..Launch::of(&self.db.url, self.state.path()) };
        let host = host.start().await;
        self.host = Some(host);
    }

    fn host(&self) -> &Process {
        self.host.as_ref().expect("a host that runs")
    }

    async fn kill(&mut self) {
        self.host.take().expect("a host that runs").kill().await;
    }

    /// Creates a workspace and waits until its agent is online.
    async fn online(&self, body: Value) -> (String, Group) {
        let made = self.host().admin(Method::POST, "workspaces", Some(body)).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        self.becomes(&id, "online").await;
        let group = self.group(&id).await;
        (id, group)
    }

    async fn row(&self, id: &str) -> Value {
        self.host().admin(Method::GET, &format!("workspaces/{id}"), None).await
    }

    async fn becomes(&self, id: &str, status: &str) {
        let so = async || {
            let row = self.row(id).await;
            row["status"] == status && row["claim_id"].is_null()
        };
        soon(status, so).await;
    }

    /// Commands, and waits until the claim has committed.
    async fn carried_out(&self, id: &str, command: &str, body: Value) {
        let path = format!("workspaces/{id}/{command}");
        let claim = self.host().admin(Method::POST, &path, Some(body)).await;
        let path = format!("claims/{}", claim["id"].as_str().expect("an id"));
        let read = async || self.host().admin(Method::GET, &path, None).await;
        soon("the claim has ended", async || read().await["state"] != "open").await;
        let claim = read().await;
        assert_eq!(claim["state"], "committed", "{claim:#}");
    }

    /// The one box that runs, which is the one that the row names.
    async fn group(&self, id: &str) -> Group {
        let row = self.row(id).await;
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("no {key}: {row:#}")).to_owned();
        let (provider, instance) = (text("provider"), text("instance_id"));
        for name in [RED, BLUE] {
            let listed = self.provider(name).list().await.expect("a list");
            let found: Vec<_> = listed.iter().filter(|b| b.workspace_id == id).collect();
            let expected = usize::from(name == provider);
            assert_eq!(found.len(), expected, "{name} runs {found:?}; {row:#}");
            assert!(found.iter().all(|b| b.instance_id == instance), "{found:?}; {row:#}");
        }
        let run = std::fs::read(self.place(id, &provider, &instance).join("run.json")).expect("a run");
        let run: Value = serde_json::from_slice(&run).expect("JSON");
        let group = run["pid"].as_i64().expect("a process group");
        let token = members(group).iter().find_map(|process| variable(process, "SPRAG_TOKEN"));
        Group { token: token.expect("an agent with a token"), provider, instance, id: group }
    }

    /// The directory of a box.
    fn place(&self, id: &str, provider: &str, instance: &str) -> PathBuf {
        self.boxes.path().join(provider).join(id).join("boxes").join(instance)
    }

    /// The box is gone to the last process, and nobody listens to it any more.
    async fn gone(&self, id: &str, old: &Group) {
        assert_eq!(members(old.id), Vec::<PathBuf>::new(), "of {old:?}");
        let heard = beat(&self.host().client, &self.host().url, id, &old.token, 1, 0.0).await;
        let (status, body) = heard.expect("an answer");
        assert!(matches!(status, 401 | 410), "{status} {body}");
    }

    async fn no_box(&self, id: &str) {
        assert_eq!(self.row(id).await["instance_id"], Value::Null);
        // Its processes end a moment before who supervised them lets go of it.
        for name in [RED, BLUE] {
            soon(name, async || {
                let listed = self.provider(name).list().await.expect("a list");
                listed.iter().all(|b| b.workspace_id != id)
            })
            .await;
        }
    }

    /// The provider as a bystander sees it.
    fn provider(&self, name: &str) -> Arc<dyn Provisioner> {
        Arc::new(Provider::new(Settings {
            dir: self.boxes.path().join(name),
            sprag: sprag_bin(),
            command: Vec::new(),
            env: [].into(),
            stop_grace: Duration::from_millis(200),
            kept_boxes: 8,
        }))
    }
}

/// No test leaves a process behind.
impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.host.take());
        for name in [RED, BLUE] {
            stop_all(self.provider(name));
        }
    }
}

/// The processes of a group, without those that only wait to be buried.
fn members(group: i64) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok).map(|entry| entry.path());
    let of_group = |process: &PathBuf| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // What stands before the last parenthesis is a name, and may hold anything.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, id) = (fields.next(), fields.nth(1));
        state.is_some_and(|state| state != "Z") && id == Some(group.to_string().as_str())
    };
    all.filter(of_group).collect()
}

fn variable(process: &std::path::Path, name: &str) -> Option<String> {
    let all = std::fs::read(process.join("environ")).ok()?;
    let all = String::from_utf8(all).ok()?;
    all.split('\0').find_map(|one| one.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_is_restarted_moved_and_removed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ground = Ground::new(backend).await;
    let (id, first) = ground.online(json!({ "name": "w", "provider": RED })).await;
    assert_eq!(first.provider, RED);

    ground.carried_out(&id, "restart", json!({})).await;
    ground.gone(&id, &first).await;
    ground.becomes(&id, "online").await;
    let second = ground.group(&id).await;
    assert!(second.provider == RED && second.instance != first.instance && second.id != first.id);

    let mut last = second;
    for target in [BLUE, RED] {
        ground.carried_out(&id, "switch-provider", to(target)).await;
        ground.gone(&id, &last).await;
        ground.becomes(&id, "online").await;
        last = ground.group(&id).await;
        assert_eq!(last.provider, target);
    }

    ground.host().admin(Method::DELETE, &format!("workspaces/{id}"), None).await;
    soon("the last box is gone", async || members(last.id).is_empty()).await;
    ground.gone(&id, &last).await;
    ground.no_box(&id).await;
    assert_eq!(ground.row(&id).await["status"], "removed");
}

/// As the README has it, over and over: each `--wait` leaves an agent that can be commanded again.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_waited_for_can_be_commanded_at_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ground = Ground::new(backend).await;
    let made = json!({ "name": "w", "provider": RED });
    let made = ground.host().admin(Method::POST, "workspaces", Some(made)).await;
    let id = made["id"].as_str().expect("an id");
    ground.becomes(id, "online").await;
    for round in 0..10 {
        let target = if round % 2 == 0 { BLUE } else { RED };
        for args in [
            &["workspace", "restart", id, "--wait"][..],
            &["workspace", "switch-provider", id, "--to", target, "--wait"],
        ] {
            let ran = cli::sprag(&ground.host().url, args).await.exits(0);
            ran.shows(&[&[id, "is", "online"]]);
        }
        assert_eq!(ground.group(id).await.provider, target);
    }
    // Nor need one wait.
    for command in ["restart", "switch-provider", "restart"] {
        ground.carried_out(id, command, sent_with(command)).await;
    }
    ground.becomes(id, "online").await;
    assert_eq!(ground.group(id).await.provider, BLUE);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_are_paused_together_and_hibernate_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ground = Ground::new(backend).await;
    let (parent, above) = ground.online(json!({ "name": "parent", "provider": RED })).await;
    let body = json!({ "name": "child", "provider": BLUE, "parent_id": parent });
    let (child, below) = ground.online(body).await;

    ground.carried_out(&parent, "pause", json!({})).await;
    ground.becomes(&child, "paused").await;
    assert_eq!(ground.row(&parent).await["status"], "paused");
    for (id, old) in [(&parent, &above), (&child, &below)] {
        ground.gone(id, old).await;
        ground.no_box(id).await;
    }
    ground.carried_out(&parent, "resume", json!({})).await;
    for (id, old) in [(&parent, &above), (&child, &below)] {
        ground.becomes(id, "online").await;
        let new = ground.group(id).await;
        assert!(new.provider == old.provider && new.instance != old.instance, "{old:?} {new:?}");
    }

    let (above, below) = (ground.group(&parent).await, ground.group(&child).await);
    ground.carried_out(&parent, "hibernate", json!({})).await;
    assert_eq!(ground.row(&parent).await["status"], "hibernated");
    ground.gone(&parent, &above).await;
    ground.no_box(&parent).await;
    assert_eq!(ground.group(&child).await, below, "it goes on");
    ground.carried_out(&parent, "wake", json!({})).await;
    ground.becomes(&parent, "online").await;
    assert_ne!(ground.group(&parent).await.instance, above.instance);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_outlive_their_host_and_obey_the_next(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut ground = Ground::new(backend).await;
    let (one, first) = ground.online(json!({ "name": "one", "provider": RED })).await;
    let (other, second) = ground.online(json!({ "name": "other", "provider": BLUE })).await;
    let before = ground.row(&one).await["last_heartbeat_at"].clone();
    ground.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for group in [&first, &second] {
        assert!(!members(group.id).is_empty(), "{group:?} went with its host");
    }

    ground.start().await;
    soon("the agent is back", async || {
        ground.row(&one).await["last_heartbeat_at"].as_str() > before.as_str()
    })
    .await;
    assert_eq!(ground.group(&one).await, first);
    assert_eq!(ground.group(&other).await, second);
    for id in [&one, &other] {
        assert_eq!(ground.row(id).await["status"], "online");
    }
    ground.carried_out(&one, "switch-provider", to(BLUE)).await;
    ground.gone(&one, &first).await;
    ground.becomes(&one, "online").await;
    assert_eq!(ground.group(&one).await.provider, BLUE);
    ground.carried_out(&other, "pause", json!({})).await;
    ground.gone(&other, &second).await;
    ground.no_box(&other).await;
}

/// Whatever an agent starts in a session of its own keeps no command, and no crash's cure, from going on.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_escapes_from_a_box_holds_up_no_command(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Escape::Session, Escape::DoubleFork, Escape::Deaf)] escape: Escape,
) {
    let agent = format!("{} exec \"$0\" agent", escape.script());
    let command = json!(["sh", "-c", agent, sprag_bin()]);
    let ground = Ground::with(backend, &format!("command = {command}")).await;
    let (id, mut last) = ground.online(json!({ "name": "w", "provider": RED })).await;
    for command in ["restart", "pause", "resume", "switch-provider", "hibernate", "wake", "crash", "remove"] {
        let place = ground.place(&id, &last.provider, &last.instance);
        let asleep = ground.row(&id).await["instance_id"].is_null();
        if !asleep {
            soon("it has escaped", async || !alive(&place).is_empty()).await;
        }
        match command {
            "crash" => {
                let agent =
                    members(last.id).into_iter().find(|process| variable(process, "SPRAG_TOKEN").is_some());
                let agent = agent.expect("an agent").file_name().expect("a number").to_owned();
                crate::provision::escapes::kill(
                    agent.to_str().and_then(|pid| pid.parse().ok()).expect("a number"),
                );
                soon("nothing of it is left", async || alive(&place).is_empty()).await;
                // Whoever looks for it finds it: what starts it again is no matter here.
                ground.carried_out(&id, "restart", json!({})).await;
            }
            "remove" => {
                ground.host().admin(Method::DELETE, &format!("workspaces/{id}"), None).await;
                soon("its box is gone", async || place.join("exit.json").exists()).await;
            }
            "switch-provider" => ground.carried_out(&id, command, to(BLUE)).await,
            _ => ground.carried_out(&id, command, json!({})).await,
        }
        if !asleep {
            soon("nothing of it is left", async || alive(&place).is_empty()).await;
            assert!(!escaped(&place).is_empty(), "nobody escaped");
        }
        if matches!(command, "pause" | "hibernate" | "remove") {
            ground.no_box(&id).await;
        } else {
            ground.becomes(&id, "online").await;
            last = ground.group(&id).await;
        }
    }
    let claims = ground.host().admin(Method::GET, &format!("workspaces/{id}/claims"), None).await;
    for claim in claims.as_array().expect("claims") {
        let steps = claim["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(steps.iter().all(|step| step["state"] == "done"), "{claim:#}");
    }
}

/// The claim goes on, the stop is owed and said, and is paid when it can be.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_killed_is_owed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let ground = Ground::with(backend, "").await;
    let (id, first) = ground.online(json!({ "name": "w", "provider": RED })).await;
    let held = Held::of(&ground.place(&id, &first.provider, &first.instance));
    ground.carried_out(&id, "restart", json!({})).await;
    ground.becomes(&id, "online").await;
    let row = ground.row(&id).await;
    assert_ne!(row["instance_id"], first.instance);

    let owed = async || ground.host().admin(Method::GET, &format!("effects?workspace_id={id}"), None).await;
    let stops = |effects: &Value| {
        let of = |effect: &&Value| effect["kind"] == "stop" && effect["state"] != "done";
        effects.as_array().expect("effects").iter().filter(of).count()
    };
    assert_eq!(stops(&owed().await), 1, "{:#}", owed().await);
    drop(held);
    soon("it is paid", async || stops(&owed().await) == 0).await;
    ground.gone(&id, &first).await;
    assert_eq!(ground.row(&id).await["instance_id"], row["instance_id"]);
    ground.group(&id).await;
}
