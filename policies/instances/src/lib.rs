//! The `instances` policy: a workspace whose box is not running is offline; one
//! that boots in such a box has failed.
//!
//! | From | To | Verdict | Code | When |
//! |---|---|---|---|---|
//! | online, degraded | offline | allow | `box-not-running` | the row's own instance is not running |
//! | provisioning | failed | allow | `boot-failed` | the same |
//!
//! Not believed, and so an abstention, is an answer about an instance that is
//! not the row's; one within `grace` of the row's coming into its status, since
//! a provider may list a new box late; and one while the agent's last word is
//! younger than `heard-within`: its last heartbeat, or what brought its row to
//! life (of a boot: a heartbeat of its own, not one of the box before). Both are
//! off at 0. The box of runtime `external` is not the platform's.
//! Everything else: abstain.
//!
//! Many a provider answers from a copy that lags. An agent that heartbeats every
//! 30 s, as those of the field do, is never silent for 45 s while it lives; and
//! one that is gone has been silent for longer when the loop asks again, a minute
//! later. So no answer alone takes down what speaks, and what is gone is found
//! before or about when `silence` would. A boot has 30 s to be listed at all.

use std::time::Duration;

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// When a provider is believed.
    pub struct Settings {
        /// How long after a row came into its status its box may be not running yet.
        pub grace: Duration = Duration::from_secs(30),
        /// How young an agent's word has to be to prove that the box runs all the same; 0 for never.
        pub heard_within: Duration = Duration::from_secs(45),
    }
}

/// The policy.
pub struct Instances;

impl Policy for Instances {
    const NAME: &'static str = "instances";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace whose box is not running is offline, or its boot has failed.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "workspace.status-since", setting: "grace" },
        Threshold { fact: "workspace.last-heartbeat-at", setting: "heard-within" },
    ];
    type Settings = Settings;
}

impl Guard for Instances {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.causes(&[CauseKind::Probed]).statuses(&[
        Status::Provisioning,
        Status::Online,
        Status::Degraded,
    ])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::Probed(probe) = &request.cause else { return Verdict::Abstain };
        let gone = !probe.running && is_its_own(probe, &request.workspace);
        if !gone || !is_believed(request) {
            return Verdict::Abstain;
        }
        match (request.workspace.status, candidate) {
            (Status::Online | Status::Degraded, Status::Offline) => {
                Verdict::allow("box-not-running").detail("its provider says that its box is not running")
            }
            (Status::Provisioning, Status::Failed) => Verdict::allow("boot-failed")
                .detail("its provider says that its box is not running, and its agent never came online"),
            _ => Verdict::Abstain,
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
    let heard = match row.status {
        // What was heard before a boot began, the box before it said.
        Status::Provisioning => row.last_heartbeat_at.filter(|at| *at >= row.status_since),
        // To life it came by what its agent said, which need not have been a heartbeat.
        _ => row.last_heartbeat_at.max(Some(row.status_since)),
    };
    ago(row.status_since) >= request.settings.grace
        && heard.is_none_or(|at| ago(at) >= request.settings.heard_within)
}

sprag_policy::export!(Instances);

#[cfg(test)]
mod tests;
