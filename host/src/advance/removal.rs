//! The path as a removal takes it: a workspace, and all below it, in one
//! transaction; nobody is taken along unasked.

use super::{ATTEMPTS, Advance, With};
use crate::facts::{Cause, Command, Decision, Outcome};
use crate::store::{Commit, StoreError};

/// Rows that one removal may take along.
pub const MAX_SUBTREE: usize = 2_000;

/// What became of a removal.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// The workspace and its descendants are removed: the decision on each, its own first.
    Done(Vec<Decision>),
    /// A policy denied it for the workspace or one of its descendants; nothing changed.
    Denied(Box<Decision>),
    /// It is removed already.
    Already,
    Unknown,
    Outran,
    /// So many hang below it, and nobody said that they are to go as well. Nothing changed.
    HasDescendants(usize),
    /// More than [`MAX_SUBTREE`] rows hang below it.
    TooMany(usize),
}

impl Advance {
    /// Removes a workspace and, with `cascade`, all its descendants, each judged, in one
    /// transaction. One that has descendants is not removed without it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn remove(&self, id: &str, command: &Command, cascade: bool) -> Result<Removal, StoreError> {
        let cause = Cause::Commanded(command.clone());
        for _ in 0..ATTEMPTS {
            let rows = self.store.subtree(id).await?;
            if rows.is_empty() {
                let gone = self.store.snapshot(id).await?;
                return Ok(if gone.is_some() { Removal::Already } else { Removal::Unknown });
            }
            if rows.len() > 1 && !cascade {
                return Ok(Removal::HasDescendants(rows.len() - 1));
            }
            if rows.len() > MAX_SUBTREE {
                return Ok(Removal::TooMany(rows.len()));
            }
            let mut steps = Vec::with_capacity(rows.len());
            let mut decisions = Vec::with_capacity(rows.len());
            for facts in rows {
                let Ok(edge) = facts.workspace.status.edge(cause.kind(), &facts.workspace.runtime) else {
                    continue;
                };
                let judged = self.judge(facts, &edge, &cause, With::default()).await?;
                if !matches!(judged.decision.outcome, Outcome::Moved { .. }) {
                    self.write(std::slice::from_ref(&judged.step)).await?;
                    return Ok(Removal::Denied(Box::new(judged.decision)));
                }
                steps.push(judged.step);
                decisions.push(judged.decision);
            }
            if let Some(between) = &self.between {
                between.judged(id).await;
            }
            match self.write(&steps).await? {
                Commit::Done => return Ok(Removal::Done(decisions)),
                Commit::Outran | Commit::TokenTaken | Commit::TokenDead | Commit::Braked => {
                    self.metrics.outran(cause.kind());
                }
            }
        }
        Ok(Removal::Outran)
    }
}
