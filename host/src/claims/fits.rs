//! What a command needs of its row, beside an edge of the table and a policy that
//! allows it: looked at on the very facts that are judged, before anything is
//! claimed.

use super::Host;
use super::plan::{self, Step};
use crate::advance::Unfit;
use crate::facts::Workspace;
use crate::machine::Status;
use crate::provision::UnknownProvider;
use crate::store::{Claim, ClaimKind};

/// A command, as far as it is held against a row.
pub(super) struct Asked<'a> {
    pub(super) kind: ClaimKind,
    /// Where the new box is to be started; None: where the row is.
    pub(super) target: Option<&'a str>,
    /// What can't be stopped is owed.
    pub(super) forced: bool,
    /// By the claim on a row above this one.
    pub(super) taken_along: bool,
}

impl Host {
    pub(super) fn fits(&self, asked: &Asked<'_>, row: &Workspace) -> Result<(), Unfit> {
        // Nobody resumes what nobody paused.
        if asked.taken_along && row.status == Status::Hibernated {
            return Err(Unfit::Asleep);
        }
        let provider = row.provider.as_deref();
        let starts = does(asked.kind, Step::StartNew).then(|| asked.target.or(provider)).flatten();
        let has_box = row.instance_id.is_some() && does(asked.kind, Step::StopOld);
        // What is above it is paused in any case, and so the stop is owed there as well.
        let may_be_owed = asked.forced || (asked.taken_along && asked.kind == ClaimKind::Pause);
        let stops = provider.filter(|_| has_box && !may_be_owed);
        for needed in starts.into_iter().chain(stops) {
            self.dispatcher.check(needed).map_err(Unfit::NoProvider)?;
        }
        Ok(())
    }

    /// The provider at which `claim` has yet to start its box, if it is not configured here.
    pub(super) fn cannot_start(&self, claim: &Claim) -> Option<UnknownProvider> {
        let starts = claim.kind.parse().is_ok_and(|kind| does(kind, Step::StartNew));
        claim.new_provider.as_deref().filter(|_| starts).and_then(|name| self.dispatcher.check(name).err())
    }

    /// The provider at which `claim` has yet to stop the row's box, if it is not configured here.
    pub(super) fn cannot_stop(&self, claim: &Claim) -> Option<UnknownProvider> {
        let stops = claim.kind.parse().is_ok_and(|kind| does(kind, Step::StopOld));
        let has_box = claim.old_instance_id.is_some();
        let name = claim.old_provider.as_deref().filter(|_| stops && has_box);
        name.and_then(|name| self.dispatcher.check(name).err())
    }
}

fn does(kind: ClaimKind, step: Step) -> bool {
    plan::plan_of(kind).iter().any(|planned| planned.step == step)
}
