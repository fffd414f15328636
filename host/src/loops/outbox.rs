//! Effects that are due. Woken whenever this host owes one or has delivered one.

use std::time::Duration;

use futures::future::BoxFuture;

use super::driver::{Tally, Tick};
use crate::effects::Effects;
use crate::store::StoreError;

pub(super) struct Outbox(pub(super) Effects);

impl Tick for Outbox {
    fn name(&self) -> &'static str {
        "outbox"
    }

    fn every(&self) -> Duration {
        self.0.tick_every()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let taken = self.0.tick().await?;
            Ok(Tally { looked: u64::try_from(taken).unwrap_or(u64::MAX), ..Tally::default() })
        })
    }
}
