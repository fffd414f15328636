//! The pulse: this host says that it is alive, and finds out whether anybody
//! could have been heard since the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::brake::BrakeConfig;
use super::driver::{Tally, Tick};
use super::trust::Trust;
use crate::metrics::Metrics;
use crate::store::{BrakeState, HostName, Own, Pulse, Store, StoreError};

/// A database that is away is looked for this often.
const MOST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Pulses {
    pub(super) store: Store,
    pub(super) host: HostName,
    pub(super) trust: Arc<Trust>,
    pub(super) config: BrakeConfig,
    pub(super) metrics: Arc<Metrics>,
    /// Of this host's claims.
    pub(super) lease_ms: u64,
    /// It has not pulsed yet.
    pub(super) starting: AtomicBool,
}

impl Tick for Pulses {
    fn name(&self) -> &'static str {
        "pulse"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.pulse_ms)
    }

    fn most_pause(&self) -> Duration {
        MOST_PAUSE
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let pulse = self.pulse().await.inspect_err(|_| self.trust.failed())?;
            self.trust.pulsed(&pulse);
            self.starting.store(false, Ordering::Relaxed);
            if let Some(reason) = pulse.distrust.as_ref().filter(|_| !pulse.first) {
                // The 1st, 2nd, 4th, … of each: a lost host is distrust once a second.
                if self.metrics.distrusted(&reason.code).is_power_of_two() {
                    let detail = reason.detail.as_deref().unwrap_or_default();
                    tracing::warn!(reason = reason.code, "silence counts from now on: {detail}");
                }
            }
            for (scope, state) in self.store.brake_states().await? {
                self.metrics.brake(&scope, state.as_str(), &BrakeState::ALL.map(BrakeState::as_str));
            }
            Ok(Tally::default())
        })
    }
}

impl Pulses {
    async fn pulse(&self) -> Result<Pulse, StoreError> {
        let patience = self.config.patience(self.lease_ms);
        let starting = self.starting.load(Ordering::Relaxed);
        let (begun, gap) = (Instant::now(), self.trust.gap());
        let own = |now| self.trust.own(now, gap);
        let pulse = self.store.pulse(&self.host, starting, own, &patience).await?;
        match self.trust.slow(begun) {
            Some(reason) => {
                let own = |_| Own { reason: Some(reason), ..Own::default() };
                self.store.pulse(&self.host, starting, own, &patience).await
            }
            None => Ok(pulse),
        }
    }
}
