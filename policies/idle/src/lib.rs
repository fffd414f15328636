//! The `idle` policy: a workspace that has had nothing to do for its own limit
//! is hibernated.
//!
//! The host asks once that limit has passed; this policy looks at the rest.
//!
//! | To | Verdict | Code | When |
//! |---|---|---|---|
//! | hibernated | allow | `idle` | idle ≥ `at-least`, and nothing below holds |
//!
//! An abstention: the workspace is a platform, which has to be there when the
//! others need it, unless the setting `platform` is on; its runtime is
//! `external`, whose box is not the platform's to stop; it has tasks. What its
//! box keeps outlives a hibernation, so a persistent volume is no obstacle.

use std::time::Duration;

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// Who may be hibernated, and when.
    pub struct Settings {
        /// How long a workspace is left alone, however short its own limit is.
        pub at_least: Duration = Duration::from_secs(300),
        /// Whether a platform workspace is hibernated as well.
        pub platform: bool = false,
    }
}

/// The policy.
pub struct Idle;

impl Policy for Idle {
    const NAME: &'static str = "idle";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace that had nothing to do for its own limit is hibernated.";
    const THRESHOLDS: &'static [Threshold] = &[Threshold { fact: "idle-for", setting: "at-least" }];
    type Settings = Settings;
}

impl Guard for Idle {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::IdleFor]).statuses(&[Status::Online, Status::Degraded])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::IdleFor(idle) = request.cause else { return Verdict::Abstain };
        let long = Duration::from_millis(idle) >= request.settings.at_least;
        if candidate == Status::Hibernated && long && may_sleep(&request.workspace, &request.settings) {
            Verdict::allow("idle").detail("it had nothing to do for its own limit")
        } else {
            Verdict::Abstain
        }
    }
}

fn may_sleep(row: &Workspace, settings: &Settings) -> bool {
    (row.kind != "platform" || settings.platform) && row.runtime != "external" && row.active_tasks == 0
}

sprag_policy::export!(Idle);

#[cfg(test)]
mod tests;
