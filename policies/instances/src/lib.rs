//! The `instances` policy: a workspace whose box is not running is offline.
//!
//! | To | Verdict | Code | When |
//! |---|---|---|---|
//! | offline | allow | `box-not-running` | the row's own instance is not running |
//!
//! Not believed, and so an abstention, is an answer about an instance that is
//! not the row's; one within `grace` of the row's coming into its status, since
//! a provider may list a new box late; and one while the last heartbeat is
//! younger than `heard-within`. Both are off at 0. The box of runtime
//! `external` is not the platform's. Everything else: abstain.

use std::time::Duration;

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// When a provider is believed.
    pub struct Settings {
        /// How long after a row came into its status its box may be not running yet.
        pub grace: Duration = Duration::ZERO,
        /// How young a heartbeat has to be to prove that the box runs all the same; 0 for never.
        pub heard_within: Duration = Duration::ZERO,
    }
}

/// The policy.
pub struct Instances;

impl Policy for Instances {
    const NAME: &'static str = "instances";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace whose box is not running is offline.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "workspace.status-since", setting: "grace" },
        Threshold { fact: "workspace.last-heartbeat-at", setting: "heard-within" },
    ];
    type Settings = Settings;
}

impl Guard for Instances {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::Probed]).statuses(&[Status::Online, Status::Degraded])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::Probed(probe) = &request.cause else { return Verdict::Abstain };
        let gone = !probe.running && is_its_own(probe, &request.workspace);
        if candidate == Status::Offline && gone && is_believed(request) {
            Verdict::allow("box-not-running").detail("its provider says that its box is not running")
        } else {
            Verdict::Abstain
        }
    }
}

/// Whether the answer is about the instance that the row names, and the
/// platform has one to name.
fn is_its_own(probe: &Probe, row: &Workspace) -> bool {
    row.runtime != "external"
        && !probe.instance_id.is_empty()
        && row.instance_id.as_ref() == Some(&probe.instance_id)
}

/// Whether nothing that is known here speaks against "not running".
fn is_believed(request: &Request<Settings>) -> bool {
    let ago = |time| Duration::from_millis(request.now.saturating_sub(time));
    let row = &request.workspace;
    ago(row.status_since) >= request.settings.grace
        && row.last_heartbeat_at.is_none_or(|at| ago(at) >= request.settings.heard_within)
}

sprag_policy::export!(Instances);

#[cfg(test)]
mod tests;
