//! What a stray is, as others see it.

use crate::facts::Timestamp;
use crate::store::error::StoreError;
use crate::store::rows::At;

/// A box, as its provider has just listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBox {
    pub workspace_id: String,
    pub instance_id: String,
    /// The registry that had it started, as the box says.
    pub registry_id: Option<String>,
    /// Of the claim that started it, as its name says. None: it is no name of ours.
    pub epoch: Option<u64>,
}

/// Which registry had a box started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Own,
    Other,
    /// The box doesn't say.
    None,
}

impl Whose {
    pub const fn as_str(self) -> &'static str {
        match self {
            Whose::Own => "own",
            Whose::Other => "other",
            Whose::None => "none",
        }
    }
}

/// A box that no row names.
#[derive(Clone, Debug, PartialEq)]
pub struct Stray {
    pub id: String,
    pub provider: String,
    pub workspace_id: String,
    pub instance_id: String,
    pub registry_id: Option<String>,
    pub whose: Whose,
    pub epoch: Option<u64>,
    /// The code of why it is one.
    pub why: String,
    pub found_at: Timestamp,
    /// It was let pass by the brake, and its stop is tried until it is done.
    pub stopping: bool,
    pub attempts: u32,
    pub last_error: Option<String>,
    /// From when its grace counts, and the database's own.
    pub grace_from: Timestamp,
    pub quiet_from: Timestamp,
    /// Of its workspace, where there is one.
    pub status: Option<String>,
}

impl Stray {
    /// When it may be stopped. None: it is none of ours.
    pub fn stops_at(&self, grace_ms: u64, quiet_ms: u64) -> Option<Timestamp> {
        let ours = self.whose == Whose::Own && self.epoch.is_some();
        let at = (self.grace_from.saturating_add(grace_ms)).max(self.quiet_from.saturating_add(quiet_ms));
        ours.then_some(at)
    }
}

/// What looking at one provider's list came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighted {
    pub named: usize,
    pub owed: usize,
    pub found: usize,
    pub gone: usize,
    /// So many were not kept.
    pub too_many: usize,
    /// Some are newer than this database: it was restored from an older copy.
    pub restored: bool,
}

/// Whether a stray may be stopped now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is this host's to stop, for the so many-th time.
    Yes(u32),
    /// It is no more what it was.
    No,
    /// By the brake of this scope.
    Held(String),
}

/// A box that a row names.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub workspace_id: String,
    pub provider: Option<String>,
    pub instance_id: String,
    pub status: String,
}

#[derive(sqlx::FromRow)]
pub(super) struct StrayRow(
    String,
    String,
    String,
    String,
    Option<String>,
    Option<i64>,
    String,
    i64,
    bool,
    i64,
    Option<String>,
    Option<String>,
    i64,
    i64,
    Option<String>,
);

impl TryFrom<StrayRow> for Stray {
    type Error = StoreError;

    fn try_from(row: StrayRow) -> Result<Self, StoreError> {
        let StrayRow(
            id,
            provider,
            workspace_id,
            instance_id,
            registry_id,
            epoch,
            why,
            found_at,
            stopping,
            attempts,
            last_error,
            own,
            clock_from,
            quiet_from,
            status,
        ) = row;
        let at = At { table: "strays", id: &id };
        let whose = match &registry_id {
            None => Whose::None,
            id if *id == own => Whose::Own,
            Some(_) => Whose::Other,
        };
        Ok(Self {
            epoch: epoch.map(|epoch| at.number("epoch", epoch)).transpose()?,
            found_at: at.number("found_at", found_at)?,
            attempts: at.number("attempts", attempts)?,
            grace_from: at.number("found_at", found_at.max(clock_from))?,
            quiet_from: at.number("quiet_from", quiet_from)?,
            id,
            provider,
            workspace_id,
            instance_id,
            registry_id,
            whose,
            why,
            stopping,
            last_error,
            status,
        })
    }
}
