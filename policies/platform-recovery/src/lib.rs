//! The `platform-recovery` policy: a platform workspace without its tools gets
//! them delivered.
//!
//! The gate keeps such a workspace from going online. A gate that nothing
//! follows would keep it so for ever: the tools come with a delivery, and the
//! delivery must not wait for the workspace to be online. So the cure is asked
//! for in the very step that the gate holds or fails, and also where the gate
//! itself has failed.
//!
//! | Outcome | Tools are missing, says | Action | Code |
//! |---|---|---|---|
//! | held by a denial, or moved to failed | its reason: the gate's own code | reconcile-plugins | that code |
//! | held by a denial (a guard's error is one), or moved to failed | the agent: `mcp-server-present` is false | reconcile-plugins | `mcp-server-missing` |
//! | the same | the agent: `loaded-mcp-tools` is 0 | reconcile-plugins | `mcp-tools-not-loaded` |
//!
//! Everything else: nothing. No delivery brings a missing model, and a restart
//! brings neither.

use sprag_policy::prelude::*;

/// The policy.
pub struct PlatformRecovery;

impl Policy for PlatformRecovery {
    const NAME: &'static str = "platform-recovery";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A platform workspace without its tools gets them delivered.";
    type Settings = ();
}

/// The statuses in which a workspace is meant to run.
const RUNNING: &[Status] = &[
    Status::Provisioning,
    Status::AwaitingAgent,
    Status::Online,
    Status::Degraded,
    Status::Offline,
    Status::Failed,
];

impl Recovery for PlatformRecovery {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE
        .causes(&[CauseKind::Registered, CauseKind::Heartbeat])
        .statuses(RUNNING)
        .kinds(&["platform"])];

    fn plan(request: &RecoveryRequest) -> Vec<Trigger> {
        let readiness = match &request.cause {
            Cause::Registered(readiness) => readiness,
            Cause::Heartbeat(heartbeat) => &heartbeat.readiness,
            _ => return Vec::new(),
        };
        let down = matches!(request.outcome.moved_to(), None | Some(Status::Failed));
        let reasons = request.outcome.reasons();
        let concerned = request.workspace.kind == "platform" && RUNNING.contains(&request.workspace.status);
        // Held without a reason: nobody keeps it from anything.
        if !concerned || !down || reasons.is_empty() {
            return Vec::new();
        }
        let named = reasons.iter().find_map(|reason| TOOLS.into_iter().find(|code| *code == reason.code));
        match named.or_else(|| reported(readiness)) {
            Some(code) => vec![Trigger::new(Action::ReconcilePlugins, code)],
            None => Vec::new(),
        }
    }
}

const SERVER_MISSING: &str = "mcp-server-missing";
const NOT_LOADED: &str = "mcp-tools-not-loaded";

/// The codes of `platform-gate` that a delivery can cure.
const TOOLS: [&str; 2] = [SERVER_MISSING, NOT_LOADED];

/// Which tools the agent itself reports as missing. What it does not report
/// only the gate's settings can tell, and so only the gate's codes do.
fn reported(readiness: &Readiness) -> Option<&'static str> {
    if readiness.mcp_server_present == Some(false) {
        Some(SERVER_MISSING)
    } else if readiness.loaded_mcp_tools == Some(0) {
        Some(NOT_LOADED)
    } else {
        None
    }
}

sprag_policy::export!(PlatformRecovery: recovery);

#[cfg(test)]
mod tests;
