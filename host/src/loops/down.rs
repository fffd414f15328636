//! Rows that are down and stay so. An action that had to wait for its cooldown, or
//! that did not help, is asked for again here: nothing else ever happens to a row
//! that says nothing. Its status is not the matter; the recovery policies are asked.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Batch, Sweeper};
use crate::advance::Advanced;
use crate::facts::Cause;
use crate::store::{StoreError, Sweep};

pub(super) struct Down {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) config: LoopsConfig,
}

impl Tick for Down {
    fn name(&self) -> &'static str {
        "down"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.down_ms)
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let every = self.config.down_ms;
            let Batch { due, full } = self.sweeper.take(Sweep::Down, every, every, &mut tally).await?;
            for due in due {
                let cause = Cause::Silence { for_: due.facts.now - due.since };
                match self.sweeper.advance.from(due.facts, &cause, None).await? {
                    Advanced::Moved { .. } => tally.flipped += 1,
                    Advanced::NoEdge(_) | Advanced::Held { .. } => tally.skip("asked"),
                    Advanced::Claimed { .. } => tally.skip("claimed"),
                    _ => tally.skip("outran"),
                }
            }
            tally.more = full;
            Ok(tally)
        })
    }
}
