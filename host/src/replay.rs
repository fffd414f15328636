//! Recorded decisions, asked again. A policy is a pure function, so the same
//! question to the same modules gets the same answer; where it does not, a rule
//! changed, and this says which case, which candidate, what then and what now.
//!
//! The recorded form is [`Decision`], one per line of JSON.

use std::collections::BTreeMap;
use std::fmt;

use crate::advance::decide;
use crate::facts::{Answer, Decision, Fate, Outcome, PlanAnswer, Reason, Verdict};
use crate::machine::Status;
use crate::metrics::Metrics;
use crate::policy::Revision;
use crate::recovery::{self, Fired};

/// How closely then and now are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closeness {
    /// Verdicts and reason codes; the words for people may differ.
    Codes,
    /// Everything but the decision's id.
    Exact,
}

/// One thing that a policy, or all of them together, say differently now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The decision's id.
    pub case: String,
    pub workspace_id: String,
    pub cause: String,
    pub from: Status,
    /// None: the outcome as a whole.
    pub candidate: Option<Status>,
    /// None: the outcome as a whole.
    pub policy: Option<String>,
    pub then: String,
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}", self.case, self.from, self.cause)?;
        if let Some(candidate) = self.candidate {
            write!(f, " → {candidate}")?;
        }
        match &self.policy {
            Some(policy) => write!(f, " [{policy}]")?,
            None => write!(f, " outcome")?,
        }
        write!(f, ": then {}, now {}", self.then, self.now)
    }
}

/// A line that is no recorded decision.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("line {line}: {why}")]
    Line { line: usize, why: String },
    #[error("line {line}: format {found:?} is not {}", Decision::FORMAT)]
    Format { line: usize, found: String },
}

/// Reads one line of a recording; `line` counts from 1.
///
/// # Errors
/// [`RecordError`] with the line and what is wrong with it.
pub fn read_line(line: usize, text: &str) -> Result<Decision, RecordError> {
    let decision: Decision =
        serde_json::from_str(text).map_err(|e| RecordError::Line { line, why: e.to_string() })?;
    if decision.format == Decision::FORMAT {
        Ok(decision)
    } else {
        Err(RecordError::Format { line, found: decision.format })
    }
}

/// Asks one recorded question of `revision`.
pub async fn ask_again(revision: &Revision, then: &Decision) -> Decision {
    let mut now = decide(revision, then.row_version, then.question.clone(), &Metrics::default()).await;
    now.id.clone_from(&then.id);
    if recovery::is_asked(revision, &now) {
        recovery::plan(revision, &mut now).await;
        let mut actions = std::mem::take(&mut now.actions);
        for asked in &mut actions {
            let stamp = then.actions.iter().find(|recorded| recorded.action == asked.action);
            let stamp = stamp.map_or(Fired::default(), |recorded| Fired {
                last_at: recorded.last_fired_at,
                times: recorded.fired,
            });
            recovery::rule(revision, &now, asked, stamp).await;
        }
        now.actions = actions;
    }
    now
}

/// What `now` says otherwise than `then`, candidate by candidate.
pub fn differences(then: &Decision, now: &Decision, closeness: Closeness) -> Vec<Difference> {
    let difference = |candidate, policy, then_said, now_says| Difference {
        case: then.id.clone(),
        workspace_id: then.question.workspace.id.clone(),
        cause: then.question.cause.kind().to_string(),
        from: then.question.workspace.status,
        candidate,
        policy,
        then: then_said,
        now: now_says,
    };
    let mut found = Vec::new();
    let (said, says) = (by_policy(then, closeness), by_policy(now, closeness));
    let policies: std::collections::BTreeSet<_> = said.keys().chain(says.keys()).collect();
    let faults = faults(now);
    for policy in policies {
        for (i, candidate) in then.question.candidates.iter().enumerate() {
            let word = |words: &BTreeMap<String, Vec<String>>| {
                words.get(policy).and_then(|w| w.get(i).cloned()).unwrap_or_else(|| "not asked".to_owned())
            };
            let (before, after) = (word(&said), word(&says));
            if before != after {
                let after = after + &faults.get(policy.as_str()).cloned().unwrap_or_default();
                found.push(difference(Some(*candidate), Some(policy.clone()), before, after));
            }
        }
    }
    for (policy, before, after) in unlike(&triggers(then, closeness), &triggers(now, closeness)) {
        let after = after + &faults.get(policy.as_str()).cloned().unwrap_or_default();
        found.push(difference(None, Some(policy), before, after));
    }
    for (action, before, after) in unlike(&fates(then, closeness), &fates(now, closeness)) {
        found.push(difference(None, Some(action), before, after));
    }
    let (before, after) = (outcome_words(then, closeness), outcome_words(now, closeness));
    if before != after {
        found.push(difference(None, None, before, after));
    }
    found
}

/// What stands beside `error CODE`, by policy: it is shown, and not compared.
fn faults(decision: &Decision) -> BTreeMap<&str, String> {
    let guards = decision.votes.iter().filter_map(|vote| match &vote.answer {
        Answer::Error(fault) => Some((&vote.by, fault)),
        _ => None,
    });
    let recoveries = decision.recovery.iter().filter_map(|plan| match &plan.answer {
        PlanAnswer::Error(fault) => Some((&plan.by, fault)),
        PlanAnswer::Triggers(_) => None,
    });
    guards.chain(recoveries).map(|(by, fault)| (by.policy.as_str(), format!(": {}", fault.detail))).collect()
}

/// What stands otherwise in the one than in the other: name, then, now.
fn unlike(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
    let names: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let word = |words: &BTreeMap<String, String>, name: &String| {
        words.get(name).cloned().unwrap_or_else(|| "nothing".to_owned())
    };
    names
        .into_iter()
        .map(|name| (name.clone(), word(then, name), word(now, name)))
        .filter(|(_, then, now)| then != now)
        .collect()
}

/// What each recovery policy set in motion.
fn triggers(decision: &Decision, closeness: Closeness) -> BTreeMap<String, String> {
    let words = |answer: &PlanAnswer| match answer {
        PlanAnswer::Triggers(triggers) if triggers.is_empty() => "nothing".to_owned(),
        PlanAnswer::Triggers(triggers) => {
            let each = triggers.iter().map(|t| format!("{} ({})", t.action.key(), why(&t.reason, closeness)));
            each.collect::<Vec<_>>().join(", ")
        }
        PlanAnswer::Error(fault) => format!("error {}", fault.code),
    };
    decision.recovery.iter().map(|plan| (plan.by.policy.clone(), words(&plan.answer))).collect()
}

/// What became of each action. A loss against another step is no word of a policy: it would be owed.
fn fates(decision: &Decision, closeness: Closeness) -> BTreeMap<String, String> {
    let words = |fate: &Fate| match fate {
        Fate::Owed => "owed".to_owned(),
        Fate::NotNow { reason } if reason.code == recovery::FIRED_MEANWHILE => "owed".to_owned(),
        Fate::Waits { until, reason } => format!("waits until {until} ({})", why(reason, closeness)),
        Fate::NotNow { reason } => format!("not now ({})", why(reason, closeness)),
        Fate::NotEntitled { reason } => format!("not entitled ({})", why(reason, closeness)),
    };
    decision
        .actions
        .iter()
        .map(|asked| (format!("action {}", asked.action.key()), words(&asked.fate)))
        .collect()
}

fn why(reason: &Reason, closeness: Closeness) -> String {
    match (closeness, &reason.detail) {
        (Closeness::Exact, Some(detail)) => format!("{}: {detail}", reason.code),
        _ => reason.code.clone(),
    }
}

/// Each policy's word on each candidate.
fn by_policy(decision: &Decision, closeness: Closeness) -> BTreeMap<String, Vec<String>> {
    let words = |answer: &Answer| match answer {
        Answer::Verdicts(verdicts) => verdicts.iter().map(|v| verdict_words(v, closeness)).collect(),
        Answer::Error(fault) => vec![format!("error {}", fault.code); decision.question.candidates.len()],
    };
    decision.votes.iter().map(|vote| (vote.by.policy.clone(), words(&vote.answer))).collect()
}

fn verdict_words(verdict: &Verdict, closeness: Closeness) -> String {
    let (word, reason) = match verdict {
        Verdict::Allow(reason) => ("allow", reason),
        Verdict::Deny(reason) => ("deny", reason),
        Verdict::Abstain => return "abstain".to_owned(),
    };
    match (closeness, &reason.detail) {
        (Closeness::Exact, Some(detail)) => format!("{word} ({}: {detail})", reason.code),
        _ => format!("{word} ({})", reason.code),
    }
}

fn outcome_words(decision: &Decision, closeness: Closeness) -> String {
    match &decision.outcome {
        Outcome::Moved { to, reason, policy } => {
            let said = verdict_words(&Verdict::Allow(reason.clone()), closeness);
            format!("moved to {to} by {policy}: {said}")
        }
        Outcome::Held { denials } if denials.is_empty() => "unchanged".to_owned(),
        Outcome::Held { denials } => {
            let each = denials.iter().map(|d| format!("{} by {} ({})", d.candidate, d.policy, d.reason.code));
            format!("denied {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}
