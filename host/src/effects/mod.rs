//! The outbox's worker: what a committed step owes the world is delivered, at
//! least once, by whichever host takes it; what can't be delivered is parked
//! where operators see it.
//!
//! For now one thing is owed: the stop of a box that nobody could stop, or
//! whose workspace was removed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::provision::{Call, DispatchError, Dispatcher, Fence, ProvisioningConfig};
use crate::store::{DueEffect, OwedStop, STOP, Store, StoreError};

/// Effects that one tick takes at most.
const TAKEN_AT_ONCE: u32 = 32;

/// Under `[effects]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EffectsConfig {
    /// How often this host looks for effects that are due, in milliseconds.
    pub tick_ms: u64,
    /// How long an effect is its taker's, in milliseconds; longer than its delivery may take.
    pub lease_ms: u64,
    /// Deliveries after which an effect is parked.
    pub attempts: u32,
    /// The pause after the first delivery that failed, in milliseconds; it doubles.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for EffectsConfig {
    fn default() -> Self {
        Self { tick_ms: 1_000, lease_ms: 300_000, attempts: 12, backoff_ms: 1_000, backoff_max_ms: 300_000 }
    }
}

impl EffectsConfig {
    /// # Errors
    /// The key that is too small for anything to work, and its bound.
    pub fn check(&self, provisioning: &ProvisioningConfig) -> Result<(), String> {
        let attempts = u64::from(provisioning.stop_attempts);
        let longest = attempts * (provisioning.call_timeout_ms + provisioning.backoff_max_ms);
        if self.lease_ms < longest {
            return Err(format!(
                "effects.lease_ms is {}; one delivery may take {longest} \
                 (stop_attempts, call_timeout_ms and backoff_max_ms of [provisioning])",
                self.lease_ms
            ));
        }
        if self.attempts == 0 || self.tick_ms == 0 {
            return Err("effects.attempts and effects.tick_ms must not be 0".to_owned());
        }
        Ok(())
    }
}

/// Delivers what is owed.
pub struct Effects {
    store: Store,
    dispatcher: Arc<Dispatcher>,
    metrics: Arc<Metrics>,
    config: EffectsConfig,
}

impl Effects {
    pub fn new(
        store: Store,
        dispatcher: Arc<Dispatcher>,
        metrics: Arc<Metrics>,
        config: EffectsConfig,
    ) -> Self {
        Self { store, dispatcher, metrics, config }
    }

    /// Ticks until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let every = Duration::from_millis(self.config.tick_ms.max(10));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(every) => {}
            }
            tokio::select! {
                // What is under way becomes due again by its lease.
                () = stop.cancelled() => return,
                ticked = self.tick() => if let Err(error) = ticked {
                    tracing::error!(error = &error as &dyn std::error::Error, "delivering what is owed");
                }
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
        let delivered = due.iter().map(|effect| self.deliver(effect));
        for delivered in futures::future::join_all(delivered).await {
            delivered?;
        }
        Ok(taken)
    }

    async fn deliver(&self, effect: &DueEffect) -> Result<(), StoreError> {
        let delivered = match effect.kind.as_str() {
            STOP => self.stop(effect).await?,
            other => Err(format!("no effect is of kind {other:?}")),
        };
        let Err(why) = delivered else {
            self.metrics.effects_done.inc();
            return self.store.effect_done(&effect.id).await;
        };
        let parked = effect.attempts >= self.config.attempts;
        if parked {
            self.metrics.effects_parked.inc();
            tracing::error!(
                effect.id = effect.id,
                workspace.id = effect.workspace_id,
                "an owed {} is given up on after {} deliveries: {why}",
                effect.kind,
                effect.attempts
            );
        }
        self.store.effect_failed(&effect.id, self.pause(effect.attempts), &why, parked).await
    }

    /// The inner error says why it is still owed.
    async fn stop(&self, effect: &DueEffect) -> Result<Result<(), String>, StoreError> {
        let Ok(owed) = serde_json::from_str::<OwedStop>(&effect.body) else {
            return Ok(Err("its body is no owed stop".to_owned()));
        };
        // A fence of the row as it is now: of a removed one nothing newer will come.
        let Some((epoch, seq)) = self.store.next_fence(&effect.workspace_id).await? else {
            return Ok(Ok(()));
        };
        let call = Call {
            workspace_id: effect.workspace_id.clone(),
            fence: Fence { epoch, seq },
            // A refusal finishes its key too, and must not be the last word; stopping twice is stopping once.
            key: format!("{}.{}", effect.id, effect.attempts),
        };
        Ok(match self.dispatcher.stop(&owed.provider, &call, &owed.instance_id).await {
            Ok(_) => Ok(()),
            Err(DispatchError::Stale { accepted }) => Err(format!("overtaken by {accepted}; again")),
            Err(e) => Err(e.to_string()),
        })
    }

    fn pause(&self, attempts: u32) -> u64 {
        let doubled = self.config.backoff_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.config.backoff_max_ms)
    }
}
