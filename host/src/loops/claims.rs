//! Claims whose lease lapsed: their host is gone, and this one takes them over.

use std::time::Duration;

use futures::future::BoxFuture;

use super::driver::{Tally, Tick};
use crate::claims::Claims;
use crate::store::StoreError;

pub(super) struct TakeOver(pub(super) Claims);

impl Tick for TakeOver {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn every(&self) -> Duration {
        self.0.tick_every()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let taken = self.0.take_over().await?;
            Ok(Tally { looked: u64::try_from(taken).unwrap_or(u64::MAX), ..Tally::default() })
        })
    }
}
