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
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use config::{EffectsConfig, NotifyConfig};
pub use webhook::{Webhook, WebhookError};

use crate::claims::Claims;
use crate::metrics::Metrics;
use crate::provision::Dispatcher;
use crate::store::{Effect, Store, StoreError};

/// Effects that one tick takes at most.
const TAKEN_AT_ONCE: u32 = 32;

/// What became of one delivery.
enum Delivered {
    Done,
    /// It is over, and this is how.
    Noted(String),
    /// Again later, as long as there are attempts.
    Failed(String),
    /// It can't work: a person has to look.
    Hopeless(String),
}

/// Delivers what is owed.
pub struct Effects {
    store: Store,
    dispatcher: Arc<Dispatcher>,
    claims: Claims,
    webhook: Option<Webhook>,
    metrics: Arc<Metrics>,
    config: EffectsConfig,
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
        Self { store, dispatcher, claims, webhook, metrics, config }
    }

    /// Ticks until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let every = Duration::from_millis(self.config.tick_ms.max(10));
        loop {
            tokio::select! {
                // What is under way becomes due again by its lease.
                () = stop.cancelled() => return,
                ticked = self.tick() => match ticked {
                    // There may be more: what was taken stood in the way of what is behind it.
                    Ok(taken) if taken > 0 => continue,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "delivering what is owed");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(every) => {}
            }
        }
    }

    /// Delivers what is due; how many were taken.
    ///
    /// # Errors
    /// The database; the next tick is the retry.
    pub async fn tick(&self) -> Result<usize, StoreError> {
        let due = self.store.due_effects(TAKEN_AT_ONCE, self.config.lease_ms).await?;
        let taken = due.len();
        // Workspaces side by side, the effects of each one after the other.
        let mut by_workspace: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
        for effect in &due {
            by_workspace.entry(&effect.workspace_id).or_default().push(effect);
        }
        let each = by_workspace.into_values().map(|effects| async move {
            for effect in effects {
                self.deliver(effect).await?;
            }
            Ok::<(), StoreError>(())
        });
        for delivered in futures::future::join_all(each).await {
            delivered?;
        }
        if let Ok((due, parked)) = self.store.effect_counts().await {
            self.metrics.effects_waiting(due, parked);
        }
        Ok(taken)
    }

    async fn deliver(&self, effect: &Effect) -> Result<(), StoreError> {
        let (why, hopeless) = match self.once(effect).await? {
            Delivered::Done => {
                self.metrics.effect_delivered(&effect.kind, "done");
                return self.store.effect_done(&effect.id, None).await;
            }
            Delivered::Noted(note) => {
                self.metrics.effect_delivered(&effect.kind, "done");
                return self.store.effect_done(&effect.id, Some(&note)).await;
            }
            Delivered::Failed(why) => (why, false),
            Delivered::Hopeless(why) => (why, true),
        };
        let parked = hopeless || effect.attempts >= self.config.attempts;
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
        self.store.effect_failed(&effect.id, self.pause(effect.attempts), &why, parked).await
    }

    fn pause(&self, attempts: u32) -> u64 {
        let doubled = self.config.backoff_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.config.backoff_max_ms)
    }
}
