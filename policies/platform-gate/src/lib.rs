//! The `platform-gate` policy: a platform workspace without its tools or its
//! model must not go online.
//!
//! The concierge that manages the others is of no use, and does harm, while it
//! can't reach its management tools. The gate fails it closed, at registration
//! and at every heartbeat alike, and opens by itself once the agent reports
//! what was missing.
//!
//! | Readiness says | Code |
//! |---|---|
//! | `mcp-server-present` is false | `mcp-server-missing` |
//! | `loaded-mcp-tools` is 0: declared, not loaded | `mcp-tools-not-loaded` |
//! | `model-present` is false | `model-missing` |
//!
//! The first that holds, in this order, denies `online` and `degraded` and
//! allows `failed`; every other candidate is left to other policies, and so is
//! everything once the agent is ready. A fact that the agent does not report
//! is taken as present (older agents don't report any), or as missing with
//! `unreported-is-missing`.

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// What counts as ready.
    pub struct Settings {
        /// Whether a fact that the agent does not report counts as missing.
        pub unreported_is_missing: bool = false,
    }
}

/// The policy.
pub struct PlatformGate;

impl Policy for PlatformGate {
    const NAME: &'static str = "platform-gate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "A platform workspace without its tools or its model is failed, not online.";
    type Settings = Settings;
}

impl Guard for PlatformGate {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::Registered, CauseKind::Heartbeat]).kinds(&["platform"])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let readiness = match &request.cause {
            Cause::Registered(readiness) => readiness,
            Cause::Heartbeat(heartbeat) => &heartbeat.readiness,
            _ => return Verdict::Abstain,
        };
        if request.workspace.kind != "platform" {
            return Verdict::Abstain;
        }
        let Some((code, words)) = missing(readiness, &request.settings) else { return Verdict::Abstain };
        match candidate {
            Status::Online | Status::Degraded => Verdict::deny(code).detail(words),
            Status::Failed => Verdict::allow(code).detail(words),
            _ => Verdict::Abstain,
        }
    }
}

/// What the agent lacks first: the server before its tools, tools before the
/// model, because the one can't be there without the other.
fn missing(readiness: &Readiness, settings: &Settings) -> Option<(&'static str, &'static str)> {
    let unreported = !settings.unreported_is_missing;
    if !readiness.mcp_server_present.unwrap_or(unreported) {
        Some(("mcp-server-missing", "the agent has no management MCP server"))
    } else if !readiness.loaded_mcp_tools.map_or(unreported, |tools| tools > 0) {
        Some((
            "mcp-tools-not-loaded",
            "the management MCP server is declared, but none of its tools is loaded",
        ))
    } else if !readiness.model_present.unwrap_or(unreported) {
        Some(("model-missing", "the agent has no model"))
    } else {
        None
    }
}

sprag_policy::export!(PlatformGate);

#[cfg(test)]
mod tests;
