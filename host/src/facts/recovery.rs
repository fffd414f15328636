//! What policies may set in motion, and how often: the words of `recovery` and
//! `cooldown`, in the host's own terms.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bound, Cause, Fault, Outcome, Reason, Timestamp, Workspace};

/// What a policy may ask the host to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Deliver the workspace's declared plugins into its box again.
    ReconcilePlugins,
    Restart,
    /// Stop a box that should not be running.
    StopInstance,
    /// Tell the operators, under this subject.
    Notify(String),
}

impl Action {
    /// Under which its cooldown is kept: one for each subject of a notice.
    pub fn key(&self) -> String {
        match self {
            Action::Notify(subject) => format!("notify:{subject}"),
            other => other.name().to_owned(),
        }
    }

    /// The one string form of its kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::ReconcilePlugins => "reconcile_plugins",
            Action::Restart => "restart",
            Action::StopInstance => "stop_instance",
            Action::Notify(_) => "notify",
        }
    }
}

/// An action that a policy asks for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trigger {
    pub action: Action,
    pub reason: Reason,
}

/// What the recovery policies are asked, moved or held.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryQuestion<'a> {
    pub now: Timestamp,
    pub workspace: &'a Workspace,
    pub cause: &'a Cause,
    pub outcome: &'a Outcome,
}

/// What the cooldown policies are asked about one action.
#[derive(Clone, Debug, PartialEq)]
pub struct CooldownQuestion<'a> {
    pub now: Timestamp,
    pub workspace: &'a Workspace,
    pub cause: &'a Cause,
    pub action: &'a Action,
    pub last_fired_at: Option<Timestamp>,
    /// How often it fired since the workspace was last healthy.
    pub fired: u32,
}

/// One policy's word on one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "ruling", rename_all = "snake_case")]
pub enum Ruling {
    Ready,
    WaitUntil { until: Timestamp, reason: Reason },
}

/// What one recovery policy made of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    #[serde(flatten)]
    #[schema(value_type = Bound)]
    pub by: Arc<Bound>,
    #[serde(flatten)]
    pub answer: PlanAnswer,
}

/// Triggers, or what went wrong: then this policy sets nothing in motion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanAnswer {
    Triggers(Vec<Trigger>),
    Error(Fault),
}

/// What one cooldown policy ruled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cooldown {
    #[serde(flatten)]
    #[schema(value_type = Bound)]
    pub by: Arc<Bound>,
    #[serde(flatten)]
    pub answer: CooldownAnswer,
}

/// A ruling, or what went wrong: that means "not now".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CooldownAnswer {
    Ruling(Ruling),
    Error(Fault),
}

/// An action that was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Asked {
    pub action: Action,
    pub reason: Reason,
    /// The first policy that asked for it.
    pub policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired_at: Option<Timestamp>,
    #[serde(default)]
    pub fired: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<Cooldown>,
    pub fate: Fate,
}

/// What became of an action that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is in the outbox, with the step.
    Owed,
    /// A cooldown rules it out until then.
    Waits { until: Timestamp, reason: Reason },
    /// A cooldown policy failed: not now.
    NotNow { reason: Reason },
    /// The host does not do this for this workspace.
    NotEntitled { reason: Reason },
}
