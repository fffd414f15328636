//! The `restart-recovery` policy: a workspace whose box is lost, or never came
//! up, is started again.
//!
//! | Cause | Moved to | Action | Code | Unless |
//! |---|---|---|---|---|
//! | silence | offline | restart | `went-silent` | `after-silence` is off |
//! | probed | offline | restart | `box-not-running` | `after-probed` is off, or it was heard of within `heard-within` |
//! | probed | failed | restart | `boot-failed` | `after-failed-boot` is off, or the boot was heard of within `heard-within` |
//! | provisioning-for | failed | restart | `never-came-up` | `after-provisioning-for` is off, as it is by default |
//! | silence, of a row that is down | (nowhere) | restart | `still-down` | `while-down` is off, or it is not time |
//!
//! A box that takes longer to boot than is usual comes online when it speaks; who
//! restarts it at once never lets it. So a row that `provisioning-for` failed is
//! left alone for `failed-for`, and one that is offline for `down-for`. That is also
//! how a restart that had to wait for its cooldown, or that did not help, is asked
//! for again; until nothing was heard of the agent for `give-up-after`. A boot whose
//! box is not running any more is another matter: nothing boots there.
//!
//! A restart costs an agent that lives its box. So whoever let a row go down on a
//! provider's word alone, which may lag, does not thereby have it restarted: an
//! agent that spoke within `heard-within` comes back by itself, or stays down and
//! is asked about as above.
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
        /// How young an agent's word has to be to prove that the box runs, whatever its provider says; 0 for never.
        pub heard_within: Duration = Duration::from_secs(45),
        /// Whether a workspace is restarted whose box ended before its agent came online.
        pub after_failed_boot: bool = true,
        /// Whether a workspace that never came up is restarted.
        pub after_provisioning_for: bool = false,
        /// Whether a workspace that stays down is restarted again.
        pub while_down: bool = true,
        /// How long it has to be silent for that, if it is offline.
        pub down_for: Duration = Duration::from_secs(60),
        /// How long it has to be silent for that, if it is failed.
        pub failed_for: Duration = Duration::from_secs(1_800),
        /// When to stop: how long ago its last heartbeat is.
        pub give_up_after: Duration = Duration::from_secs(86_400),
    }
}

/// The policy.
pub struct RestartRecovery;

impl Policy for RestartRecovery {
    const NAME: &'static str = "restart-recovery";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace whose box is lost, or never came up, is started again.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "workspace.last-heartbeat-at", setting: "heard-within" },
        Threshold { fact: "silence", setting: "down-for" },
        Threshold { fact: "silence", setting: "failed-for" },
        Threshold { fact: "workspace.last-heartbeat-at", setting: "give-up-after" },
    ];
    type Settings = Settings;
}

impl Recovery for RestartRecovery {
    const INTERESTS: &'static [Interest] = &[
        Interest::EVERYWHERE
            .causes(&[CauseKind::Silence, CauseKind::Probed])
            .statuses(&[Status::Online, Status::Degraded]),
        Interest::EVERYWHERE
            .causes(&[CauseKind::Probed, CauseKind::ProvisioningFor])
            .statuses(&[Status::Provisioning]),
        Interest::EVERYWHERE.causes(&[CauseKind::Silence]).statuses(&[Status::Offline, Status::Failed]),
    ];

    fn plan(request: &RecoveryRequest<Settings>) -> Vec<Trigger> {
        let settings = &request.settings;
        let (wanted, code) = match (&request.cause, request.outcome.moved_to()) {
            (Cause::Silence(_), Some(Status::Offline)) => (settings.after_silence, "went-silent"),
            (Cause::Probed(_), Some(Status::Offline)) => {
                (settings.after_probed && !was_heard(request), "box-not-running")
            }
            (Cause::Probed(_), Some(Status::Failed)) => {
                (settings.after_failed_boot && !was_heard(request), "boot-failed")
            }
            (Cause::ProvisioningFor(_), Some(Status::Failed)) => {
                (settings.after_provisioning_for, "never-came-up")
            }
            (Cause::Silence(silent), None) => {
                (settings.while_down && is_time(request, Duration::from_millis(*silent)), "still-down")
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

/// Whether the agent spoke a moment ago, as `instances` sees it.
fn was_heard(request: &RecoveryRequest<Settings>) -> bool {
    let row = &request.workspace;
    let heard = match row.status {
        Status::Provisioning => row.last_heartbeat_at.filter(|at| *at >= row.status_since),
        _ => row.last_heartbeat_at.max(Some(row.status_since)),
    };
    heard
        .map(|at| Duration::from_millis(request.now.saturating_sub(at)))
        .is_some_and(|ago| ago < request.settings.heard_within)
}

/// Whether a row that is down has been so long enough, and not too long.
fn is_time(request: &RecoveryRequest<Settings>, silent: Duration) -> bool {
    let (row, settings) = (&request.workspace, &request.settings);
    let long = match row.status {
        Status::Offline => silent >= settings.down_for,
        Status::Failed => silent >= settings.failed_for,
        _ => false,
    };
    let heard = row.last_heartbeat_at.unwrap_or(row.status_since);
    long && Duration::from_millis(request.now.saturating_sub(heard)) < settings.give_up_after
}

sprag_policy::export!(RestartRecovery: recovery);

#[cfg(test)]
mod tests;
