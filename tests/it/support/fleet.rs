//! A registry with the shipped policies in charge, and workspaces in whatever
//! status a test begins with.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sprag::advance::{Advance, Between, Removal};
use sprag::facts::{Command, Heartbeat};
use sprag::heartbeats::{BatchConfig, Heard, HeartbeatError, Heartbeats};
use sprag::machine::Status;
use sprag::metrics::Metrics;
use sprag::policy::Revision;
use sprag::revisions::Active;
use sprag::store::{Backend, Beat, Event, NewWorkspace, Placed, Reported, Store, TokenHash, WorkspaceView};
use uuid::Uuid;

use super::db::TestDb;

/// A workspace as a test made it.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub token: TokenHash,
}

/// A store and the path over it.
pub struct Fleet {
    pub db: TestDb,
    pub store: Store,
    pub advance: Advance,
}

impl Fleet {
    pub async fn new(backend: Backend, revision: Revision) -> Self {
        let db = TestDb::new(backend).await;
        let store = db.store.clone();
        let advance = advance(&store, revision);
        Self { db, store, advance }
    }

    /// The path with another revision in charge.
    pub fn advance_under(&self, revision: Revision) -> Advance {
        advance(&self.store, revision)
    }

    /// A workspace of `kind` and `runtime`, put into `status` as if it had come there.
    pub async fn workspace(&self, kind: &str, runtime: &str, status: Status) -> Made {
        self.child(kind, runtime, status, None).await
    }

    pub async fn child(&self, kind: &str, runtime: &str, status: Status, parent: Option<&str>) -> Made {
        let id = Uuid::now_v7();
        let mut token = [7; 32];
        token[..16].copy_from_slice(id.as_bytes());
        let made = Made { id: id.to_string(), token: TokenHash(token) };
        let new = NewWorkspace {
            id: made.id.clone(),
            name: "test".to_owned(),
            kind: kind.to_owned(),
            runtime: runtime.to_owned(),
            provider: Some("process".to_owned()),
            parent_id: parent.map(str::to_owned),
            tier: None,
            labels: BTreeMap::new(),
            persistent_volume: false,
            hibernation_idle_minutes: None,
            token: Some(made.token),
            claim: None,
        };
        assert_eq!(self.store.create(&new).await.expect("creating"), Placed::Done);
        if status != Status::Provisioning {
            self.db.sql(&format!("UPDATE workspaces SET status = '{status}' WHERE id = '{id}'")).await;
        }
        made
    }

    /// The row as operators see it.
    pub async fn row(&self, id: &str) -> WorkspaceView {
        self.store.view(id).await.expect("reading").expect("there is such a row")
    }

    /// The workspace's events, oldest first.
    pub async fn events(&self, id: &str) -> Vec<Event> {
        let mut events = self.store.events(Some(id), None, 1_000).await.expect("reading events");
        events.reverse();
        events
    }

    /// How many decisions on this workspace are kept.
    pub async fn decisions(&self, id: &str) -> usize {
        let all = self.store.decisions(None, 10_000).await.expect("reading decisions");
        all.iter().filter(|d| d.question.workspace.id == id).count()
    }

    /// Sends one heartbeat through a collector of its own, judged by `advance`.
    pub async fn beat(
        &self,
        advance: &Advance,
        made: &Made,
        heartbeat: Heartbeat,
    ) -> Result<Heard, HeartbeatError> {
        let config = BatchConfig::default();
        let (heartbeats, _collector) =
            Heartbeats::start(self.store.clone(), advance.clone(), Arc::default(), &config);
        let beat = Beat {
            workspace_id: made.id.clone(),
            token: made.token,
            open: false,
            error_rate: Some(heartbeat.error_rate),
            sample_error: Some(heartbeat.sample_error),
            active_tasks: Some(heartbeat.active_tasks),
            uptime_seconds: Some(heartbeat.uptime / 1_000),
            current_task: Some(String::new()),
            runtime_state: Some(heartbeat.runtime_state),
            reported: Reported::from(&heartbeat.readiness).native_status(Some(Some(heartbeat.native_status))),
            warnings: None,
        };
        heartbeats.take(beat).await
    }

    /// The path, with somebody who removes each judged workspace before it is written.
    pub fn outrun_by_removal(&self) -> Advance {
        let rival = self.advance.clone();
        self.between(move |id| {
            let rival = rival.clone();
            async move {
                let removal = rival.remove(&id, &Command::remove(), true).await.expect("removing");
                assert!(matches!(removal, Removal::Done(_)), "the rival could not remove {id}: {removal:?}");
            }
        })
    }

    /// The path, with `act` done once between the first judgement and its write.
    pub fn between<F, Done>(&self, act: F) -> Advance
    where
        F: Fn(String) -> Done + Send + Sync + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        self.advance.clone().with_between(Arc::new(Once { done: AtomicBool::new(false), act }))
    }
}

/// Every decision is kept, so that a test sees one that should not be.
fn advance(store: &Store, revision: Revision) -> Advance {
    Advance::new(store.clone(), Active::of(revision), Arc::new(Metrics::default()), 1)
}

/// Runs one statement between every judgement and its write.
pub struct Each {
    pub fleet: Arc<Fleet>,
    pub sql: String,
}

impl Between for Each {
    fn judged<'a>(&'a self, _workspace_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.fleet.db.sql(&self.sql))
    }
}

struct Once<F> {
    done: AtomicBool,
    act: F,
}

impl<F, Done> Between for Once<F>
where
    F: Fn(String) -> Done + Send + Sync,
    Done: Future<Output = ()> + Send + 'static,
{
    fn judged<'a>(&'a self, workspace_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if self.done.swap(true, Ordering::SeqCst) {
            return Box::pin(std::future::ready(()));
        }
        Box::pin((self.act)(workspace_id.to_owned()))
    }
}
