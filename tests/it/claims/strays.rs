//! Boxes that no row names, at a control plane and as processes: what a database that
//! lost its rows leaves, and that no command ever leaves one.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::provision::process::{Process as Provider, Settings};
use sprag::provision::{BoxSpec, BoxToken, Provisioner as _};
use sprag::store::Backend;
use tokio::task::JoinSet;

use super::{BLUE, RED, Scene, forced};
use crate::provision::outside::stop_all;
use crate::provision::{call, soon};
use crate::support::cli;
use crate::support::control_plane::{Verb, What, Where};
use crate::support::host::{ADMIN, Setup, TestHost};
use crate::support::process::Process;
use crate::support::sprag_bin;

/// What is found is stopped at once.
fn hasty() -> LoopsConfig {
    LoopsConfig { strays_ms: 20, strays_grace_ms: 0, strays_quiet_ms: 0, ..LoopsConfig::default() }
}

impl Scene {
    /// Hosts that stop what they find at once.
    async fn hasty(backend: Backend, hosts: usize) -> Self {
        let mut scene = Self::of(backend, 0).await;
        for _ in 0..hosts {
            let brake = BrakeConfig { number: 1_000_000, ..Setup::default().brake };
            let setup = Setup { loops: hasty(), brake, ..scene.setup() };
            let host = TestHost::start(&scene.db, setup).await;
            scene.hosts.push(host);
        }
        scene
    }

    async fn events(&self, kind: &str) -> i64 {
        self.db.number(&format!("SELECT COUNT(*) FROM events WHERE type = '{kind}'")).await
    }

    async fn instances(&self, query: &str) -> Vec<Value> {
        let listed = self.host().get(&format!("/instances{query}")).await.ok();
        listed.as_array().expect("instances").clone()
    }

    /// Ticks of the loop, of all hosts together.
    fn swept(&self) -> u64 {
        let reports = self.hosts.iter().flat_map(|host| host.loops.reports());
        reports.filter(|report| report.name == "strays").map(|report| report.ticks).sum()
    }
}

/// The database as it was before this workspace was made.
fn forgotten(id: &str) -> String {
    format!(
        "DELETE FROM claim_steps WHERE claim_id IN (SELECT id FROM claims WHERE workspace_id = '{id}');
        DELETE FROM claims WHERE workspace_id = '{id}';
        DELETE FROM outbox WHERE workspace_id = '{id}';
        DELETE FROM cooldowns WHERE workspace_id = '{id}';
        DELETE FROM tokens WHERE workspace_id = '{id}';
        DELETE FROM events WHERE workspace_id = '{id}';
        DELETE FROM workspaces WHERE id = '{id}'"
    )
}

/// However slowly providers answer, and whoever looks meanwhile: a box whose start, or
/// whose stop, is under way is no stray.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_command_leaves_a_stray(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    const WORKSPACES: usize = 24;
    let scene = Scene::hasty(backend, if backend == Backend::Sqlite { 1 } else { 2 }).await;
    for verb in [Verb::Start, Verb::Stop] {
        scene.plane.faults.always(Where::verb(verb), What::After(Duration::from_millis(40)));
    }
    let scene = std::sync::Arc::new(scene);
    let mut lives = JoinSet::new();
    for n in 0..WORKSPACES {
        let scene = scene.clone();
        lives.spawn(async move {
            let id = scene.boot(RED).await;
            for command in ["restart", "pause", "resume", "switch-provider"] {
                let body = if command == "switch-provider" { super::to(BLUE) } else { forced() };
                scene.carried_out(&id, command, body).await;
            }
            if n % 2 == 0 {
                scene.host().call(Method::DELETE, &format!("/workspaces/{id}"), Some(ADMIN), None).await;
            }
            id
        });
    }
    let ids = lives.join_all().await;
    for id in &ids {
        scene.settled(id).await;
    }
    assert!(scene.swept() > 10, "somebody looked: {}", scene.swept());
    assert_eq!((scene.events("STRAY_FOUND").await, scene.events("STRAY_STOPPED").await), (0, 0));
    let running: usize = ids.iter().map(|id| scene.plane.running(id).len()).sum();
    assert_eq!(running, WORKSPACES / 2);
}

/// A start that was answered to a database that is no more.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_box_of_a_lost_row_is_stopped(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::hasty(backend, 1).await;
    let (lost, kept) = (scene.boot(RED).await, scene.boot(RED).await);
    let own = scene.db.store.registry_id().await.expect("an identity");
    assert_eq!(scene.plane.spec(RED, &format!("{lost}-e1")).expect("a box").registry_id, own);
    scene.db.sql(&forgotten(&lost)).await;
    scene.until("it is stopped", async || scene.plane.running(&lost).is_empty()).await;
    scene.until("it is said", async || scene.events("STRAY_STOPPED").await == 1).await;
    assert_eq!(scene.events("STRAY_FOUND").await, 1);
    scene.settled(&kept).await;
    assert_eq!(scene.plane.running(&kept).len(), 1);
}

/// An older copy of a row: its box is stopped in the end, and then it can be commanded,
/// although its provider has heard of newer claims.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_restored_comes_right(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::hasty(backend, 1).await;
    let id = scene.boot(RED).await;
    for _ in 0..3 {
        scene.carried_out(&id, "restart", forced()).await;
    }
    assert_eq!(scene.running(&id).await.at.instance, format!("{id}-e4"));
    let restored = format!(
        "UPDATE workspaces SET claim_epoch = 1, fence_seq = 1, instance_id = '{id}-e1', claim_id = NULL
        WHERE id = '{id}'"
    );
    scene.db.sql(&restored).await;
    scene.until("it is stopped", async || scene.plane.running(&id).is_empty()).await;
    scene.until("it is said", async || scene.events("STRAY_STOPPED").await == 1).await;
    scene.carried_out(&id, "restart", forced()).await;
    assert_eq!(scene.running(&id).await.at.instance, format!("{id}-e5"), "no name is given twice");
    scene.settled(&id).await;
}

/// What another registry runs at the same provider is shown, and stays.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_s_is_shown(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::hasty(backend, 1).await;
    let own = scene.boot(RED).await;
    let red = &scene.plane.clients()[RED];
    for n in 0..3 {
        let spec = BoxSpec {
            registry_id: "another\u{1b}[31m-registry".to_owned(),
            token: BoxToken("t".to_owned()),
            ..crate::provision::spec()
        };
        let workspace = format!("theirs-{n}");
        let start = call(&workspace, "1.1", "k1");
        red.start(&start, &format!("{workspace}-e1"), &spec).await.expect("a start");
    }
    scene.until("they are found", async || scene.instances("?stray=true").await.len() == 3).await;
    let swept = scene.swept();
    scene.until("it is looked again", async || scene.swept() > swept + 3).await;
    assert_eq!(scene.plane.running("theirs-1").len(), 1);
    assert_eq!(scene.events("STRAY_FOUND").await, 0);
    let metric = "sprag_stray_instances{provider=\"red\",registry=\"other\"} 3";
    let metrics = scene.host().call(Method::GET, "/metrics", None, None).await.body;
    assert!(metrics.as_str().expect("text").contains(metric), "{metrics}");

    let first = &scene.instances("?stray=true").await[0];
    assert_eq!((&first["stray"], &first["found"]["registry"]), (&json!(true), &json!("other")));
    assert_eq!((&first["status"], &first["found"]["stops_at"]), (&Value::Null, &Value::Null));
    let [named] = &scene.instances("?stray=false").await[..] else { panic!("one row has a box") };
    assert_eq!((&named["workspace_id"], &named["stray"]), (&json!(own), &json!(false)));
    assert_eq!(named["status"], "provisioning");
    // Page by page, strays first.
    let (mut path, mut all) = ("/instances?limit=1".to_owned(), Vec::new());
    loop {
        let page = scene.host().get(&path).await;
        let next = page.headers.get("link").map(|link| link.to_str().expect("text").to_owned());
        all.extend(page.ok().as_array().expect("a page").clone());
        let Some(next) = next else { break };
        path = next.split(['<', '>']).nth(1).expect("an address").to_owned();
    }
    let strays: Vec<_> = all.iter().map(|one| one["stray"].as_bool().expect("a truth")).collect();
    assert_eq!(strays, [true, true, true, false]);
    for (query, field) in [("stray=maybe", "stray"), ("after=nowhere", "after"), ("limit=0", "limit")] {
        let refused = scene.host().get(&format!("/instances?{query}")).await;
        assert_eq!(refused.problem(), (400, "INVALID_FIELD"), "{query}");
        assert_eq!(refused.body["field"], field);
    }

    let shown = cli::sprag(&scene.host().url, &["instances", "--stray"]).await.exits(0);
    shown.shows(&[&["theirs-0-e1", RED, "STRAY", "other", "never"]]);
    assert_eq!(shown.out.lines().count(), 3);
    assert!(!shown.out.contains('\u{1b}'), "raw: {}", shown.out);
    let all = cli::sprag(&scene.host().url, &["instances"]).await.exits(0);
    all.shows(&[&["theirs-2-e1"], &[&format!("{own}-e1"), "provisioning"]]);
}

/// The same of real processes: a box carries the identity in its own record, which its
/// host reads after a restart.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_lost_row_is_stopped(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = crate::support::db::TestDb::new(backend).await;
    let (state, boxes) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = format!(
        "[loops]\nstrays_ms = 50\nstrays_grace_ms = 0\nstrays_quiet_ms = 0\n\
         [providers.{RED}]\ntype = \"process\"\ndir = {:?}\ncommand = [\"sleep\", \"1000\"]\n",
        boxes.path()
    );
    let provider = std::sync::Arc::new(Provider::new(Settings {
        dir: boxes.path().to_owned(),
        sprag: sprag_bin(),
        command: Vec::new(),
        env: std::collections::BTreeMap::new(),
        stop_grace: Duration::from_secs(1),
        kept_boxes: 1,
    }));
    let host = Process::start(&db.url, state.path(), &config).await;
    let mut ids = Vec::new();
    for name in ["lost", "kept"] {
        let body = json!({ "name": name, "provider": RED });
        let made = host.admin(Method::POST, "workspaces", Some(body)).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        super::unclaimed(&db, &id).await;
        ids.push(id);
    }
    host.kill().await;
    let own = db.store.registry_id().await.expect("an identity");
    let listed = provider.list().await.expect("a list");
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|one| one.registry_id.as_ref() == Some(&own)), "{listed:?}");
    db.sql(&forgotten(&ids[0])).await;
    let host = Process::start(&db.url, state.path(), &config).await;
    let runs = async || {
        let listed = provider.list().await.expect("a list");
        listed.into_iter().map(|one| one.workspace_id).collect::<Vec<_>>()
    };
    soon("it is stopped", async || runs().await == ids[1..]).await;
    host.kill().await;
    stop_all(provider);
}
