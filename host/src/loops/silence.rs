//! Rows that nothing was heard of. How long is too long is for the policy to
//! say, by runtime; until then it is asked again at every tick.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Asked, Batch, Sweeper};
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
            // Half a tick, or who is looked at late in one would not be due early in the next.
            let (after, again) = (self.config.silent_after_ms, self.config.silence_ms / 2);
            let Batch { due, full } = self.sweeper.take(Sweep::Silence, after, again, &mut tally).await?;
            let asked = due.into_iter().map(|due| {
                let for_ = due.facts.now - due.since;
                Asked::of(due.facts, Cause::Silence { for_ })
            });
            self.sweeper.flip(Sweep::Silence, after, asked.collect(), full, &mut tally).await?;
            Ok(tally)
        })
    }
}
