//! The `heartbeat` policy: what a live heartbeat says of its workspace.
//!
//! A heartbeat is the authority on whether an agent lives: it brings a row
//! online whatever somebody concluded from its silence, and a slow boot that
//! was given up on is no exception (`failed` → `online`). Whether a live agent
//! is also *well* is judged online: by its error rate and by a runtime that is
//! stuck. A row that was not online comes online first, even wedged; the next
//! heartbeat degrades it.
//!
//! | From | To | Verdict | Code | When |
//! |---|---|---|---|---|
//! | provisioning, awaiting-agent | online | allow | `agent-started` | always |
//! | offline | online | allow | `agent-returned` | always |
//! | failed | online | allow | `agent-alive` | always |
//! | online | degraded | allow | `runtime-wedged` | the runtime is stuck |
//! | online | degraded | allow | `error-rate-high` | error rate ≥ `degrade-at` |
//! | degraded | online | allow | `recovered` | error rate < `recover-below`, runtime not stuck |
//!
//! Everything else: abstain, so that other policies may decide it. Between the two thresholds nothing moves, so an
//! agent at the edge doesn't flap. An agent that reports its own status is not
//! inferred about: its error rate neither degrades it nor holds it back, only
//! its wedge counts. An error rate that is no number proves nothing.

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// The thresholds.
    pub struct Settings {
        /// Error rate from which an online agent is degraded.
        pub degrade_at: f64 = 0.5,
        /// Error rate under which a degraded agent is online again.
        pub recover_below: f64 = 0.1,
    }
}

/// The policy.
pub struct LiveHeartbeat;

impl Policy for LiveHeartbeat {
    const NAME: &'static str = "heartbeat";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A live heartbeat brings a workspace online; errors or a wedge degrade it.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "heartbeat.error-rate", setting: "degrade-at" },
        Threshold { fact: "heartbeat.error-rate", setting: "recover-below" },
    ];
    type Settings = Settings;
}

impl Guard for LiveHeartbeat {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.causes(&[CauseKind::Heartbeat])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::Heartbeat(heartbeat) = &request.cause else { return Verdict::Abstain };
        match (request.workspace.status, candidate) {
            (Status::Provisioning | Status::AwaitingAgent, Status::Online) => Verdict::allow("agent-started"),
            (Status::Offline, Status::Online) => Verdict::allow("agent-returned"),
            (Status::Failed, Status::Online) => Verdict::allow("agent-alive"),
            (Status::Online, Status::Degraded) => degrades(heartbeat, &request.settings),
            (Status::Degraded, Status::Online) => recovers(heartbeat, &request.settings),
            _ => Verdict::Abstain,
        }
    }
}

/// A stuck runtime, as agents report it.
const WEDGED: &str = "wedged";

fn degrades(heartbeat: &Heartbeat, settings: &Settings) -> Verdict {
    if heartbeat.runtime_state == WEDGED {
        Verdict::allow("runtime-wedged").detail("the agent's runtime is stuck")
    } else if !heartbeat.native_status && heartbeat.error_rate >= settings.degrade_at {
        Verdict::allow("error-rate-high").detail("too many of the agent's operations fail")
    } else {
        Verdict::Abstain
    }
}

fn recovers(heartbeat: &Heartbeat, settings: &Settings) -> Verdict {
    let wedged = heartbeat.runtime_state == WEDGED;
    let well = heartbeat.native_status || heartbeat.error_rate < settings.recover_below;
    if well && !wedged { Verdict::allow("recovered") } else { Verdict::Abstain }
}

sprag_policy::export!(LiveHeartbeat);

#[cfg(test)]
mod tests;
