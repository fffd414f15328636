//! Rows that are down and stay so. An action that had to wait for its cooldown, or
//! that did not help, is asked for again here: nothing else ever happens to a row
//! that says nothing. Its status is not the matter; the recovery policies are asked.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Batch, Sweeper, tolerated};
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
                let advanced = self.sweeper.advance.from(due.facts, &cause, None).await;
                match tolerated(advanced, &mut tally)? {
                    None => {}
                    Some(Advanced::Moved { .. }) => tally.flipped += 1,
                    Some(Advanced::NoEdge(_) | Advanced::Held { .. }) => tally.skip("asked"),
                    Some(Advanced::Claimed { .. }) => tally.skip("claimed"),
                    Some(_) => tally.skip("outran"),
                }
            }
            // So many a minute: what is down has been so for a while, and starts are dear.
            tally.deferred = u64::from(full);
            Ok(tally)
        })
    }
}
