//! The outbox's worker: what a committed step owes the world is delivered, at
//! least once, by whichever host takes it; what can't be delivered is parked
//! where operators see it (`GET /effects`, `sprag effects`).
//!
//! | File | Holds |
//! |---|---|
//! | `deliver` | one delivery of each kind |
//! | `webhook` | notices, signed as Standard Webhooks |
//! | `plugins` | who may have which plugin |
//! | `config` | how patient it is |

mod config;
mod deliver;
pub mod plugins;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{EffectsConfig, NotifyConfig};
pub use webhook::{Webhook, WebhookError};

use crate::claims::Claims;
use crate::die_at;
use crate::metrics::Metrics;
use crate::provision::Dispatcher;
use crate::store::{Effect, STOP, Store, StoreError};

/// Effects that one tick takes at most.
const TAKEN_AT_ONCE: u32 = 32;

/// So many first pauses what is another host's to do waits at most.
const SOON: u64 = 30;

/// Workspaces whose effects are delivered side by side.
const GROUPS_AT_ONCE: usize = 64;

/// What became of one delivery.
enum Delivered {
    Done,
    /// It is over, and this is how.
    Noted(String),
    /// Again later, as long as there are attempts.
    Failed(String),
    /// Not by this host, which does not have what it takes; another one may. Again soon.
    Elsewhere(String),
    /// It can't work: a person has to look.
    Hopeless(String),
}

/// Delivers what is owed. Cheap to clone.
#[derive(Clone)]
pub struct Effects(Arc<Worker>);

struct Worker {
    store: Store,
    dispatcher: Arc<Dispatcher>,
    claims: Claims,
    webhook: Option<Webhook>,
    metrics: Arc<Metrics>,
    config: EffectsConfig,
    under_way: TaskTracker,
    stop: CancellationToken,
    wake: OnceLock<Arc<Notify>>,
}

impl Effects {
    pub fn new(
        store: Store,
        dispatcher: Arc<Dispatcher>,
        claims: Claims,
        webhook: Option<Webhook>,
        metrics: Arc<Metrics>,
        config: EffectsConfig,
    ) -> Self {
        let (under_way, stop, wake) = (TaskTracker::new(), CancellationToken::new(), OnceLock::new());
        Self(Arc::new(Worker { store, dispatcher, claims, webhook, metrics, config, under_way, stop, wake }))
    }

    /// Takes what is due, and delivers it in tasks of their own; how many workspaces'
    /// effects. One provider that does not answer keeps its own waiting and nobody else's.
    ///
    /// # Errors
    /// The database; the next tick is the retry.
    pub async fn tick(&self) -> Result<usize, StoreError> {
        let room = GROUPS_AT_ONCE.saturating_sub(self.0.under_way.len());
        let room = u32::try_from(room).unwrap_or(TAKEN_AT_ONCE).min(TAKEN_AT_ONCE);
        let groups = self.0.take(room).await?;
        let taken = groups.len();
        for group in groups {
            let worker = self.0.clone();
            self.0.under_way.spawn(async move {
                worker.deliver_all(group).await;
                // What was taken stood in the way of what is behind it.
                worker.wake.get().inspect(|wake| wake.notify_one());
            });
        }
        Ok(taken)
    }

    /// How often [`Effects::tick`] is to be called where nobody wakes it.
    pub fn tick_every(&self) -> Duration {
        Duration::from_millis(self.0.config.tick_ms.max(10))
    }

    /// Whom to wake when there may be something to deliver. Once.
    pub fn wakes(&self, wake: Arc<Notify>) {
        let _ = self.0.wake.set(wake);
    }

    /// Gives back what is under way, due again at once.
    pub async fn shut_down(&self) {
        self.0.stop.cancel();
        self.0.under_way.close();
        self.0.under_way.wait().await;
    }
}

impl Worker {
    /// What is due, by workspace; of each one after the other.
    async fn take(&self, limit: u32) -> Result<Vec<Vec<Effect>>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let due = self.store.due_effects(limit, self.config.lease_ms).await?;
        let (waiting, parked) = self.store.effect_counts().await?;
        self.metrics.effects_waiting(waiting, parked);
        let mut by_workspace: BTreeMap<String, Vec<Effect>> = BTreeMap::new();
        for effect in due {
            by_workspace.entry(effect.workspace_id.clone()).or_default().push(effect);
        }
        Ok(by_workspace.into_values().collect())
    }

    /// What a stop of the host cuts off is due again at once.
    async fn deliver_all(&self, group: Vec<Effect>) {
        for effect in &group {
            let delivered = tokio::select! {
                delivered = self.deliver(effect) => delivered,
                () = self.stop.cancelled() => {
                    self.store.effect_failed(&effect.id, 0, "the host stopped", false).await
                }
            };
            if let Err(error) = delivered {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, effect.id = effect.id, "an effect is left to its lease");
            }
        }
    }

    async fn deliver(&self, effect: &Effect) -> Result<(), StoreError> {
        die_at::reached(format_args!("effect:taken"));
        let delivered = self.once(effect).await?;
        die_at::reached(format_args!("effect:delivered"));
        let (most, soon) = (self.config.backoff_max_ms, self.config.backoff_ms.saturating_mul(SOON));
        let (why, hopeless, longest) = match delivered {
            Delivered::Done => return self.done(effect, None).await,
            Delivered::Noted(note) => return self.done(effect, Some(&note)).await,
            Delivered::Failed(why) => (why, false, most),
            Delivered::Elsewhere(why) => (why, false, most.min(soon)),
            Delivered::Hopeless(why) => (why, true, most),
        };
        // A box that is left costs money as long as it runs: its stop is never given up.
        let spent = effect.kind != STOP && effect.attempts >= self.config.attempts;
        let parked = hopeless || spent;
        self.metrics.effect_delivered(&effect.kind, if parked { "parked" } else { "failed" });
        let (id, workspace, kind) = (&effect.id, &effect.workspace_id, &effect.kind);
        if parked {
            tracing::error!(
                effect.id = id,
                effect.kind = kind,
                workspace.id = workspace,
                "parked after {} deliveries: {why}",
                effect.attempts
            );
        } else {
            tracing::warn!(
                effect.id = id,
                effect.kind = kind,
                workspace.id = workspace,
                "not delivered: {why}"
            );
        }
        let pause = self.pause(effect.attempts, longest);
        self.store.effect_failed(&effect.id, pause, &why, parked).await
    }

    async fn done(&self, effect: &Effect, note: Option<&str>) -> Result<(), StoreError> {
        self.metrics.effect_delivered(&effect.kind, "done");
        self.store.effect_done(&effect.id, note).await?;
        die_at::reached(format_args!("effect:done"));
        Ok(())
    }

    /// Twice as long every time, up to a bound; half of it is left to chance, or the host whose
    /// pause it is would be the first to come back every time.
    fn pause(&self, attempts: u32, longest: u64) -> u64 {
        let doubled = self.config.backoff_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let most = doubled.min(longest);
        most - getrandom::u64().unwrap_or_default() % (most / 2 + 1)
    }
}
