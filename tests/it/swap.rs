//! Revisions are swapped under load: no request fails, and no decision mixes two.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::facts::Setting;
use sprag::store::Store;

use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::policy_dir;
use crate::support::process::{Process, beat};

const CLIENTS: usize = 64;
const SWAPS: usize = 100;

/// Two revisions of the same modules that differ in every module's settings.
async fn two_revisions(host: &Process) -> [i64; 2] {
    let mut digests = BTreeMap::new();
    for name in ["heartbeat", "platform-gate"] {
        let bytes = std::fs::read(policy_dir().join(format!("{name}.wasm"))).expect("a module");
        let request = host.client.post(format!("{}/policies/modules", host.url));
        let sent = request.bearer_auth(crate::support::process::ADMIN).body(bytes).send().await;
        let info: Value = sent.expect("uploading").json().await.expect("an answer");
        digests.insert(name, info["digest"].as_str().expect("a digest").to_owned());
    }
    let mut numbers = [0; 2];
    for (i, number) in numbers.iter_mut().enumerate() {
        let body = json!({ "modules": [
            { "digest": digests["platform-gate"], "settings": { "unreported-is-missing": i == 0 } },
            { "digest": digests["heartbeat"], "settings": { "degrade-at": (if i == 0 { 0.5 } else { 0.6 }) } },
        ]});
        let row = host.admin(Method::POST, "policies/revisions", Some(body)).await;
        *number = row["number"].as_i64().expect("a number");
    }
    numbers
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_under_load(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let state = tempfile::tempdir().expect("a directory");
    // Enough decisions are kept to see a mixture, few enough not to measure the disk.
    let host = Process::start(&db.url, state.path(), "decision_sample = 5\n").await;
    let revisions = two_revisions(&host).await;
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let (id, token) = host.create(json!({ "name": format!("agent {n}"), "kind": "platform" })).await;
        let (url, done, answered) = (host.url.clone(), done.clone(), answered.clone());
        clients.push(tokio::spawn(async move {
            let client = crate::support::client();
            let mut uptime = 0;
            while !done.load(Ordering::SeqCst) {
                uptime += 1;
                let answer = beat(&client, &url, &id, &token, uptime, 0.0).await;
                let (code, body) = answer.expect("an answer");
                assert_eq!(code, 200, "{body}");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for swap in 0..SWAPS {
        let number = revisions[swap % 2];
        let row = host.admin(Method::POST, &format!("policies/revisions/{number}/activate"), None).await;
        assert_eq!((row["number"].as_i64(), &row["active"]), (Some(number), &json!(true)));
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + CLIENTS / 4 {
            assert!(!clients.iter().any(tokio::task::JoinHandle::is_finished), "a client failed");
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client whose every request was answered 200");
    }
    host.stop().await;
    assert_no_mixture(&db, revisions).await;
}

/// What a vote of each policy looks like under each of the two revisions.
async fn assert_no_mixture(db: &TestDb, revisions: [i64; 2]) {
    let store = Store::connect(&db.url).await.expect("opening the database");
    let rows = store.revisions().await.expect("reading revisions");
    let digests: HashMap<(i64, String), String> = rows
        .iter()
        .flat_map(|row| row.modules.iter().map(|m| ((row.number, m.name.clone()), m.digest.clone())))
        .collect();
    let mut seen = [0; 2];
    let mut after = None;
    loop {
        let page = store.decisions(after.as_deref(), 1_000).await.expect("reading decisions");
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for decision in &page {
            let Some(i) = revisions.iter().position(|number| *number == decision.revision) else { continue };
            seen[i] += 1;
            assert_eq!(decision.votes.len(), 2, "both policies are asked: {decision:#?}");
            for vote in &decision.votes {
                let expected = &digests[&(decision.revision, vote.by.policy.clone())];
                assert_eq!(&vote.by.digest, expected, "a module of another revision: {decision:#?}");
                let (name, value) = match vote.by.policy.as_str() {
                    "heartbeat" => ("degrade-at", Setting::Number([0.5, 0.6][i])),
                    _ => ("unreported-is-missing", Setting::Flag(i == 0)),
                };
                assert_eq!(vote.by.settings.get(name), Some(&value), "settings of another revision");
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both revisions decided: {seen:?}");
    store.close().await;
}
