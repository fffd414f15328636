//! The set of modules that decides, and how it is asked.

use std::sync::Arc;

use super::{Module, PolicyError};
use crate::facts::{
    Answer, Bound, Cooldown, CooldownAnswer, CooldownQuestion, Fault, Plan, PlanAnswer, Question,
    RecoveryQuestion, Settings, Vote,
};

/// A module at its place in a revision.
#[derive(Clone)]
pub struct Binding {
    pub module: Arc<Module>,
    /// Who answers here, with all its settings: the same in each of its answers.
    pub by: Arc<Bound>,
}

impl Binding {
    /// `settings`: all of the module's, as [`Module::settle`] gives them.
    pub fn new(module: Arc<Module>, settings: Settings) -> Self {
        let by = Arc::new(Bound {
            policy: module.manifest().name.clone(),
            version: module.manifest().version.clone(),
            digest: module.digest().to_owned(),
            settings,
        });
        Self { module, by }
    }
}

/// An immutable set of bindings that decides. A decision uses one from
/// beginning to end.
#[derive(Clone)]
pub struct Revision {
    pub number: i64,
    pub bindings: Vec<Binding>,
}

impl Revision {
    /// Asks every interested guard, in order. A failed one votes its error.
    pub async fn ask(&self, question: &Question) -> Vec<Vote> {
        let mut votes = Vec::with_capacity(self.bindings.len());
        for Binding { module, by } in &self.bindings {
            if !module.is_interested(question) {
                continue;
            }
            let answer = match module.decide(question, &by.settings).await {
                Ok(verdicts) => Answer::Verdicts(verdicts),
                Err(error) => Answer::Error(Fault::from(&error)),
            };
            votes.push(Vote { by: by.clone(), answer });
        }
        votes
    }

    /// Asks every interested recovery policy, in order.
    pub async fn plan(&self, question: &RecoveryQuestion<'_>) -> Vec<Plan> {
        let mut plans = Vec::new();
        for Binding { module, by } in &self.bindings {
            if !module.recovers(question.workspace, question.cause) {
                continue;
            }
            let answer = match module.plan(question, &by.settings).await {
                Ok(triggers) => PlanAnswer::Triggers(triggers),
                Err(error) => PlanAnswer::Error(Fault::from(&error)),
            };
            plans.push(Plan { by: by.clone(), answer });
        }
        plans
    }

    /// Asks every interested cooldown policy about one action, in order.
    pub async fn rule(&self, question: &CooldownQuestion<'_>) -> Vec<Cooldown> {
        let mut rulings = Vec::new();
        for Binding { module, by } in &self.bindings {
            if !module.cools_down(question.workspace, question.cause) {
                continue;
            }
            let answer = match module.rule(question, &by.settings).await {
                Ok(ruling) => CooldownAnswer::Ruling(ruling),
                Err(error) => CooldownAnswer::Error(Fault::from(&error)),
            };
            rulings.push(Cooldown { by: by.clone(), answer });
        }
        rulings
    }
}

impl From<&PolicyError> for Fault {
    fn from(error: &PolicyError) -> Self {
        Self { code: error.code().to_owned(), detail: error.to_string() }
    }
}
