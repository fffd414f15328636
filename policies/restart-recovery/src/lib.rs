//! The `restart-recovery` policy: a workspace whose box is lost, or never came
//! up, is started again.
//!
//! | Cause | Moved to | Action | Code | Unless |
//! |---|---|---|---|---|
//! | silence | offline | restart | `went-silent` | `after-silence` is off |
//! | probed | offline | restart | `box-not-running` | `after-probed` is off |
//! | provisioning-for | failed | restart | `never-came-up` | `after-provisioning-for` is off |
//! | silence, of a row that is offline or failed | (nowhere) | restart | `still-down` | `while-down` is off, or it was heard of within `down-for` |
//!
//! The last is how a restart that had to wait for its cooldown, or that did not
//! help, is asked for again.
//!
//! Everything else: nothing. The box of runtime `external` is not the
//! platform's to start; and a workspace that an agent's own report failed has a
//! box that runs, which a new one would not better.

use std::time::Duration;

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
        /// Whether a workspace that stays down is restarted again.
        pub while_down: bool = true,
        /// How long it has to be silent for that.
        pub down_for: Duration = Duration::from_secs(60),
    }
}

/// The policy.
pub struct RestartRecovery;

impl Policy for RestartRecovery {
    const NAME: &'static str = "restart-recovery";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace whose box is lost, or never came up, is started again.";
    const THRESHOLDS: &'static [Threshold] = &[Threshold { fact: "silence", setting: "down-for" }];
    type Settings = Settings;
}

impl Recovery for RestartRecovery {
    const INTERESTS: &'static [Interest] = &[
        Interest::EVERYWHERE
            .causes(&[CauseKind::Silence, CauseKind::Probed])
            .statuses(&[Status::Online, Status::Degraded]),
        Interest::EVERYWHERE.causes(&[CauseKind::ProvisioningFor]).statuses(&[Status::Provisioning]),
        Interest::EVERYWHERE.causes(&[CauseKind::Silence]).statuses(&[Status::Offline, Status::Failed]),
    ];

    fn plan(request: &RecoveryRequest<Settings>) -> Vec<Trigger> {
        let settings = &request.settings;
        let (wanted, code) = match (&request.cause, request.outcome.moved_to()) {
            (Cause::Silence(_), Some(Status::Offline)) => (settings.after_silence, "went-silent"),
            (Cause::Probed(_), Some(Status::Offline)) => (settings.after_probed, "box-not-running"),
            (Cause::ProvisioningFor(_), Some(Status::Failed)) => {
                (settings.after_provisioning_for, "never-came-up")
            }
            (Cause::Silence(silent), None) if is_down(request.workspace.status) => {
                let long = Duration::from_millis(*silent) >= settings.down_for;
                (settings.while_down && long, "still-down")
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

fn is_down(status: Status) -> bool {
    matches!(status, Status::Offline | Status::Failed)
}

sprag_policy::export!(RestartRecovery: recovery);

#[cfg(test)]
mod tests;
