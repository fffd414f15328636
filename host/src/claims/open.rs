//! The value that stands for an open claim. It must be spent: by ending the
//! claim, by finding that it is another's, or by giving it up to the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Host;
use crate::store::{ClaimState, Ended, Ending, Hold, StoreError};

/// How often an ending is tried that the database did not answer.
const TRIES: u32 = 10;

/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(300);

/// An open claim in this host's hand.
#[must_use = "an open claim is ended, lost or given up"]
pub(super) struct OpenClaim {
    hold: Hold,
    host: Arc<Host>,
    spent: bool,
}

impl OpenClaim {
    pub(super) fn new(host: Arc<Host>, hold: Hold) -> Self {
        Self { hold, host, spent: false }
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Writes the end. Where the answer is lost, the database is asked what it
    /// holds before anything is done again. None: how it ended is not known here.
    pub(super) async fn end(mut self, ending: &Ending<'_>) -> Option<Ended> {
        self.spent = true;
        for _ in 0..TRIES {
            match self.host.advance.end_claim(&self.hold, ending).await {
                Ok(ended) => return Some(ended),
                Err(error) => self.warn(&error, "whether the claim has ended is not known; asking"),
            }
            sleep(PAUSE).await;
            match self.host.store.claim(&self.hold.claim_id).await {
                Ok(Some(claim)) if claim.state == ClaimState::Open => {}
                Ok(_) => return None,
                Err(error) => self.warn(&error, "asking whether the claim has ended"),
            }
        }
        // Its lease lapses, and a host that reaches the database goes on from the journal.
        None
    }

    /// It is another's now, or superseded. Nothing is written.
    pub(super) fn lost(mut self) {
        self.spent = true;
    }

    /// Leaves it to the lease: whoever takes it over fences first.
    pub(super) fn give_up(mut self) {
        self.spent = true;
    }

    /// Leaves it to others at once.
    pub(super) async fn release(mut self) {
        self.spent = true;
        if let Err(error) = self.host.store.renew_claim(&self.hold, 0).await {
            self.warn(&error, "giving a claim up; its lease will lapse");
        }
    }

    fn warn(&self, error: &StoreError, what: &str) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, claim.id = self.hold.claim_id, claim.epoch = self.hold.epoch, "{what}");
    }
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        if !self.spent {
            self.host.metrics.claims_unspent.inc();
            tracing::error!(claim.id = self.hold.claim_id, "an open claim was dropped; its lease will lapse");
        }
    }
}
