//! What goes into the store and what comes out of it. No SQL here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::brakes::BrakeLimits;
use super::claims::{NewClaim, UnknownState};
use super::error::StoreError;
use super::reported::Reported;
use crate::facts::{
    Action, Decision, Heartbeat, ModuleLimits, Readiness, Reason, Settings, Timestamp, Workspace,
};
use crate::machine::{Move, Status};

/// SHA-256 of a bearer token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// What is kept of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Of whoever presents none: no token has it.
    pub const NONE: Self = Self([0; 32]);
}

/// What an agent presents, and where that is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    pub token: TokenHash,
    /// Whether a workspace that has no live token takes anybody's word (open
    /// registration), but for one who presents a token that is known: that one has
    /// ended, or is another's.
    pub open: bool,
}

impl From<TokenHash> for Credential {
    /// One that must be a live token of the workspace.
    fn from(token: TokenHash) -> Self {
        Self { token, open: false }
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A row at one version, as `advance` judges it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// +1 at every change of status.
    pub version: i64,
    /// The claim that is open on it: nobody else changes its status.
    pub claim_id: Option<String>,
    /// When it was read, in the database's time; never before a time in `workspace`.
    pub now: Timestamp,
    pub workspace: Workspace,
}

/// Everything an operator sees of a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WorkspaceView {
    pub name: String,
    pub version: i64,
    /// The claim that is open on it.
    pub claim_id: Option<String>,
    pub parent_id: Option<String>,
    pub tier: Option<String>,
    pub url: Option<String>,
    pub agent_card: Option<Value>,
    pub hibernation_idle_minutes: Option<u32>,
    pub created_at: Timestamp,
    /// Of the last heartbeat.
    pub error_rate: f64,
    pub sample_error: String,
    pub uptime_seconds: u64,
    pub current_task: String,
    pub runtime_state: String,
    /// What of the last registration and heartbeat was not taken as it was said.
    pub warnings: Vec<Value>,
    #[serde(flatten)]
    pub workspace: Workspace,
}

/// A workspace to be created; the caller makes `id` (UUID, version 7) and the token.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub runtime: String,
    pub provider: Option<String>,
    pub parent_id: Option<String>,
    pub tier: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub persistent_volume: bool,
    pub hibernation_idle_minutes: Option<u32>,
    /// The token handed to the creator, if any.
    pub token: Option<TokenHash>,
    /// The claim that starts its first box, where it has a provider.
    pub claim: Option<NewClaim>,
}

/// Whether a parent could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Done,
    NoSuchParent,
    ParentRemoved,
    /// The new parent is the workspace itself or one of its descendants.
    Cycle,
    NoSuchWorkspace,
    Removed,
}

/// What `PATCH` changes. None: leave as it is.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub name: Option<String>,
    /// Replaces all labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Some(None): make it a root.
    pub parent_id: Option<Option<String>>,
    pub tier: Option<Option<String>>,
    pub hibernation_idle_minutes: Option<Option<u32>>,
}

/// Which workspaces to list, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub status: Option<Status>,
    pub kind: Option<String>,
    pub runtime: Option<String>,
    pub provider: Option<String>,
    pub parent_id: Option<String>,
    /// Removed ones are left out unless asked for (or `status` is `removed`).
    pub include_removed: bool,
    /// The id of the last one of the page before.
    pub after: Option<String>,
    pub limit: u32,
}

/// What one heartbeat stores. None: it says nothing of it, and the last value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    pub workspace_id: String,
    pub token: TokenHash,
    /// Whether anybody's word is taken where the workspace has no live token; one mode for a whole host.
    pub open: bool,
    /// 0.0 to 1.0. What is no number is stored as 1.0.
    pub error_rate: Option<f64>,
    pub sample_error: Option<String>,
    pub active_tasks: Option<u32>,
    pub uptime_seconds: Option<u64>,
    pub current_task: Option<String>,
    pub runtime_state: Option<String>,
    pub reported: Reported,
    /// What of it was not taken as it was said: a JSON array.
    pub warnings: Option<String>,
}

/// What became of one heartbeat of a batch.
#[derive(Clone, Debug)]
pub enum Beaten {
    /// Liveness is stored; the row as it now is, and all that its agent has said so far.
    Stored(Box<Snapshot>, Heartbeat),
    /// No such workspace.
    Unknown,
    /// The token is not a live one of this workspace. Nothing was stored.
    Unauthorized,
    /// Liveness is stored, but the row holds what this host can't read.
    Unreadable(Arc<StoreError>),
    /// The workspace is removed (and the token was its own). Nothing was stored.
    Removed,
}

/// What a registration stores beside the transition.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// None: the last one stands.
    pub url: Option<String>,
    /// None: the last one stands.
    pub agent_card: Option<Value>,
    /// What the agent says of itself, from here on.
    pub readiness: Readiness,
    /// What of it was not taken as it was said: a JSON array.
    pub warnings: Option<String>,
    /// A first token to hand out, taken only where the workspace has no live one.
    pub first_token: Option<TokenHash>,
}

/// One judged row and what is to become of it. Applied whole or not at all.
#[derive(Clone, Debug)]
pub struct Step {
    pub workspace_id: String,
    /// The version that was judged: the guard of every write of this step.
    pub version: i64,
    /// The change of status, and the reason given for it.
    pub transition: Option<(Move, Reason)>,
    pub registration: Option<Registration>,
    /// Of the agent whose word this is: no write counts once that is not enough any more.
    pub credential: Option<Credential>,
    /// A claim to be opened with the transition, on the row as it was judged.
    pub claim: Option<(NewClaim, Workspace)>,
    /// Of a sweep: what must still be so, beside the version.
    pub still: Option<Still>,
    /// What it owes the world, each at most once within its cooldown.
    pub owes: Vec<Owe>,
    /// Kept with the step; None where it is not sampled.
    pub decision: Option<Decision>,
}

impl Step {
    /// One that writes nothing yet.
    pub fn of(workspace_id: &str, version: i64) -> Self {
        Self {
            workspace_id: workspace_id.to_owned(),
            version,
            transition: None,
            registration: None,
            credential: None,
            claim: None,
            still: None,
            owes: Vec::new(),
            decision: None,
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.transition.is_none()
            && self.registration.is_none()
            && self.owes.is_empty()
            && self.decision.is_none()
    }
}

/// What a sweep saw and what may have changed without a new version. A row that
/// was heard of meanwhile, or has another box, is not what was judged; nor is
/// anything that was judged too long ago, by a host that slept over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Still {
    pub last_heartbeat_at: Option<Timestamp>,
    pub instance_id: Option<String>,
    /// When the row was taken, in the database's time; distrusted since, nothing is written.
    pub taken_at: Timestamp,
    /// Later than this, nothing is written either.
    pub until: Timestamp,
    /// Set where the row goes down, and the brake counts it.
    pub down: Option<Down>,
}

/// A downward flip, as the brake counts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Down {
    pub provider: Option<String>,
    pub limits: BrakeLimits,
}

/// An action that a step owes, with the stamp of its cooldown as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Owe {
    pub action: Action,
    pub reason: Reason,
    /// Where somebody else has fired it since, it is not owed again.
    pub last_fired_at: Option<Timestamp>,
    /// How often it has fired with this time, since the workspace was last healthy.
    pub fired: u32,
}

/// A plugin that a workspace should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub struct DeclaredPlugin {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How an effect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// To be delivered, now or later.
    Due,
    Done,
    /// Its attempts are spent; a person retries or drops it.
    Parked,
    /// Given up by a person.
    Dropped,
}

impl EffectState {
    pub const ALL: [EffectState; 4] =
        [EffectState::Due, EffectState::Done, EffectState::Parked, EffectState::Dropped];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            EffectState::Due => "due",
            EffectState::Done => "done",
            EffectState::Parked => "parked",
            EffectState::Dropped => "dropped",
        }
    }
}

impl std::str::FromStr for EffectState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        EffectState::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// What a committed step owes the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Its place in the order.
    pub seq: i64,
    pub id: String,
    pub workspace_id: String,
    /// `stop`, or an action's name.
    pub kind: String,
    pub body: Value,
    pub state: EffectState,
    /// Deliveries so far.
    pub attempts: u32,
    pub due_at: Timestamp,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    /// Or parked, and it stays when a person has it delivered again.
    pub ended_at: Option<Timestamp>,
}

/// What became of a person's word on an effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Retried {
    Done(Effect),
    /// It is in no state for that; as it is.
    Not(Effect),
    Unknown,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Done,
    /// Some row was no longer at the version judged, or (for a removal) a
    /// descendant appeared. Nothing was written.
    Outran,
    /// A first token was to be handed out, but a live one exists. Nothing was written.
    TokenTaken,
    /// The agent's token has ended since it was looked at. Nothing was written.
    TokenDead,
    /// The brake lets nothing more go down. Nothing was written.
    Braked,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// The place in the log: `Last-Event-ID` of the stream, `after` of the pages.
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    /// None: it is the whole fleet's.
    pub workspace_id: Option<String>,
    /// The row's version from this event on; 0 where it is the whole fleet's.
    pub version: i64,
    #[schema(value_type = Option<String>)]
    pub from: Option<Status>,
    #[schema(value_type = Option<String>)]
    pub to: Option<Status>,
    /// `created`, `card_updated`, or the cause's name.
    pub cause: String,
    pub reason: Option<Reason>,
    pub decision_id: Option<String>,
    pub at: Timestamp,
}

/// A module as the database keeps it.
#[derive(Clone, Debug)]
pub struct StoredModule {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    pub name: String,
    pub version: String,
    pub bytes: Bytes,
}

/// One module of a revision, at its place in the order.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub struct BoundModule {
    pub digest: String,
    pub name: String,
    pub version: String,
    /// Only those that differ from the module's defaults.
    #[serde(default)]
    pub settings: Settings,
    /// What it may use, where that is not what every module may.
    #[serde(default, skip_serializing_if = "ModuleLimits::is_empty")]
    pub limits: ModuleLimits,
}

/// A numbered, immutable set of modules and settings.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RevisionRow {
    pub number: i64,
    pub created_at: Timestamp,
    /// Where it came from: `dir`, `api` or `rollback`.
    pub source: String,
    /// SHA-256 over digests, settings and order: equal means the same rules.
    pub fingerprint: String,
    pub modules: Vec<BoundModule>,
    pub active: bool,
    /// When it was last made the active one.
    pub activated_at: Option<Timestamp>,
}
