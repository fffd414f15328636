//! The hot path: heartbeats are collected into batches, one statement stores a
//! whole batch's liveness and returns every row's facts, and the decisions are
//! made on those facts, some in a row in one task: between two requests the
//! sandbox's code and its memory would have left the processor's caches.
//!
//! A batch is whatever arrived while the one before it was being stored, so an
//! idle host answers at once and a busy one grows its batches by itself; a busy
//! one also waits a moment for a batch to be worth a commit. An
//! answered heartbeat is a stored heartbeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

use crate::advance::{Advance, Advanced};
use crate::facts::{Cause, Heartbeat};
use crate::machine::Status;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::store::{Backend, Beat, Beaten, Credential, Store, StoreError};

/// Bounds of the batching, under `[heartbeats]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Heartbeats that one statement stores at most.
    pub batch_size: usize,
    /// Batches that may be stored at once, where the database can. A second one is
    /// begun when it is full, or when the first takes long: two small ones cost more
    /// than one, but none waits for another's lock or slow disk. SQLite has one writer,
    /// and so one batch.
    pub in_flight: usize,
    /// How long a batch waits for company, in milliseconds, on a host that had some of late.
    pub linger_ms: u64,
    /// Heartbeats that may wait; one more is answered `503`.
    pub queue: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { batch_size: 512, in_flight: 3, linger_ms: 2, queue: 8_192 }
    }
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Stored; the status after it, and the decision if policies were asked.
    Stored {
        status: Status,
        decision_id: Option<String>,
    },
    Unknown,
    Unauthorized,
    Removed,
}

/// Why a heartbeat could not be taken. Nothing is stored, or nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HeartbeatError {
    #[error("too many heartbeats are waiting")]
    Busy,
    #[error("the host is stopping")]
    Stopping,
    #[error("the database failed")]
    Store(#[source] Arc<StoreError>),
}

type Answer = Result<Heard, HeartbeatError>;

/// Heartbeats that are judged one after the other in one task.
const JUDGED_TOGETHER: usize = 16;

/// How long a batch waits for the one before it, in milliseconds, where it need not.
const PATIENCE_MS: u32 = 20;

/// A heartbeat that waits to be stored.
struct Queued {
    beat: Beat,
    asker: Asker,
}

/// What is left of it once it is stored.
struct Asker {
    credential: Credential,
    answer: oneshot::Sender<Answer>,
}

/// Takes heartbeats. Cheap to clone; the collector ends when the last clone is dropped.
#[derive(Clone)]
pub struct Heartbeats {
    queue: mpsc::Sender<Queued>,
}

impl Heartbeats {
    /// Starts the collector; its task ends when every handle is gone and what was queued is stored.
    pub fn start(
        store: Store,
        advance: Advance,
        metrics: Arc<Metrics>,
        config: &BatchConfig,
    ) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(config.queue.max(1));
        let in_flight = match store.backend() {
            Backend::Sqlite => 1,
            Backend::Postgres => config.in_flight.max(1),
        };
        let (judge, judging) = (Judge { advance, metrics }, TaskTracker::new());
        let writer = Writer { store, judge, judging, failed: Seldom::new() };
        let collector = Collector {
            writer: Arc::new(writer),
            batch_size: config.batch_size.max(1),
            in_flight,
            linger_ms: config.linger_ms,
        };
        let task = tokio::spawn(collector.run(waiting));
        (Self { queue }, task)
    }

    /// Stores one heartbeat and judges the row it belongs to.
    ///
    /// # Errors
    /// [`HeartbeatError`]: answer `503`; the agent tries again.
    pub async fn take(&self, beat: Beat) -> Result<Heard, HeartbeatError> {
        let (answer, heard) = oneshot::channel();
        let asker = Asker { credential: Credential { token: beat.token, open: beat.open }, answer };
        self.queue.try_send(Queued { beat, asker }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => HeartbeatError::Busy,
            mpsc::error::TrySendError::Closed(_) => HeartbeatError::Stopping,
        })?;
        heard.await.map_err(|_| HeartbeatError::Stopping)?
    }
}

fn heard(status: Status, advanced: Advanced) -> Heard {
    match advanced {
        Advanced::Moved { to, decision } => Heard::Stored { status: to, decision_id: Some(decision.id) },
        Advanced::Held { status, decision } => Heard::Stored { status, decision_id: Some(decision.id) },
        // A delete may win between the read and the write: the row is gone for the agent.
        Advanced::NoEdge(none) if none.from == Status::Removed => Heard::Removed,
        Advanced::NoEdge(none) => Heard::Stored { status: none.from, decision_id: None },
        // The liveness is stored; the status is the claim's.
        Advanced::Claimed { status, .. } => Heard::Stored { status, decision_id: None },
        Advanced::TokenDead => Heard::Unauthorized,
        Advanced::Unknown => Heard::Unknown,
        // The liveness is stored; what it should lead to, the next heartbeat asks again.
        Advanced::Outran | Advanced::TokenTaken | Advanced::NoProvider { .. } => {
            Heard::Stored { status, decision_id: None }
        }
    }
}

struct Collector {
    writer: Arc<Writer>,
    batch_size: usize,
    in_flight: usize,
    linger_ms: u64,
}

impl Collector {
    async fn run(self, mut waiting: mpsc::Receiver<Queued>) {
        let mut arrived: Vec<Queued> = Vec::with_capacity(self.batch_size);
        let mut storing = JoinSet::new();
        // The size of the large batches of late.
        let mut crowd = 0;
        loop {
            // While there is no turn to store, what arrives makes the next batch larger.
            self.turn(&mut storing, &waiting, arrived.len()).await;
            // What was put back (a second heartbeat of one workspace) goes first.
            if arrived.is_empty() && waiting.recv_many(&mut arrived, self.batch_size).await == 0 {
                break;
            }
            self.linger(&waiting, arrived.len(), crowd).await;
            while arrived.len() < self.batch_size {
                match waiting.try_recv() {
                    Ok(queued) => arrived.push(queued),
                    Err(_) => break,
                }
            }
            let (beats, askers) = take_once_each(&mut arrived);
            crowd = remembered(crowd, beats.len());
            let writer = self.writer.clone();
            storing.spawn(async move { writer.store_batch(beats, askers).await });
        }
        while storing.join_next().await.is_some() {}
        self.writer.judging.close();
        self.writer.judging.wait().await;
    }

    /// Waits until nothing is being stored; where more may be stored at once, no
    /// longer than until the next batch is full or has been patient.
    async fn turn(&self, storing: &mut JoinSet<()>, waiting: &mpsc::Receiver<Queued>, arrived: usize) {
        let mut patience = PATIENCE_MS;
        while !storing.is_empty() {
            let may = storing.len() < self.in_flight;
            if may && (patience == 0 || arrived + waiting.len() >= self.batch_size) {
                return;
            }
            tokio::select! {
                _ = storing.join_next() => {}
                () = tokio::time::sleep(Duration::from_millis(1)), if may => patience -= 1,
            }
        }
    }

    /// Waits for company, where there was any of late: the first few that come
    /// back from a large batch are no batch, and the disk takes as long for them.
    async fn linger(&self, waiting: &mpsc::Receiver<Queued>, arrived: usize, crowd: usize) {
        for _ in 0..self.linger_ms {
            if arrived + waiting.len() >= (crowd / 2).min(self.batch_size) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The size of the large batches of late, after one more: it fades to nothing,
/// so that a quiet host waits for nobody.
fn remembered(crowd: usize, batch: usize) -> usize {
    batch.max(crowd * 7 / 8)
}

struct Writer {
    store: Store,
    judge: Judge,
    judging: TaskTracker,
    /// A full disk fails each batch, and a log on it has no room for a line of each.
    failed: Seldom,
}

impl Writer {
    /// Stores a batch and leaves its decisions to tasks of their own: the next
    /// batch is stored meanwhile.
    async fn store_batch(&self, beats: Vec<Beat>, askers: Vec<Asker>) {
        self.judge.metrics.batch_size.observe(beats.len() as f64);
        match self.store.beat(&beats).await {
            Ok(stored) => {
                for (beaten, beat) in stored.iter().zip(&beats) {
                    if matches!(beaten, Beaten::Removed) {
                        let stray = self.judge.clone().stray(beat.workspace_id.clone(), beat.alone());
                        self.judging.spawn(stray);
                    }
                }
                let mut answered = stored.into_iter().zip(askers);
                while answered.len() > 0 {
                    let some: Vec<_> = answered.by_ref().take(JUDGED_TOGETHER).collect();
                    self.judging.spawn(self.judge.clone().answer_all(some));
                }
            }
            Err(error) => {
                if let Some(heartbeats) = self.failed.due(askers.len() as u64) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, heartbeats, "heartbeats not stored");
                }
                let error = HeartbeatError::Store(Arc::new(error));
                for asker in askers {
                    let _ = asker.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Judges the rows whose liveness is stored.
#[derive(Clone)]
struct Judge {
    advance: Advance,
    metrics: Arc<Metrics>,
}

impl Judge {
    async fn answer_all(self, stored: Vec<(Beaten, Asker)>) {
        for (beaten, Asker { credential, answer }) in stored {
            let heard = self.hear(beaten, credential).await;
            // The client may have hung up; what is stored stays stored.
            let _ = answer.send(heard);
        }
    }

    /// The box of a removed workspace speaks: that moves nothing, and may set its end in motion.
    async fn stray(self, id: String, heartbeat: Heartbeat) {
        if let Err(error) = self.advance.workspace(&id, &Cause::Heartbeat(heartbeat), None).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, workspace.id = id, "a stray box was not looked at");
        }
    }

    async fn hear(&self, beaten: Beaten, credential: Credential) -> Answer {
        let (facts, heartbeat) = match beaten {
            Beaten::Stored(facts, heartbeat) => (facts, heartbeat),
            Beaten::Unreadable(error) => return Err(HeartbeatError::Store(error)),
            Beaten::Unknown => return Ok(Heard::Unknown),
            Beaten::Unauthorized => return Ok(Heard::Unauthorized),
            Beaten::Removed => return Ok(Heard::Removed),
        };
        let status = facts.workspace.status;
        let advanced = self.advance.agent(*facts, &Cause::Heartbeat(heartbeat), None, credential).await;
        let advanced = advanced.map_err(|e| HeartbeatError::Store(Arc::new(e)))?;
        self.metrics.heartbeats.inc();
        Ok(heard(status, advanced))
    }
}

/// Takes one heartbeat of each workspace: one statement can store it once, and
/// a repeat stays for the next batch.
fn take_once_each(arrived: &mut Vec<Queued>) -> (Vec<Beat>, Vec<Asker>) {
    let mut seen = HashSet::with_capacity(arrived.len());
    let first: Vec<_> = arrived.iter().map(|queued| seen.insert(queued.beat.workspace_id.as_str())).collect();
    let mut first = first.into_iter();
    arrived
        .extract_if(.., |_| first.next().unwrap_or_default())
        .map(|Queued { beat, asker }| (beat, asker))
        .unzip()
}

#[cfg(test)]
mod tests;
