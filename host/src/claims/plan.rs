//! What a claim does to the world, as data: the steps of each command, in
//! order, and what undoes each. The model of the protocol
//! (`tests/it/claim_model.rs`) runs on the same names.

use std::fmt;
use std::str::FromStr;

use crate::facts::CommandKind;
use crate::store::ClaimKind;

use super::{create, hibernate, pause, restart, resume, switch_provider, wake};

/// One thing that a claim does. Each is journaled before and after, and doing
/// it twice is doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A provider accepts a newer fence than any before it and says what runs:
    /// before anything else of a takeover, where a start was recorded, and
    /// whenever a start or stop was not answered.
    Fence,
    /// Stops the box that the row had when the claim was won, with the provider it had then.
    StopOld,
    /// Writes the new provider into the row.
    WriteProvider,
    /// Starts the new box, with a token of its own.
    StartNew,
    /// Pauses the nearest below that are awake, each by its own claim.
    PauseChildren,
    /// Resumes what its pause took along, each by its own claim.
    ResumeChildren,
    /// Undoes [`Step::StartNew`].
    StopNew,
    /// Undoes [`Step::WriteProvider`].
    RestoreProvider,
}

impl Step {
    pub const ALL: [Step; 8] = [
        Step::Fence,
        Step::StopOld,
        Step::WriteProvider,
        Step::StartNew,
        Step::PauseChildren,
        Step::ResumeChildren,
        Step::StopNew,
        Step::RestoreProvider,
    ];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Fence => "fence",
            Step::StopOld => "stop_old",
            Step::WriteProvider => "write_provider",
            Step::StartNew => "start_new",
            Step::PauseChildren => "pause_children",
            Step::ResumeChildren => "resume_children",
            Step::StopNew => "stop_new",
            Step::RestoreProvider => "restore_provider",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no step of a claim")]
pub struct UnknownStep(pub String);

impl FromStr for Step {
    type Err = UnknownStep;

    fn from_str(name: &str) -> Result<Self, UnknownStep> {
        Step::ALL.into_iter().find(|step| step.as_str() == name).ok_or_else(|| UnknownStep(name.to_owned()))
    }
}

/// What a rollback does about a step that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// There is nothing to undo.
    Nothing,
    By(Step),
    /// It can't be undone: after it, the row's prior status would be untrue,
    /// and a rollback ends in `failed`.
    Cannot,
}

/// A step at its place in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub step: Step,
    pub undo: Undo,
}

/// The steps of a command, in order.
pub type Plan = &'static [Planned];

/// The plan of a command; None: of the creation of a workspace.
pub const fn plan(command: Option<CommandKind>) -> Plan {
    let Some(command) = command else { return plan_of(ClaimKind::Create) };
    match ClaimKind::of(command) {
        Some(kind) => plan_of(kind),
        // One transaction and no steps; it supersedes claims and opens none.
        None => &[],
    }
}

/// The plan of a claim.
pub const fn plan_of(kind: ClaimKind) -> Plan {
    match kind {
        ClaimKind::Create => create::PLAN,
        ClaimKind::Restart => restart::PLAN,
        ClaimKind::SwitchProvider => switch_provider::PLAN,
        ClaimKind::Pause => pause::PLAN,
        ClaimKind::Resume => resume::PLAN,
        ClaimKind::Wake => wake::PLAN,
        ClaimKind::Hibernate => hibernate::PLAN,
    }
}
