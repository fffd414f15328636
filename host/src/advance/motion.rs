//! What a step sets in motion, whatever became of the guards; and where the
//! table has no edge, and nobody judges, all the same.

use super::{Advance, Advanced, warn_fault};
use crate::facts::{Cause, CooldownAnswer, Decision, Fate, Outcome, PlanAnswer, Question};
use crate::machine::NoSuchEdge;
use crate::policy::Revision;
use crate::recovery::{self, Fired};
use crate::store::{Owe, Snapshot, Step, StoreError};

impl Advance {
    /// Asks what the step sets in motion; what of it is owed.
    pub(super) async fn set_in_motion(
        &self,
        revision: &Revision,
        decision: &mut Decision,
    ) -> Result<Vec<Owe>, StoreError> {
        if !recovery::is_asked(revision, decision) {
            return Ok(Vec::new());
        }
        recovery::plan(revision, decision).await;
        for plan in &decision.recovery {
            if let PlanAnswer::Error(fault) = &plan.answer {
                let id = &decision.question.workspace.id;
                warn_fault(&self.metrics, &plan.by, fault, "sets nothing in motion", id);
            }
        }
        let mut owes = Vec::new();
        let mut actions = std::mem::take(&mut decision.actions);
        for asked in &mut actions {
            let key = asked.action.key();
            let fired = self.store.cooldown(&decision.question.workspace.id, &key).await?;
            let last = fired.map(|(at, _)| at);
            let fired = Fired { last_at: last, times: fired.map_or(0, |(_, times)| times) };
            recovery::rule(revision, decision, asked, fired).await;
            for ruling in &asked.cooldowns {
                if let CooldownAnswer::Error(fault) = &ruling.answer {
                    let id = &decision.question.workspace.id;
                    warn_fault(&self.metrics, &ruling.by, fault, "means \"not now\"", id);
                }
            }
            self.metrics.asked(asked);
            if asked.fate == Fate::Owed {
                owes.push(Owe {
                    action: asked.action.clone(),
                    reason: asked.reason.clone(),
                    last_fired_at: last,
                    fired: asked.fired.saturating_add(1),
                });
            }
        }
        decision.actions = actions;
        Ok(owes)
    }

    /// The table has no edge for this, and nobody judges it; but it may set something in motion.
    pub(super) async fn beside_the_table(
        &self,
        facts: Snapshot,
        cause: &Cause,
        none: NoSuchEdge,
    ) -> Result<Advanced, StoreError> {
        let revision = self.active.get();
        let question = Question {
            now: facts.now,
            workspace: facts.workspace,
            cause: cause.clone(),
            candidates: Vec::new(),
        };
        let outcome = Outcome::Held { denials: Vec::new() };
        let mut decision = Decision::new(facts.version, revision.number, question, Vec::new(), outcome);
        let owes = self.set_in_motion(&revision, &mut decision).await?;
        if !owes.is_empty() {
            let of = Step::of(&decision.question.workspace.id, facts.version);
            let step = Step { owes, decision: Some(decision), ..of };
            // Whoever moves it meanwhile judges it anew; then this is out of date.
            self.write(std::slice::from_ref(&step)).await?;
        }
        Ok(Advanced::NoEdge(none))
    }
}
