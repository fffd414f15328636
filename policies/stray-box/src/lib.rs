//! The `stray-box` policy: a box that speaks for a workspace that was put away
//! is stopped.
//!
//! | Cause | Status | Outcome | Action | Code |
//! |---|---|---|---|---|
//! | heartbeat | paused | held | stop-instance | `workspace-paused` |
//! | heartbeat | hibernated | held | stop-instance | `workspace-hibernated` |
//! | heartbeat | removed | held | stop-instance | `workspace-removed` |
//!
//! Everything else: nothing. The box of runtime `external` is not the
//! platform's to stop.

use sprag_policy::prelude::*;

/// The policy.
pub struct StrayBox;

impl Policy for StrayBox {
    const NAME: &'static str = "stray-box";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A box that speaks for a workspace that was put away is stopped.";
    type Settings = ();
}

impl Recovery for StrayBox {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE
        .causes(&[CauseKind::Heartbeat])
        .statuses(&[Status::Paused, Status::Hibernated, Status::Removed])];

    fn plan(request: &RecoveryRequest) -> Vec<Trigger> {
        let spoke = matches!(request.cause, Cause::Heartbeat(_));
        if !spoke || request.outcome.moved_to().is_some() || request.workspace.runtime == "external" {
            return Vec::new();
        }
        let code = match request.workspace.status {
            Status::Paused => "workspace-paused",
            Status::Hibernated => "workspace-hibernated",
            Status::Removed => "workspace-removed",
            _ => return Vec::new(),
        };
        vec![Trigger::new(Action::StopInstance, code).detail("its box is running all the same")]
    }
}

sprag_policy::export!(StrayBox: recovery);

#[cfg(test)]
mod tests;
