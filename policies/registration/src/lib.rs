//! The `registration` policy: an agent that registers is there.
//!
//! | From | To | Verdict | Code |
//! |---|---|---|---|
//! | provisioning, awaiting-agent, degraded, offline, failed | online | allow | `registered` |
//! | paused | online | deny | `workspace-paused` |
//! | hibernated | online | deny | `workspace-hibernated` |
//! | removed | online | deny | `workspace-removed` |
//!
//! Everything else: abstain. The host's table has no edge from paused,
//! hibernated or removed on a registration; the refusals stand here so that the
//! rule is whole wherever this module is asked.

use sprag_policy::prelude::*;

/// The policy.
pub struct Registration;

impl Policy for Registration {
    const NAME: &'static str = "registration";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A registration brings a workspace online, unless it was put away.";
    type Settings = ();
}

impl Guard for Registration {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.causes(&[CauseKind::Registered])];

    fn decide(request: &Request, candidate: Status) -> Verdict {
        if !matches!(request.cause, Cause::Registered(_)) || candidate != Status::Online {
            return Verdict::Abstain;
        }
        match request.workspace.status {
            Status::Provisioning
            | Status::AwaitingAgent
            | Status::Degraded
            | Status::Offline
            | Status::Failed => Verdict::allow("registered"),
            Status::Paused => Verdict::deny("workspace-paused"),
            Status::Hibernated => Verdict::deny("workspace-hibernated"),
            Status::Removed => Verdict::deny("workspace-removed"),
            Status::Online => Verdict::Abstain,
        }
    }
}

sprag_policy::export!(Registration);

#[cfg(test)]
mod tests;
