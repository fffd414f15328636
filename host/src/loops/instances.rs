//! Boxes that are not running, as their provider says. The question is about the
//! instance that was listed; whatever was answered, the row is read again before
//! anything follows from it. No answer is no evidence.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Asked, Batch, Sweeper};
use crate::facts::{Cause, Probe, Workspace};
use crate::machine::Status;
use crate::provision::{BoxState, DispatchError, Dispatcher};
use crate::store::{Snapshot, StoreError, Sweep};

/// Rows that wait for the next cycle, counted up to here.
const COUNTED: u64 = 100_000;

pub(super) struct Instances {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) config: LoopsConfig,
}

/// What came of one question.
enum Answer {
    NotRunning(Snapshot),
    /// Its code.
    Skipped(&'static str),
    /// Not asked: the cycle was over. Its id.
    Deferred(String),
}

impl Tick for Instances {
    fn name(&self) -> &'static str {
        "instances"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.instances_ms)
    }

    fn limit(&self) -> Duration {
        // The cycle, its last question, and what follows from the answers.
        2 * (Duration::from_millis(self.config.instances_cycle_ms) + self.question())
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let again = self.config.instances_ms;
            let until = Instant::now() + Duration::from_millis(self.config.instances_cycle_ms);
            let Batch { due, full } = self.sweeper.take(Sweep::Instances, 0, again, &mut tally).await?;
            if full {
                let behind = self.sweeper.store.waiting(Sweep::Instances, 0, COUNTED).await?;
                tally.deferred += behind.values().sum::<u64>();
            }
            let listed = due.into_iter().map(|due| due.facts);
            let not_running = self.ask_all(listed, until, &mut tally).await?;
            let mut confirmed = Vec::new();
            for listed in not_running {
                match self.confirm(&listed).await {
                    Ok((facts, probe)) => confirmed.push(Asked::of(facts, Cause::Probed(probe))),
                    Err(why) => {
                        let (id, instance) = (&listed.workspace.id, &listed.workspace.instance_id);
                        tracing::info!(
                            workspace.id = id,
                            instance.id = instance,
                            reason = why,
                            "not running, and left as it is"
                        );
                        tally.skip(why);
                    }
                }
            }
            self.sweeper.flip(Sweep::Instances, 0, confirmed, full, &mut tally).await?;
            // A cycle asks about so many and no more.
            tally.more = false;
            Ok(tally)
        })
    }
}

impl Instances {
    fn question(&self) -> Duration {
        Duration::from_millis(self.config.instances_question_ms)
    }

    /// Asks about each, so many at once, until the cycle is over.
    async fn ask_all(
        &self,
        listed: impl Iterator<Item = Snapshot>,
        until: Instant,
        tally: &mut Tally,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let questions = listed.map(|row| self.ask(row, until));
        let mut answers = futures::stream::iter(questions).buffer_unordered(self.config.instances_at_once);
        let (mut not_running, mut deferred) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.next().await {
            match answer {
                Answer::NotRunning(row) => not_running.push(row),
                Answer::Skipped(why) => tally.skip(why),
                Answer::Deferred(id) => deferred.push(id),
            }
        }
        tally.deferred += u64::try_from(deferred.len()).unwrap_or(u64::MAX);
        self.sweeper.store.defer(Sweep::Instances, &deferred).await?;
        Ok(not_running)
    }

    async fn ask(&self, row: Snapshot, until: Instant) -> Answer {
        if Instant::now() >= until {
            return Answer::Deferred(row.workspace.id);
        }
        let Workspace { id, provider: Some(provider), instance_id: Some(instance), .. } = &row.workspace
        else {
            return Answer::Skipped("no-instance");
        };
        let asked = timeout(self.question(), self.dispatcher.status(provider, id, instance)).await;
        match asked {
            Ok(Ok(status)) if status.state == BoxState::Stopped => Answer::NotRunning(row),
            Ok(Ok(_)) => Answer::Skipped("running"),
            Ok(Err(DispatchError::UnknownProvider(_))) => Answer::Skipped("unknown-provider"),
            Ok(Err(error)) => {
                tracing::warn!(workspace.id = id, provider, "no answer about its box: {error}");
                Answer::Skipped("provider-error")
            }
            Err(_) => {
                tracing::warn!(workspace.id = id, provider, "no answer about its box in time");
                Answer::Skipped("provider-slow")
            }
        }
    }

    /// The row as it is now, if "not running" was said of what it still is.
    async fn confirm(&self, listed: &Snapshot) -> Result<(Snapshot, Probe), &'static str> {
        let now = match self.sweeper.store.snapshot(&listed.workspace.id).await {
            Ok(Some(now)) => now,
            Ok(None) => return Err("gone"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "reading a row again");
                return Err("not-confirmed");
            }
        };
        let (was, is) = (&listed.workspace, &now.workspace);
        if now.claim_id.is_some() {
            return Err("claimed");
        }
        if !matches!(is.status, Status::Online | Status::Degraded) {
            return Err("moved");
        }
        let Some(instance) = is.instance_id.clone().filter(|id| !id.is_empty()) else {
            return Err("instance-cleared");
        };
        if is.instance_id != was.instance_id || is.provider != was.provider {
            return Err("instance-changed");
        }
        if is.last_heartbeat_at != was.last_heartbeat_at {
            // Its agent has spoken since the row was listed.
            return Err("heard");
        }
        Ok((now, Probe { instance_id: instance, running: false }))
    }
}
