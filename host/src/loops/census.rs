//! The census: how many rows live, of each provider and in all, which is what the
//! brake's share is a share of. One of the hosts counts, the others see it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::brake::BrakeConfig;
use super::driver::{Tally, Tick};
use super::trust::Trust;
use crate::store::{Store, StoreError};

pub(super) struct Census {
    pub(super) store: Store,
    pub(super) config: BrakeConfig,
    pub(super) trust: Arc<Trust>,
}

impl Tick for Census {
    fn name(&self) -> &'static str {
        "census"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.count_ms)
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            // Set ahead, it would end the windows of what is held.
            if let Err(distrust) = self.trust.clock(self.store.now().await?) {
                tally.skip(distrust.0);
                return Ok(tally);
            }
            let counted = self.store.count_live(self.config.count_ms / 2, &self.config.limits()).await?;
            self.store.forget_hosts(self.config.forget_ms).await?;
            if !counted {
                tally.skip("counted-by-another");
            }
            Ok(tally)
        })
    }
}
