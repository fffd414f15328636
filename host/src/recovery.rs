//! What a step sets in motion: recovery policies ask, the host looks whether
//! the workspace is entitled to it, cooldown policies rule.
//!
//! It happens in every step, moved or held, whatever became of the guard: a gate
//! that returned before its cure was asked for would stay shut for ever. A
//! policy that fails here sets nothing in motion, and a cooldown that fails
//! means "not now".

use std::collections::BTreeSet;

use crate::facts::{
    Action, Asked, Cooldown, CooldownAnswer, CooldownQuestion, Decision, Fate, Outcome, Plan, PlanAnswer,
    Reason, RecoveryQuestion, Ruling, Timestamp, Workspace,
};
use crate::machine::{CauseKind, EXTERNAL, Status};
use crate::policy::Revision;

/// How long an action waits that no cooldown policy rules on, in milliseconds.
pub const DEFAULT_COOLDOWN_MS: u64 = 300_000;

/// A row that was online this long, in milliseconds, is healthy: what fired before it does not count.
pub const HEALTHY_AFTER_MS: u64 = 600_000;

/// Actions that one step may set in motion; what is asked for beyond is left out.
pub const MAX_ACTIONS: usize = 8;

/// The code of an action that another step has just set in motion.
pub const FIRED_MEANWHILE: &str = "fired-meanwhile";

/// When an action last fired for a workspace, and how often since it was healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    pub last_at: Option<Timestamp>,
    pub times: u32,
}

/// Whether any policy of this revision is to be asked what this sets in motion.
pub fn is_asked(revision: &Revision, decision: &Decision) -> bool {
    let question = &decision.question;
    revision.bindings.iter().any(|binding| binding.module.recovers(&question.workspace, &question.cause))
}

/// Asks the recovery policies; what they want, each action once, before anybody has ruled on it.
pub async fn plan(revision: &Revision, decision: &mut Decision) {
    let question = &decision.question;
    let asked = RecoveryQuestion {
        now: question.now,
        workspace: &question.workspace,
        cause: &question.cause,
        outcome: &decision.outcome,
    };
    decision.recovery = revision.plan(&asked).await;
    decision.actions = wanted(&decision.recovery);
}

fn wanted(plans: &[Plan]) -> Vec<Asked> {
    let mut seen = BTreeSet::new();
    let triggers = plans.iter().flat_map(|plan| match &plan.answer {
        PlanAnswer::Triggers(triggers) => triggers.iter().map(|t| (plan, t)).collect(),
        PlanAnswer::Error(_) => Vec::new(),
    });
    triggers
        .filter(|(_, trigger)| seen.insert(trigger.action.key()))
        .take(MAX_ACTIONS)
        .map(|(plan, trigger)| Asked {
            action: trigger.action.clone(),
            reason: trigger.reason.clone(),
            policy: plan.by.policy.clone(),
            last_fired_at: None,
            fired: 0,
            cooldowns: Vec::new(),
            fate: Fate::Owed,
        })
        .collect()
}

/// Has the cooldown policies rule on one action, and settles its fate.
pub async fn rule(revision: &Revision, decision: &Decision, asked: &mut Asked, fired: Fired) {
    let (workspace, now) = (&decision.question.workspace, decision.question.now);
    asked.last_fired_at = fired.last_at;
    asked.fired = if is_healthy(workspace, now) { 0 } else { fired.times };
    if let Err(reason) = entitled(&asked.action, decision) {
        asked.fate = Fate::NotEntitled { reason };
        return;
    }
    let question = CooldownQuestion {
        now,
        workspace,
        cause: &decision.question.cause,
        action: &asked.action,
        last_fired_at: asked.last_fired_at,
        fired: asked.fired,
    };
    asked.cooldowns = revision.rule(&question).await;
    asked.fate = fate(&asked.action, &asked.cooldowns, asked.last_fired_at, now);
}

/// As it was judged: a row that has just gone down was healthy until now.
fn is_healthy(workspace: &Workspace, now: Timestamp) -> bool {
    workspace.status == Status::Online && now.saturating_sub(workspace.status_since) >= HEALTHY_AFTER_MS
}

/// The longest wait wins; an error is a wait without an end; nobody's word is the host's own.
/// A cooldown policy says "ready" of what is not its business, so its word on a
/// restart is none on a notice: those that no shipped policy rules on keep the host's window.
pub fn fate(action: &Action, rulings: &[Cooldown], last_fired_at: Option<Timestamp>, now: Timestamp) -> Fate {
    let mut longest: Option<(Timestamp, Reason)> = None;
    for ruling in rulings {
        match &ruling.answer {
            CooldownAnswer::Error(fault) => {
                let reason = Reason::new("cooldown-error", format!("{}: {}", ruling.by.policy, fault.detail));
                return Fate::NotNow { reason };
            }
            CooldownAnswer::Ruling(Ruling::WaitUntil { until, reason }) if *until > now => {
                if longest.as_ref().is_none_or(|(longest, _)| until > longest) {
                    longest = Some((*until, reason.clone()));
                }
            }
            CooldownAnswer::Ruling(_) => {}
        }
    }
    let hosts_own = matches!(action, Action::StopInstance | Action::Notify(_));
    if rulings.is_empty() || (hosts_own && longest.is_none()) {
        let until = last_fired_at.map_or(0, |last| last.saturating_add(DEFAULT_COOLDOWN_MS));
        if until > now {
            let detail = "no cooldown policy rules on it; the host's own window";
            return Fate::Waits { until, reason: Reason::new("host-default", detail) };
        }
    }
    match longest {
        Some((until, reason)) => Fate::Waits { until, reason },
        None => Fate::Owed,
    }
}

/// Whether the host does this for this workspace, as the step leaves it.
///
/// # Errors
/// Why not.
pub fn entitled(action: &Action, decision: &Decision) -> Result<(), Reason> {
    let workspace = &decision.question.workspace;
    let after = match &decision.outcome {
        Outcome::Moved { to, .. } => *to,
        Outcome::Held { .. } => workspace.status,
    };
    let no = |code: &str, detail: &str| Err(Reason::new(code, detail));
    match action {
        Action::Notify(_) => return Ok(()),
        Action::StopInstance => {
            let down = [Status::Paused, Status::Hibernated, Status::Removed];
            return match (&workspace.provider, down.contains(&after)) {
                (None, _) => no("no-provider", "no provider has a box of it"),
                (_, false) => no("may-run", "a box of a workspace in this status may run"),
                (Some(_), true) => Ok(()),
            };
        }
        Action::ReconcilePlugins | Action::Restart => {}
    }
    if workspace.runtime == EXTERNAL {
        return no("runtime-external", "the platform does not own this box");
    }
    if workspace.provider.is_none() {
        return no("no-provider", "no provider has a box of it");
    }
    if workspace.ancestor_paused {
        return no("ancestor-paused", "an ancestor is paused");
    }
    let fits = match action {
        Action::Restart => after.edge(CauseKind::Restart, &workspace.runtime).is_ok(),
        _ => !matches!(after, Status::Paused | Status::Hibernated | Status::Removed),
    };
    if fits { Ok(()) } else { no("wrong-status", "not in this status") }
}

#[cfg(test)]
mod tests;
