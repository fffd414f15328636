//! The path as the loops take it: many rows are judged before any of them is
//! written, so that the brake is asked about all of them at once.

use super::{Advance, Advanced, Fits, Judged, With};
use crate::facts::{Cause, Outcome, Reason};
use crate::machine::{CauseKind, Status};
use crate::store::{Commit, NewClaim, Snapshot, Still, StoreError};

/// What a sweep's look at one row came to.
#[derive(Debug)]
pub enum Look {
    /// Policies were asked; nothing is written yet.
    Found(Box<Found>),
    /// A claim is open on it: it is left alone.
    Claimed,
    /// The table has no edge for this cause from its status.
    NoEdge,
}

/// A row as a sweep judged it. Dropped, it was never looked at.
pub struct Found {
    judged: Judged,
    cause: CauseKind,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("id", &self.id()).field("moves", &self.moves()).finish()
    }
}

/// What became of a judged row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    Moved {
        to: Status,
        reason: Reason,
    },
    /// The policies let it be.
    Held,
    /// It is no longer as it was judged. Nothing was written.
    Outran,
    /// The brake let nothing more go down. Nothing was written.
    Braked,
}

impl Found {
    pub fn id(&self) -> &str {
        &self.judged.decision.question.workspace.id
    }

    pub fn provider(&self) -> Option<&str> {
        self.judged.decision.question.workspace.provider.as_deref()
    }

    /// Whether it was alive when it was judged.
    pub fn lives(&self) -> bool {
        self.judged.decision.question.workspace.status.lives()
    }

    /// Where it would go, and why.
    pub fn moves(&self) -> Option<(Status, &Reason)> {
        match &self.judged.decision.outcome {
            Outcome::Moved { to, reason, .. } => Some((*to, reason)),
            Outcome::Held { .. } => None,
        }
    }
}

impl Advance {
    /// Judges a row that a sweep has taken. Recovery is asked as in every step.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written.
    pub async fn look(&self, mut facts: Snapshot, cause: &Cause, still: &Still) -> Result<Look, StoreError> {
        if facts.claim_id.take().is_some() {
            return Ok(Look::Claimed);
        }
        let Ok(edge) = facts.workspace.status.edge(cause.kind(), &facts.workspace.runtime) else {
            return Ok(Look::NoEdge);
        };
        let with = With { still: Some(still), ..With::default() };
        let judged = self.judge(facts, &edge, cause, with).await?;
        Ok(Look::Found(Box::new(Found { judged, cause: cause.kind() })))
    }

    /// Writes what [`Advance::look`] judged, once: where the row is no longer so, the next tick looks anew.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn settle(&self, found: Found) -> Result<Settled, StoreError> {
        if let Some(between) = &self.between {
            between.judged(found.id()).await;
        }
        let moves = found.moves().map(|(to, reason)| (to, reason.clone()));
        if found.judged.step.is_empty() {
            return Ok(Settled::Held);
        }
        Ok(match self.write(std::slice::from_ref(&found.judged.step)).await? {
            Commit::Done => moves.map_or(Settled::Held, |(to, reason)| Settled::Moved { to, reason }),
            Commit::Braked => Settled::Braked,
            Commit::Outran | Commit::TokenTaken | Commit::TokenDead => {
                self.metrics.outran(found.cause);
                Settled::Outran
            }
        })
    }

    /// Judges a row that a sweep has taken, if a claim `fits` it, and where it may move opens `claim` with the transition.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn claim_found(
        &self,
        facts: Snapshot,
        cause: &Cause,
        claim: &NewClaim,
        still: &Still,
        fits: Fits<'_>,
    ) -> Result<Advanced, StoreError> {
        let with = With { claim: Some(claim), still: Some(still), fits: Some(fits), ..With::default() };
        self.step(facts, cause, with).await
    }
}
