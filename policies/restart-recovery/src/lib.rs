//! The `restart-recovery` policy: a workspace whose box is lost, or never came
//! up, is started again.
//!
//! | Cause | Moved to | Action | Code | Unless |
//! |---|---|---|---|---|
//! | silence | offline | restart | `went-silent` | `after-silence` is off |
//! | probed | offline | restart | `box-not-running` | `after-probed` is off |
//! | provisioning-for | failed | restart | `never-came-up` | `after-provisioning-for` is off |
//!
//! Everything else: nothing. The box of runtime `external` is not the
//! platform's to start; and a workspace that an agent's own report failed has a
//! box that runs, which a new one would not better.

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// Which losses are answered.
    pub struct Settings {
        /// Whether a workspace that went silent is restarted.
        pub after_silence: bool = true,
        /// Whether a workspace whose box is not running is restarted.
        pub after_probed: bool = true,
        /// Whether a workspace that never came up is restarted.
        pub after_provisioning_for: bool = true,
    }
}

/// The policy.
pub struct RestartRecovery;

impl Policy for RestartRecovery {
    const NAME: &'static str = "restart-recovery";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace whose box is lost, or never came up, is started again.";
    type Settings = Settings;
}

impl Recovery for RestartRecovery {
    const INTERESTS: &'static [Interest] = &[
        Interest::EVERYWHERE
            .causes(&[CauseKind::Silence, CauseKind::Probed])
            .statuses(&[Status::Online, Status::Degraded]),
        Interest::EVERYWHERE.causes(&[CauseKind::ProvisioningFor]).statuses(&[Status::Provisioning]),
    ];

    fn plan(request: &RecoveryRequest<Settings>) -> Vec<Trigger> {
        let settings = &request.settings;
        let (wanted, code) = match (&request.cause, request.outcome.moved_to()) {
            (Cause::Silence(_), Some(Status::Offline)) => (settings.after_silence, "went-silent"),
            (Cause::Probed(_), Some(Status::Offline)) => (settings.after_probed, "box-not-running"),
            (Cause::ProvisioningFor(_), Some(Status::Failed)) => {
                (settings.after_provisioning_for, "never-came-up")
            }
            _ => return Vec::new(),
        };
        if wanted && request.workspace.runtime != "external" {
            vec![Trigger::new(Action::Restart, code)]
        } else {
            Vec::new()
        }
    }
}

sprag_policy::export!(RestartRecovery: recovery);

#[cfg(test)]
mod tests;
