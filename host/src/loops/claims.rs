//! Claims whose lease lapsed: their host is gone, and this one takes them over.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::driver::{Tally, Tick};
use super::trust::Trust;
use crate::claims::Claims;
use crate::store::{Store, StoreError};

pub(super) struct TakeOver {
    pub(super) store: Store,
    pub(super) claims: Claims,
    pub(super) trust: Arc<Trust>,
}

impl Tick for TakeOver {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn every(&self) -> Duration {
        self.claims.tick_every()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            // Set ahead, it would end the leases of hosts that live.
            if let Err(distrust) = self.trust.clock(self.store.now().await?) {
                tally.skip(distrust.0);
                return Ok(tally);
            }
            tally.looked = u64::try_from(self.claims.take_over().await?).unwrap_or(u64::MAX);
            Ok(tally)
        })
    }
}
