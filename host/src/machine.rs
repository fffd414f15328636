//! READ FIRST. The closed table of statuses, causes and edges.
//!
//! Everything a workspace can ever do is in [`EDGES`]. A policy decides whether
//! an edge of this table may be taken now; no policy, request or bug can take
//! one that is not here, because [`Status::edge`] is the only way to an
//! [`Edge`] and the store takes nothing else. `sprag machine` prints it.
//!
//! This file imports nothing of ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a workspace stands. One string form everywhere: the snake_case name,
/// on the wire, in the database and in recorded decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Provisioning,
    AwaitingAgent,
    Online,
    Degraded,
    Offline,
    Failed,
    Paused,
    Hibernated,
    Removed,
}

use Status::*;

impl Status {
    /// Every status, in the order in which a workspace usually meets them.
    pub const ALL: [Status; 9] =
        [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Hibernated, Removed];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Provisioning => "provisioning",
            AwaitingAgent => "awaiting_agent",
            Online => "online",
            Degraded => "degraded",
            Offline => "offline",
            Failed => "failed",
            Paused => "paused",
            Hibernated => "hibernated",
            Removed => "removed",
        }
    }

    /// Whether an agent in this status was heard of and is counted among the live ones.
    pub const fn lives(self) -> bool {
        matches!(self, Online | Degraded)
    }

    /// The event that a workspace entering this status leaves in the log.
    pub const fn event_type(self) -> &'static str {
        match self {
            Provisioning => "WORKSPACE_PROVISIONING",
            AwaitingAgent => "WORKSPACE_AWAITING_AGENT",
            Online => "WORKSPACE_ONLINE",
            Degraded => "WORKSPACE_DEGRADED",
            Offline => "WORKSPACE_OFFLINE",
            Failed => "WORKSPACE_FAILED",
            Paused => "WORKSPACE_PAUSED",
            Hibernated => "WORKSPACE_HIBERNATED",
            Removed => "WORKSPACE_REMOVED",
        }
    }

    /// The edge that `cause` opens from here for a workspace of `runtime`.
    ///
    /// # Errors
    /// [`NoSuchEdge`] where the table has none: the cause has no say here.
    pub fn edge(self, cause: CauseKind, runtime: &str) -> Result<Edge, NoSuchEdge> {
        EDGES
            .iter()
            .find(|e| e.cause == cause && e.from.contains(&self) && e.runtimes.admits(runtime))
            .map(|row| Edge { from: self, row })
            .ok_or(NoSuchEdge { from: self, cause })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no {what}; expected one of {expected}")]
pub struct UnknownName {
    pub what: &'static str,
    pub name: String,
    pub expected: String,
}

impl UnknownName {
    fn new(what: &'static str, name: &str, all: impl Iterator<Item = &'static str>) -> Self {
        let expected = all.collect::<Vec<_>>().join(", ");
        Self { what, name: name.to_owned(), expected }
    }
}

impl FromStr for Status {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == s)
            .ok_or_else(|| UnknownName::new("status", s, Status::ALL.into_iter().map(Status::as_str)))
    }
}

/// Why the host considers a transition now; one per row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    Registered,
    Heartbeat,
    Silence,
    Probed,
    ProvisioningFor,
    IdleFor,
    Restart,
    SwitchProvider,
    Pause,
    Resume,
    Wake,
    Hibernate,
    Remove,
    /// A claim rolled back. The host's own: no policy is asked.
    ClaimEnded,
}

use CauseKind::*;

impl CauseKind {
    /// Every cause, in the order of the table.
    pub const ALL: [CauseKind; 14] = [
        Registered,
        Heartbeat,
        Silence,
        Probed,
        ProvisioningFor,
        IdleFor,
        Restart,
        SwitchProvider,
        Pause,
        Resume,
        Wake,
        Hibernate,
        Remove,
        ClaimEnded,
    ];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Registered => "registered",
            Heartbeat => "heartbeat",
            Silence => "silence",
            Probed => "probed",
            ProvisioningFor => "provisioning_for",
            IdleFor => "idle_for",
            Restart => "restart",
            SwitchProvider => "switch_provider",
            Pause => "pause",
            Resume => "resume",
            Wake => "wake",
            Hibernate => "hibernate",
            Remove => "remove",
            ClaimEnded => "claim_ended",
        }
    }
}

impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CauseKind {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        CauseKind::ALL
            .into_iter()
            .find(|cause| cause.as_str() == s)
            .ok_or_else(|| UnknownName::new("cause", s, CauseKind::ALL.into_iter().map(CauseKind::as_str)))
    }
}

/// The runtime that the platform does not own: somebody's laptop.
pub const EXTERNAL: &str = "external";

/// Which runtimes a row of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtimes {
    All,
    OnlyExternal,
    NotExternal,
}

impl Runtimes {
    fn admits(self, runtime: &str) -> bool {
        match self {
            Runtimes::All => true,
            Runtimes::OnlyExternal => runtime == EXTERNAL,
            Runtimes::NotExternal => runtime != EXTERNAL,
        }
    }

    /// How the printed table says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Runtimes::All => "",
            Runtimes::OnlyExternal => "runtime external",
            Runtimes::NotExternal => "runtime not external",
        }
    }
}

/// Where an edge leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these, in order of preference. Staying is no move.
    FirstOf(&'static [Status]),
    /// To this one, from there too: what has begun is begun anew.
    Anew(Status),
    /// To the status the row had before the claim, or to failed.
    PriorOrFailed,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct EdgeRow {
    pub cause: CauseKind,
    pub runtimes: Runtimes,
    pub from: &'static [Status],
    pub to: Target,
}

const fn edge(cause: CauseKind, from: &'static [Status], to: &'static [Status]) -> EdgeRow {
    EdgeRow { cause, runtimes: Runtimes::All, from, to: Target::FirstOf(to) }
}

const fn edge_anew(cause: CauseKind, from: &'static [Status], to: Status) -> EdgeRow {
    EdgeRow { cause, runtimes: Runtimes::All, from, to: Target::Anew(to) }
}

const fn edge_for(
    cause: CauseKind,
    runtimes: Runtimes,
    from: &'static [Status],
    to: &'static [Status],
) -> EdgeRow {
    EdgeRow { cause, runtimes, from, to: Target::FirstOf(to) }
}

/// The table. Order matters twice: of the targets of an edge the first that
/// passes is the move, and failing closed is preferred to going online.
pub const EDGES: &[EdgeRow] = &[
    edge(Registered, &[Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed], &[Failed, Online]),
    edge(Heartbeat, &[Online], &[Failed, Degraded]),
    edge(Heartbeat, &[Degraded], &[Failed, Online]),
    edge(Heartbeat, &[Provisioning, AwaitingAgent, Offline], &[Failed, Online]),
    edge(Heartbeat, &[Failed], &[Online]),
    edge_for(Silence, Runtimes::NotExternal, &[Online, Degraded], &[Offline]),
    edge_for(Silence, Runtimes::OnlyExternal, &[Online, Degraded], &[AwaitingAgent]),
    edge(Probed, &[Online, Degraded], &[Offline]),
    edge(Probed, &[Provisioning], &[Failed]),
    edge(ProvisioningFor, &[Provisioning], &[Failed]),
    edge(IdleFor, &[Online, Degraded], &[Hibernated]),
    edge_anew(Restart, &[Provisioning, Online, Degraded, Offline, Failed], Provisioning),
    edge_anew(SwitchProvider, &[Provisioning, Online, Degraded, Offline, Failed], Provisioning),
    edge(Pause, &[Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Hibernated], &[Paused]),
    edge(Resume, &[Paused], &[Provisioning]),
    edge(Wake, &[Hibernated], &[Provisioning]),
    edge(Hibernate, &[Online, Degraded], &[Hibernated]),
    edge(
        Remove,
        &[Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Hibernated],
        &[Removed],
    ),
    EdgeRow {
        cause: ClaimEnded,
        runtimes: Runtimes::All,
        from: &[Provisioning, Paused, Hibernated],
        to: Target::PriorOrFailed,
    },
];

/// An edge that the table has, from one status. Made by [`Status::edge`] only.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    from: Status,
    row: &'static EdgeRow,
}

impl Edge {
    pub const fn from(&self) -> Status {
        self.from
    }

    pub const fn cause(&self) -> CauseKind {
        self.row.cause
    }

    /// The statuses a policy may be asked about, in order of preference. The
    /// status the row already has is one of them only where it is entered anew.
    pub fn candidates(&self) -> Vec<Status> {
        match self.row.to {
            Target::FirstOf(to) => to.iter().copied().filter(|to| *to != self.from).collect(),
            Target::Anew(to) => vec![to],
            Target::PriorOrFailed => Vec::new(),
        }
    }

    /// The move to `to`, which the store will take.
    ///
    /// # Errors
    /// [`NoSuchEdge`] where `to` is no target of this edge.
    pub fn to(&self, to: Status) -> Result<Move, NoSuchEdge> {
        if self.candidates().contains(&to) {
            Ok(Move { from: self.from, to, cause: self.row.cause })
        } else {
            Err(NoSuchEdge { from: self.from, cause: self.row.cause })
        }
    }

    /// The move of a claim that did not commit: back to `prior`, the status the
    /// row had before it.
    ///
    /// # Errors
    /// [`NoSuchEdge`] where this is not the edge of a claim's end.
    pub fn back_to(&self, prior: Status) -> Result<Move, NoSuchEdge> {
        match self.row.to {
            Target::PriorOrFailed => Ok(Move { from: self.from, to: prior, cause: self.row.cause }),
            Target::FirstOf(_) | Target::Anew(_) => {
                Err(NoSuchEdge { from: self.from, cause: self.row.cause })
            }
        }
    }
}

/// A change of status that the table allows. The fields are private, so that
/// no one can ask the store for a change that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    from: Status,
    to: Status,
    cause: CauseKind,
}

impl Move {
    pub const fn from(&self) -> Status {
        self.from
    }

    pub const fn to(&self) -> Status {
        self.to
    }

    pub const fn cause(&self) -> CauseKind {
        self.cause
    }
}

/// The table has no such edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing leads from {from} on {cause}")]
pub struct NoSuchEdge {
    pub from: Status,
    pub cause: CauseKind,
}
