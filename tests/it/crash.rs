//! `kill -9` and SIGTERM under load: what was answered is in the database, and
//! each workspace's log is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use serde_json::json;
use sprag::machine::Status;
use sprag::store::{Event, Store};

use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::process::{Process, beat};

const AGENTS: usize = 24;

/// What one agent was told.
struct Told {
    id: String,
    token: String,
    /// The last uptime that was answered; each heartbeat sends one more.
    uptime: u64,
    status: String,
    /// The decisions of the answers that said a new status.
    moved: Vec<(String, String)>,
}

/// Heartbeats until the host stops answering; errors come and go, so that rows move.
async fn heartbeat_until_cut_off(url: String, mut told: Told, answered: Arc<AtomicUsize>) -> Told {
    let client = crate::support::client();
    loop {
        let uptime = told.uptime + 1;
        let error_rate = if uptime % 6 < 3 { 0.0 } else { 0.9 };
        let Some((code, answer)) = beat(&client, &url, &told.id, &told.token, uptime, error_rate).await
        else {
            return told;
        };
        if code == 503 {
            return told;
        }
        assert_eq!(code, 200, "{answer}");
        told.uptime = uptime;
        let status = answer["workspace_status"].as_str().expect("a status").to_owned();
        if status != told.status {
            let decision = answer["decision_id"].as_str().expect("a decision").to_owned();
            told.moved.push((status.clone(), decision));
            told.status = status;
        }
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

/// Lets every agent heartbeat until `enough` were answered, then does `end` to the host.
async fn under_load(host: Process, agents: Vec<Told>, enough: usize, kill: bool) -> Vec<Told> {
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = agents
        .into_iter()
        .map(|told| tokio::spawn(heartbeat_until_cut_off(host.url.clone(), told, answered.clone())))
        .collect();
    while answered.load(Ordering::SeqCst) < enough {
        assert!(
            !tasks.iter().all(tokio::task::JoinHandle::is_finished),
            "the host stopped answering by itself"
        );
        tokio::task::yield_now().await;
    }
    if kill {
        host.kill().await
    } else {
        host.stop().await
    }
    let mut told = Vec::new();
    for task in tasks {
        told.push(task.await.expect("an agent"));
    }
    told
}

async fn agents(host: &Process) -> Vec<Told> {
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        let (id, token) = host.create(json!({ "name": format!("agent {n}") })).await;
        agents.push(Told { id, token, uptime: 0, status: "provisioning".to_owned(), moved: Vec::new() });
    }
    agents
}

async fn events(store: &Store, id: &str) -> Vec<Event> {
    let mut events = store.events(Some(id), None, 10_000).await.expect("reading events");
    events.reverse();
    events
}

/// Contiguous in version, and each begins where the one before ended.
fn assert_whole(events: &[Event]) {
    let mut at: Option<Status> = None;
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.version, i as i64 + 1, "a version is missing: {events:#?}");
        assert_eq!(event.from, at, "the chain is broken: {events:#?}");
        at = event.to;
    }
}

async fn assert_all_there(store: &Store, told: &[Told], nothing_more: bool) {
    for agent in told {
        let row = store.view(&agent.id).await.expect("reading").expect("the row");
        assert!(row.uptime_seconds >= agent.uptime, "an answered heartbeat is not stored");
        if nothing_more {
            assert_eq!(row.uptime_seconds, agent.uptime, "an unanswered heartbeat is stored");
        }
        let events = events(store, &agent.id).await;
        assert_whole(&events);
        assert_eq!(events.last().and_then(|e| e.to), Some(row.workspace.status));
        for (status, decision) in &agent.moved {
            let event = events.iter().find(|e| e.decision_id.as_ref() == Some(decision));
            let event = event.unwrap_or_else(|| panic!("an answered transition left no event: {decision}"));
            assert_eq!(event.to.map(Status::as_str), Some(status.as_str()));
            assert!(store.decision(decision).await.expect("reading").is_some());
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = Process::start(&db.url, state.path(), "").await;
    let mut told = agents(&host).await;
    let mut host = Some(host);
    for round in 1..=3 {
        let running = match host.take() {
            Some(host) => host,
            None => Process::start(&db.url, state.path(), "").await,
        };
        told = under_load(running, told, 400, true).await;
        assert!(told.iter().map(|t| t.moved.len()).sum::<usize>() > 0, "nothing moved in round {round}");
        let store = Store::connect(&db.url).await.expect("opening the database again");
        assert_all_there(&store, &told, false).await;
        // An unanswered heartbeat may be stored or not: go on from what is there.
        for agent in &mut told {
            let row = store.view(&agent.id).await.expect("reading").expect("the row");
            agent.uptime = row.uptime_seconds;
            row.workspace.status.as_str().clone_into(&mut agent.status);
        }
        store.close().await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_host_has_stored_what_it_answered_and_nothing_else(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = Process::start(&db.url, state.path(), "").await;
    let told = agents(&host).await;
    let told = under_load(host, told, 400, false).await;
    let store = Store::connect(&db.url).await.expect("opening the database again");
    assert_all_there(&store, &told, true).await;
    store.close().await;
}
