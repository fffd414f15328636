//! `kill -9` of a real host between every two moments of owe, take, deliver and
//! confirm, and what the next host makes of it.

use std::collections::BTreeMap;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::{Backend, EffectState};

use super::{RED, TOOLS, body, config, ready, until, without_tools};
use crate::support::control_plane::{ControlPlane, Entry, Outcome, Verb, What, Where};
use crate::support::db::TestDb;
use crate::support::process::{Launch, Process};

const LEASE_MS: u64 = 600;

/// Before and after the step that owes is committed.
const OWING: [&str; 2] = ["owe:judged", "owe:committed"];

/// Taken; delivered, and nobody knows; confirmed.
const DELIVERING: [&str; 3] = ["effect:taken", "effect:delivered", "effect:done"];

/// Workspaces, and effects of each, that are owed when the host dies.
const SIDE_BY_SIDE: usize = 2;
const IN_ORDER: usize = 3;

/// A platform workspace whose box runs and whose plugins are declared: its id and its box's token.
async fn booted(host: &Process, plane: &ControlPlane) -> (String, String) {
    let body = json!({ "name": "w", "kind": "platform", "provider": RED });
    let made = host.admin(Method::POST, "workspaces", Some(body)).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    until("its claim has ended", async || {
        host.admin(Method::GET, &format!("workspaces/{id}"), None).await["claim_id"].is_null()
    })
    .await;
    let plugins = json!({ "plugins": [{ "name": TOOLS }] });
    host.admin(Method::PUT, &format!("workspaces/{id}/plugins"), Some(plugins)).await;
    let token = plane.spec(RED, &plane.running(&id)[0].instance).expect("a box").token;
    (id, token)
}

/// None where the host died over it.
async fn beat(host: &Process, id: &str, token: &str, says: &Value) -> Option<Value> {
    let request = host.client.post(format!("{}/registry/heartbeat", host.url)).bearer_auth(token);
    request.json(&body(id, says)).send().await.ok()?.json().await.ok()
}

/// Keys of the deliveries that did something, in their order, each once.
fn delivered(plane: &ControlPlane, id: &str) -> Vec<String> {
    let calls = plane.journal.calls(id);
    let mut times = BTreeMap::<_, usize>::new();
    let done = calls.iter().filter(|call| call.verb == Verb::Deliver && call.outcome == Outcome::Done);
    // The key is the effect's id and the box.
    let key = |call: &Entry| call.key.trim_matches('"').replace(&format!(".{}", call.instance), "");
    let keys: Vec<_> = done.map(key).collect();
    keys.iter().for_each(|key| *times.entry(key).or_default() += 1);
    assert!(times.values().all(|n| *n == 1), "done twice: {calls:#?}");
    keys
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_cure_survives_its_host(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(&plane, dir.path(), LEASE_MS);
    for die_at in OWING.iter().chain(&DELIVERING) {
        let env: &[(&str, &str)] = &[("SPRAG_DIE_AT", die_at)];
        let host = Launch { config: &config, env, ..Launch::of(&db.url, dir.path()) }.start().await;
        let (id, token) = booted(&host, &plane).await;
        let _ = beat(&host, &id, &token, &without_tools()).await;
        host.died(die_at).await;

        let next = Process::start(&db.url, dir.path(), &config).await;
        let heard = beat(&next, &id, &token, &without_tools()).await.expect("an answer");
        assert_eq!(heard["workspace_status"], "failed", "{die_at}");
        until("it is delivered", async || db.store.effect_counts().await.expect("reading") == (0, 0)).await;
        assert_eq!(delivered(&plane, &id).len(), 1, "{die_at}");
        let instance = &plane.running(&id)[0].instance;
        assert_eq!(plane.plugins(RED, instance), Some(vec![TOOLS.to_owned()]), "{die_at}");
        let heard = beat(&next, &id, &token, &ready()).await.expect("an answer");
        assert_eq!(heard["workspace_status"], "online", "{die_at}");
        next.kill().await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_order_survives_its_host(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(&plane, dir.path(), LEASE_MS);
    let mut ids = Vec::new();
    let host = Process::start(&db.url, dir.path(), &config).await;
    for _ in 0..SIDE_BY_SIDE {
        ids.push(booted(&host, &plane).await.0);
    }
    host.kill().await;
    let mut expected: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for die_at in DELIVERING {
        for n in 0..IN_ORDER {
            for (place, id) in ids.iter().enumerate() {
                let key = format!("{die_at}.{place}.{n}");
                owe(&db, &key, id).await;
                expected.entry(id.clone()).or_default().push(key);
            }
        }
        let env: &[(&str, &str)] = &[("SPRAG_DIE_AT", die_at)];
        let first = Launch { config: &config, env, ..Launch::of(&db.url, dir.path()) }.start().await;
        first.died(die_at).await;
        let next = Process::start(&db.url, dir.path(), &config).await;
        until("all is delivered", async || db.store.effect_counts().await.expect("reading") == (0, 0)).await;
        next.kill().await;
        for id in &ids {
            assert_eq!(delivered(&plane, id), expected[id], "{die_at}");
        }
    }
    let done = db.store.effects(Some(EffectState::Done), None, None, 500).await.expect("reading");
    println!("{} effects, each done once and in order, {backend:?}", done.len());
    assert_eq!(done.len(), DELIVERING.len() * IN_ORDER * SIDE_BY_SIDE);
}

async fn owe(db: &TestDb, key: &str, id: &str) {
    db.sql(&format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) \
         VALUES ('{key}', '{id}', 'reconcile_plugins', '{{\"action\":\"reconcile_plugins\"}}', 'due', 0, 0)"
    ))
    .await;
}

/// What can't be delivered is in the log of the host that gave it up, and the box is left as it is.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_loud(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let host = Process::start(&db.url, dir.path(), &config(&plane, dir.path(), LEASE_MS)).await;
    let (id, token) = booted(&host, &plane).await;
    plane.faults.always(Where::verb(Verb::Deliver), What::Fail);
    for _ in 0..5 {
        let heard = beat(&host, &id, &token, &without_tools()).await.expect("an answer");
        assert_eq!(heard["workspace_status"], "failed");
    }
    until("it is parked", async || db.store.effect_counts().await.expect("reading") == (0, 1)).await;
    let log = host.log();
    let loud: Vec<_> = log.lines().filter(|line| line.contains("parked after 1 deliveries")).collect();
    assert_eq!(loud.len(), 1, "{log}");
    assert!(loud[0].contains("ERROR") && loud[0].contains(&id), "{loud:?}");
    assert_eq!(plane.running(&id).len(), 1);
    host.stop().await;
}
