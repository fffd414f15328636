//! What goes into the claims' tables and what comes out of them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::facts::{CommandKind, Reason, Timestamp};
use crate::machine::{Move, Status};
use crate::store::TokenHash;

/// What a claim is for: the command's name, or `create`. Another one is a later
/// version's, and not this host's to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimKind {
    /// A workspace's first box.
    Create,
    Restart,
    SwitchProvider,
    Pause,
    Resume,
    Wake,
    Hibernate,
}

impl ClaimKind {
    pub const ALL: [ClaimKind; 7] = [
        ClaimKind::Create,
        ClaimKind::Restart,
        ClaimKind::SwitchProvider,
        ClaimKind::Pause,
        ClaimKind::Resume,
        ClaimKind::Wake,
        ClaimKind::Hibernate,
    ];

    /// The claim that carries a command out. None: a removal supersedes claims and opens none.
    pub const fn of(command: CommandKind) -> Option<Self> {
        match command {
            CommandKind::Restart => Some(ClaimKind::Restart),
            CommandKind::SwitchProvider => Some(ClaimKind::SwitchProvider),
            CommandKind::Pause => Some(ClaimKind::Pause),
            CommandKind::Resume => Some(ClaimKind::Resume),
            CommandKind::Wake => Some(ClaimKind::Wake),
            CommandKind::Hibernate => Some(ClaimKind::Hibernate),
            CommandKind::Remove => None,
        }
    }

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClaimKind::Create => "create",
            ClaimKind::Restart => CommandKind::Restart.cause().as_str(),
            ClaimKind::SwitchProvider => CommandKind::SwitchProvider.cause().as_str(),
            ClaimKind::Pause => CommandKind::Pause.cause().as_str(),
            ClaimKind::Resume => CommandKind::Resume.cause().as_str(),
            ClaimKind::Wake => CommandKind::Wake.cause().as_str(),
            ClaimKind::Hibernate => CommandKind::Hibernate.cause().as_str(),
        }
    }
}

impl std::str::FromStr for ClaimKind {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        ClaimKind::ALL.into_iter().find(|k| k.as_str() == name).ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// Who claims and for how long, said when a claim is opened. The rest of it is
/// read off the row that is claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct NewClaim {
    /// A UUID, version 7.
    pub id: String,
    pub kind: ClaimKind,
    pub actor: String,
    /// The claim that takes this one along, and the epoch at which it must be open for that.
    pub parent: Option<(String, u64)>,
    /// The host that carries it out.
    pub owner: String,
    /// Milliseconds.
    pub lease_ms: u64,
    /// Where the row is to be served from; None: where it is now.
    pub target_provider: Option<String>,
}

/// How a claim stands. All but `Open` are ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    Open,
    Committed,
    /// What was done is undone; the row has its prior status.
    RolledBack,
    /// It could not be undone; the row is `failed` and can be tried again.
    Failed,
    /// The workspace was removed meanwhile.
    Superseded,
    /// One that a later version wrote. It is shown, and nothing else.
    Unknown,
}

impl ClaimState {
    pub const ALL: [ClaimState; 5] = [
        ClaimState::Open,
        ClaimState::Committed,
        ClaimState::RolledBack,
        ClaimState::Failed,
        ClaimState::Superseded,
    ];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClaimState::Open => "open",
            ClaimState::Committed => "committed",
            ClaimState::RolledBack => "rolled_back",
            ClaimState::Failed => "failed",
            ClaimState::Superseded => "superseded",
            ClaimState::Unknown => "unknown",
        }
    }
}

/// Text that is no state, or no kind, that this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no such state")]
pub struct UnknownState(pub String);

impl std::str::FromStr for ClaimState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        ClaimState::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// How a journaled step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Nobody has written yet what became of it.
    Begun,
    Done,
    /// It was not done, and will not be by itself.
    Failed,
    /// There was nothing to do.
    Skipped,
    /// Something newer came before its call; it was begun anew.
    Overtaken,
    /// Left as it is: what it left behind is owed, and the claim goes on.
    Exhausted,
    /// One that a later version wrote: its claim is not carried on here.
    Unknown,
}

impl StepState {
    pub const ALL: [StepState; 6] = [
        StepState::Begun,
        StepState::Done,
        StepState::Failed,
        StepState::Skipped,
        StepState::Overtaken,
        StepState::Exhausted,
    ];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            StepState::Begun => "begun",
            StepState::Done => "done",
            StepState::Failed => "failed",
            StepState::Skipped => "skipped",
            StepState::Overtaken => "overtaken",
            StepState::Exhausted => "exhausted",
            StepState::Unknown => "unknown",
        }
    }
}

impl std::str::FromStr for StepState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        StepState::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// A claim and its journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub id: String,
    pub workspace_id: String,
    pub parent_claim_id: Option<String>,
    /// That of a [`ClaimKind`], unless a later version opened it.
    pub kind: String,
    pub actor: String,
    pub state: ClaimState,
    /// Why it did not commit.
    pub reason: Option<Reason>,
    /// The decision that let it be opened.
    pub decision_id: Option<String>,
    pub prior_status: Status,
    pub old_provider: Option<String>,
    pub old_instance_id: Option<String>,
    pub new_provider: Option<String>,
    pub new_instance_id: Option<String>,
    /// Grows with every claim and every takeover of the workspace.
    pub epoch: u64,
    /// How often a host took it over from another.
    pub takeovers: u32,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub steps: Vec<JournaledStep>,
}

/// One line of a claim's journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournaledStep {
    pub step: String,
    pub state: StepState,
    /// The fence of its call.
    pub epoch: u64,
    pub seq: u64,
    pub detail: Option<String>,
    pub begun_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub number: i64,
}

/// Whose write it is: nothing is written for a claim that is no longer at this epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub claim_id: String,
    pub workspace_id: String,
    pub epoch: u64,
}

/// A step that is about to be done.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    pub step: &'a str,
    /// The new box and the hash of its token, before it is started.
    pub new_box: Option<(&'a str, &'a TokenHash)>,
    pub lease_ms: u64,
}

/// A step that has been begun: its place in the journal, and its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub number: i64,
    pub seq: u64,
}

/// A box that somebody has yet to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct OwedStop {
    pub provider: String,
    pub instance_id: String,
}

/// What a step that is over changes beside its line in the journal.
#[derive(Clone, Debug, Default)]
pub struct Effects<'a> {
    /// The row is now with this provider, and has no box there yet.
    pub provider: Option<Option<&'a str>>,
    /// The row's box is gone: its tokens end, all but those of the claim's new box.
    pub box_gone: bool,
    /// A box that may be left: an event says so, and the outbox owes its stop.
    pub left: Option<&'a OwedStop>,
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    pub state: ClaimState,
    /// None: the status that the claim set stays.
    pub transition: Option<(Move, Reason)>,
    pub provider: Option<&'a str>,
    pub instance_id: Option<&'a str>,
    /// Every other token of the workspace ends, also one that no box has.
    pub sole: bool,
    pub owed: Vec<OwedStop>,
}

/// What became of an ending.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The version of the row, and what the new box has said meanwhile: a cause, as JSON.
    Done { spoken: Option<String> },
    /// The claim is not this holder's any more. Nothing was written.
    Lost,
}
