//! Rows that had no task for their own limit. They are put to sleep by a claim,
//! like anything else that touches a box.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::sweep::{Batch, Sweeper, still, tolerated};
use crate::claims::{Claims, CommandError, Commanded};
use crate::store::{StoreError, Sweep};

pub(super) struct Idle {
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) claims: Claims,
    pub(super) config: LoopsConfig,
}

impl Tick for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.idle_ms)
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            let Batch { due, full } =
                self.sweeper.take(Sweep::Idle, 0, self.config.idle_ms, &mut tally).await?;
            if due.is_empty() {
                return Ok(tally);
            }
            let held = self.sweeper.held().await?;
            for due in due {
                let heard = due.facts.workspace.last_heartbeat_at.unwrap_or(0);
                // That it had no task is what it said last; who says nothing may have one.
                if due.facts.now - heard > self.config.silent_after_ms {
                    tally.skip("not-heard");
                    continue;
                }
                if held.includes(due.facts.workspace.provider.as_deref()) {
                    tally.skip("braked");
                    continue;
                }
                let (still, idle_ms) = (still(&due.facts, due.taken_at), due.facts.now - due.since);
                match self.claims.hibernate_idle(due.facts, idle_ms, still).await {
                    Ok(Commanded::Claimed(_)) => tally.flipped += 1,
                    Ok(Commanded::Denied { .. }) => tally.skip("held"),
                    Ok(Commanded::Busy { .. }) => tally.skip("claimed"),
                    Ok(Commanded::NoEdge(_)) => tally.skip("no-edge"),
                    Ok(Commanded::NoProvider { .. }) => tally.skip("unknown-provider"),
                    Ok(Commanded::Outran) => tally.skip("outran"),
                    Ok(Commanded::Unknown) => tally.skip("gone"),
                    Err(CommandError::Store(error)) => {
                        tolerated::<()>(Err(error), &mut tally)?;
                    }
                    Err(_) => tally.skip("stopping"),
                }
            }
            tally.more = full;
            Ok(tally)
        })
    }
}
