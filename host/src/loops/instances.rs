//! Boxes that are not running, as their provider says: of rows that live, and of
//! those that boot. The question is about the instance that was listed; whatever
//! was answered, the row is read again before anything follows from it. No answer
//! is no evidence.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::time::{Instant, timeout};

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Asked, Batch, Evidence, Sweeper, count};
use crate::facts::{Cause, Probe, Workspace};
use crate::machine::Status;
use crate::provision::{BoxState, DispatchError, Dispatcher};
use crate::store::{ByProvider, Snapshot, StoreError, Sweep};

/// Rows that wait for the next cycle, counted up to here.
const COUNTED: u64 = 100_000;

pub(super) struct Instances {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) config: LoopsConfig,
}

/// What came of one question.
enum Answer {
    Running,
    NotRunning,
    /// None; its code.
    None(&'static str),
}

/// What came of a cycle's.
#[derive(Default)]
struct Answers {
    not_running: Vec<Snapshot>,
    /// Of so many that were answered.
    of: ByProvider,
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
        2 * (Duration::from_millis(self.config.instances_cycle_ms) + self.patience())
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let Answers { not_running, of } = self.ask_all(&mut tally).await?;
            let mut confirmed = Vec::new();
            for listed in not_running {
                match self.confirm(&listed).await {
                    Ok((facts, probe)) => {
                        let at = facts.now;
                        confirmed.push(Asked::of(facts, at, Cause::Probed(probe)));
                    }
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
            let behind = self.sweeper.store.waiting(Sweep::Instances, 0, COUNTED).await?;
            tally.deferred = behind.values().sum();
            let evidence = Evidence { asked: confirmed, of, full: tally.deferred > 0 };
            self.sweeper.flip(Sweep::Instances, 0, evidence, &mut tally).await?;
            // A cycle asks about so many and no more.
            tally.more = false;
            Ok(tally)
        })
    }
}

impl Instances {
    fn patience(&self) -> Duration {
        Duration::from_millis(self.config.instances_question_ms)
    }

    /// Asks until the cycle is over or has had its rows. They are taken as they
    /// are asked about: what a cycle does not come to keeps its place for the next.
    async fn ask_all(&self, tally: &mut Tally) -> Result<Answers, StoreError> {
        let until = Instant::now() + Duration::from_millis(self.config.instances_cycle_ms);
        let at_once = u32::try_from(self.config.instances_at_once).unwrap_or(u32::MAX);
        let mut answers = Answers::default();
        let mut left = self.sweeper.rows;
        while left > 0 && Instant::now() < until {
            let (rows, every) = (at_once.min(left), self.config.instances_ms);
            let Batch { due, full } = self.sweeper.take_some(Sweep::Instances, 0, every, rows, tally).await?;
            let questions = due.into_iter().map(|due| self.ask(due.facts));
            for (row, answer) in join_all(questions).await {
                match answer {
                    Answer::NotRunning => {
                        count(&mut answers.of, row.workspace.provider.as_deref());
                        answers.not_running.push(row);
                    }
                    Answer::Running => {
                        count(&mut answers.of, row.workspace.provider.as_deref());
                        tally.skip("running");
                    }
                    Answer::None(why) => tally.skip(why),
                }
            }
            if !full {
                break;
            }
            left -= rows;
        }
        Ok(answers)
    }

    async fn ask(&self, row: Snapshot) -> (Snapshot, Answer) {
        let answer = self.question(&row.workspace).await;
        (row, answer)
    }

    async fn question(&self, row: &Workspace) -> Answer {
        let Workspace { id, provider: Some(provider), instance_id: Some(instance), .. } = row else {
            return Answer::None("no-instance");
        };
        let asked = timeout(self.patience(), self.dispatcher.status(provider, id, instance)).await;
        match asked {
            Ok(Ok(status)) if status.state == BoxState::Stopped => Answer::NotRunning,
            Ok(Ok(_)) => Answer::Running,
            Ok(Err(DispatchError::UnknownProvider(_))) => Answer::None("unknown-provider"),
            Ok(Err(error)) => {
                tracing::warn!(workspace.id = id, provider, "no answer about its box: {error}");
                Answer::None("provider-error")
            }
            Err(_) => {
                tracing::warn!(workspace.id = id, provider, "no answer about its box in time");
                Answer::None("provider-slow")
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
        if is.status != Status::Provisioning && !is.status.lives() {
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
        if is.status != was.status {
            // It registered, say: what was a boot lives now.
            return Err("moved");
        }
        Ok((now, Probe { instance_id: instance, running: false }))
    }
}
