//! What a policy may see and what it may answer, in the host's own words.
//!
//! `wit/v1/policy.wit` says the same to a module; `policy/` translates between
//! the two by exhaustive matches. The serde forms here are the recorded ones:
//! `GET /decisions/{id}`, `sprag record` and the golden cases all show them.

mod limits;
mod recovery;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::machine::{CauseKind, Status};

pub use limits::ModuleLimits;
pub use recovery::{
    Action, Asked, Cooldown, CooldownAnswer, CooldownQuestion, Fate, Plan, PlanAnswer, RecoveryQuestion,
    Ruling, Trigger,
};

/// Milliseconds since the Unix epoch, UTC.
pub type Timestamp = u64;

/// A length of time in milliseconds.
pub type Millis = u64;

/// What kinds of workspace there are; the first is what one is that says nothing.
pub const KINDS: [&str; 2] = ["workspace", "platform"];

/// The row as the database held it when the question was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workspace {
    pub id: String,
    /// `workspace`, or `platform` for the concierge that manages the others.
    pub kind: String,
    /// `claude-code`, `hermes`, `external`, …
    pub runtime: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    #[schema(value_type = String)]
    pub status: Status,
    /// Milliseconds since the Unix epoch, in the database's time.
    pub status_since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_at: Option<Timestamp>,
    #[serde(default)]
    pub active_tasks: u32,
    #[serde(default)]
    pub ancestor_paused: bool,
    #[serde(default)]
    pub persistent_volume: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What an agent reports of its own readiness. None: too old to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_mcp_tools: Option<u32>,
}

/// One heartbeat, as a policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    #[serde(default)]
    pub readiness: Readiness,
    /// Share of the agent's own operations that failed, 0.0 to 1.0.
    #[serde(default)]
    pub error_rate: f64,
    #[serde(default)]
    pub sample_error: String,
    #[serde(default)]
    pub active_tasks: u32,
    /// Milliseconds.
    #[serde(default)]
    pub uptime: Millis,
    /// Empty when healthy, `wedged` when the agent's runtime is stuck.
    #[serde(default)]
    pub runtime_state: String,
    /// The agent reports its own status; do not infer one.
    #[serde(default)]
    pub native_status: bool,
}

/// A provider's answer about one instance, re-confirmed against the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    pub instance_id: String,
    pub running: bool,
}

/// What a person, or the host itself, asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    Restart,
    SwitchProvider,
    Pause,
    Resume,
    Hibernate,
    Wake,
    Remove,
}

impl CommandKind {
    pub const ALL: [CommandKind; 7] = [
        CommandKind::Restart,
        CommandKind::SwitchProvider,
        CommandKind::Pause,
        CommandKind::Resume,
        CommandKind::Hibernate,
        CommandKind::Wake,
        CommandKind::Remove,
    ];

    /// The row of the table that this command opens.
    pub const fn cause(self) -> CauseKind {
        match self {
            CommandKind::Restart => CauseKind::Restart,
            CommandKind::SwitchProvider => CauseKind::SwitchProvider,
            CommandKind::Pause => CauseKind::Pause,
            CommandKind::Resume => CauseKind::Resume,
            CommandKind::Hibernate => CauseKind::Hibernate,
            CommandKind::Wake => CauseKind::Wake,
            CommandKind::Remove => CauseKind::Remove,
        }
    }
}

/// A command and how far its sender is ready to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Command {
    pub command: CommandKind,
    /// The role that asked: `operator`, or `recovery` for the host itself.
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_provider: Option<String>,
    #[serde(default)]
    pub force: bool,
    #[serde(default)]
    pub confirm_data_loss: bool,
}

impl Command {
    /// `remove`, asked for by an operator.
    pub fn remove() -> Self {
        Self {
            command: CommandKind::Remove,
            actor: "operator".to_owned(),
            target_provider: None,
            force: false,
            confirm_data_loss: false,
        }
    }
}

/// Why the host considers a transition now, with what it knows about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    Registered(Readiness),
    Heartbeat(Heartbeat),
    /// No heartbeat for this long.
    Silence {
        #[serde(rename = "for_ms")]
        for_: Millis,
    },
    Probed(Probe),
    /// Still provisioning after this long.
    ProvisioningFor {
        #[serde(rename = "for_ms")]
        for_: Millis,
    },
    /// Online with no task for this long.
    IdleFor {
        #[serde(rename = "for_ms")]
        for_: Millis,
    },
    Commanded(Command),
}

impl Cause {
    /// The row of the table that this cause opens.
    pub const fn kind(&self) -> CauseKind {
        match self {
            Cause::Registered(_) => CauseKind::Registered,
            Cause::Heartbeat(_) => CauseKind::Heartbeat,
            Cause::Silence { .. } => CauseKind::Silence,
            Cause::Probed(_) => CauseKind::Probed,
            Cause::ProvisioningFor { .. } => CauseKind::ProvisioningFor,
            Cause::IdleFor { .. } => CauseKind::IdleFor,
            Cause::Commanded(c) => c.command.cause(),
        }
    }
}

/// A stable kebab-case code to count and filter by, and words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Reason {
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: Some(detail.into()) }
    }
}

/// One policy's word on one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    Allow(Reason),
    Deny(Reason),
    Abstain,
}

/// A typed setting of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    Flag(bool),
    Number(f64),
    Text(String),
    /// Milliseconds.
    Duration(Millis),
}

/// The values a policy was activated with, by name.
pub type Settings = BTreeMap<String, Setting>;

/// What the guards are asked: one question for all bound policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Question {
    pub now: Timestamp,
    pub workspace: Workspace,
    pub cause: Cause,
    /// The statuses that the table lets this cause lead to, in its order.
    #[schema(value_type = Vec<String>)]
    pub candidates: Vec<Status>,
}

/// Who answered: a module at its place in a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bound {
    /// The module's own name for itself.
    pub policy: String,
    pub version: String,
    /// `sha256:` and 64 hexadecimal digits: the module's bytes.
    pub digest: String,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
}

/// What one bound policy made of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Vote {
    #[serde(flatten)]
    #[schema(value_type = Bound)]
    pub by: Arc<Bound>,
    #[serde(flatten)]
    pub answer: Answer,
}

/// Verdicts, one per candidate and in their order; or what went wrong, which
/// counts as a denial of every candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Verdicts(Vec<Verdict>),
    Error(Fault),
}

/// A policy that failed: a stable code (`out_of_fuel`, `trap`, …) and words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    pub code: String,
    pub detail: String,
}

/// What the votes came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The first candidate that somebody allows and nobody denies.
    Moved {
        #[schema(value_type = String)]
        to: Status,
        reason: Reason,
        /// The policy whose reason it is.
        policy: String,
    },
    /// Nothing changes; why, for each denial. Empty: nobody had a say.
    Held { denials: Vec<Denial> },
}

/// One policy's refusal of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Denial {
    #[schema(value_type = String)]
    pub candidate: Status,
    pub policy: String,
    pub reason: Reason,
}

impl Denial {
    /// Whether nobody judged: a policy failed, or none is in charge.
    pub fn is_fault(&self) -> bool {
        ["policy-error", "no-active-revision"].contains(&self.reason.code.as_str())
    }
}

impl Outcome {
    /// The denial that matters to whoever asked for `wanted`.
    pub fn denial_of(&self, wanted: Status) -> Option<&Denial> {
        let Outcome::Held { denials } = self else { return None };
        denials.iter().find(|denial| denial.candidate == wanted).or(denials.first())
    }

    /// Counts votes: an edge passes where someone allows it and nobody denies
    /// it, and the first in the table's order that passes is the move. A vote
    /// that is an error, or that has not one verdict per candidate, denies all.
    pub fn of(candidates: &[Status], votes: &[Vote]) -> Self {
        let mut denials = Vec::new();
        let mut passed: Option<(Status, &Vote, &Reason)> = None;
        for (i, candidate) in candidates.iter().enumerate() {
            let mut allowed = None;
            let denied_before = denials.len();
            for vote in votes {
                let deny = |reason| Denial { candidate: *candidate, policy: vote.by.policy.clone(), reason };
                match &vote.answer {
                    Answer::Error(fault) => {
                        denials.push(deny(Reason::new(
                            "policy-error",
                            format!("{}: {}", fault.code, fault.detail),
                        )));
                    }
                    Answer::Verdicts(verdicts) => match verdicts.get(i) {
                        Some(Verdict::Allow(reason)) => {
                            allowed = allowed.or(Some((*candidate, vote, reason)))
                        }
                        Some(Verdict::Deny(reason)) => denials.push(deny(reason.clone())),
                        Some(Verdict::Abstain) => {}
                        None => {
                            denials.push(deny(Reason::new("policy-error", "no verdict for this candidate")))
                        }
                    },
                }
            }
            if denials.len() == denied_before {
                passed = passed.or(allowed);
            }
        }
        match passed {
            Some((to, vote, reason)) => {
                Outcome::Moved { to, reason: reason.clone(), policy: vote.by.policy.clone() }
            }
            None => Outcome::Held { denials },
        }
    }
}

/// A decision: the whole question, every vote, what they came to, and which
/// revision decided. The recorded form, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Always [`Decision::FORMAT`].
    pub format: String,
    /// A UUID, version 7.
    pub id: String,
    /// The version of the row that was judged.
    pub row_version: i64,
    /// The number of the policy revision that decided.
    pub revision: i64,
    pub question: Question,
    pub votes: Vec<Vote>,
    pub outcome: Outcome,
    /// What the recovery policies made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<Plan>,
    /// What they asked for, and what became of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Asked>,
}

impl Decision {
    pub const FORMAT: &str = "sprag.decision/1";

    /// A decision that has not yet set anything in motion, with an id of its own.
    pub fn new(
        row_version: i64,
        revision: i64,
        question: Question,
        votes: Vec<Vote>,
        outcome: Outcome,
    ) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            id: Uuid::now_v7().to_string(),
            row_version,
            revision,
            question,
            votes,
            outcome,
            recovery: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Whether it must be kept: it moved or denied something, or set something in motion.
    pub fn is_remarkable(&self) -> bool {
        if self.actions.iter().any(|asked| asked.fate == Fate::Owed) {
            return true;
        }
        match &self.outcome {
            Outcome::Moved { .. } => true,
            Outcome::Held { denials } => !denials.is_empty(),
        }
    }
}
