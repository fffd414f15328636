//! The `online-reconcile` policy: a workspace that comes online gets its
//! declared plugins delivered.
//!
//! Its box may be a new one, or may have missed what was declared while it was
//! away.
//!
//! | Moved from | To | Action | Code |
//! |---|---|---|---|
//! | provisioning, awaiting-agent, offline, failed | online | reconcile-plugins | `came-online` |
//!
//! Everything else: nothing. From degraded it was there all the time.

use sprag_policy::prelude::*;

/// The policy.
pub struct OnlineReconcile;

impl Policy for OnlineReconcile {
    const NAME: &'static str = "online-reconcile";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace that comes online gets its declared plugins delivered.";
    type Settings = ();
}

/// The statuses in which a box may have missed something.
const AWAY: &[Status] = &[Status::Provisioning, Status::AwaitingAgent, Status::Offline, Status::Failed];

impl Recovery for OnlineReconcile {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::Registered, CauseKind::Heartbeat]).statuses(AWAY)];

    fn plan(request: &RecoveryRequest) -> Vec<Trigger> {
        match &request.outcome {
            Outcome::Moved(step) if step.target == Status::Online && AWAY.contains(&step.origin) => {
                vec![Trigger::new(Action::ReconcilePlugins, "came-online")]
            }
            _ => Vec::new(),
        }
    }
}

sprag_policy::export!(OnlineReconcile: recovery);

#[cfg(test)]
mod tests;
