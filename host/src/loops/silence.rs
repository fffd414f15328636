//! Rows that nothing was heard of. How long is too long is for the policy to
//! say, by runtime; until then it is asked again at every tick.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Evidence, Sweeper};
use crate::facts::Cause;
use crate::store::{StoreError, Sweep};

pub(super) struct Silence {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) config: LoopsConfig,
}

impl Tick for Silence {
    fn name(&self) -> &'static str {
        "silence"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.silence_ms)
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let (after, every) = (self.config.silent_after_ms, self.config.silence_ms);
            let batch = self.sweeper.take(Sweep::Silence, after, every, &mut tally).await?;
            let evidence = Evidence::of_all(batch, |due| Cause::Silence { for_: due.facts.now - due.since });
            self.sweeper.flip(Sweep::Silence, after, evidence, &mut tally).await?;
            Ok(tally)
        })
    }
}
