//! Rows that have been provisioning for too long, as the policy says by runtime.
//! A heartbeat that comes later all the same brings the row online.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Evidence, Sweeper};
use crate::facts::Cause;
use crate::store::{StoreError, Sweep};

pub(super) struct Provisioning {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) config: LoopsConfig,
}

impl Tick for Provisioning {
    fn name(&self) -> &'static str {
        "provisioning"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.provisioning_ms)
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let (after, every) = (self.config.provisioning_after_ms, self.config.provisioning_ms);
            let batch = self.sweeper.take(Sweep::Provisioning, after, every, &mut tally).await?;
            let evidence =
                Evidence::of_all(batch, |due| Cause::ProvisioningFor { for_: due.facts.now - due.since });
            self.sweeper.flip(Sweep::Provisioning, after, evidence, &mut tally).await?;
            Ok(tally)
        })
    }
}
