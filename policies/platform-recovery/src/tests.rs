//! Every thing that can be missing, held and moved, with the gate and without.

use sprag_policy::CommandKind;
use sprag_policy::testing::{Ask, AskRecovery, command, heartbeat, ready, unreported};

use super::*;
use Status::*;

fn no_server() -> Readiness {
    Readiness { mcp_server_present: Some(false), ..ready() }
}

fn not_loaded() -> Readiness {
    Readiness { loaded_mcp_tools: Some(0), ..ready() }
}

fn no_model() -> Readiness {
    Readiness { model_present: Some(false), ..ready() }
}

/// The same readiness, once as a registration and once in a heartbeat.
fn said(status: Status, readiness: Readiness) -> [Ask; 2] {
    let ask = Ask::at(status).kind("platform");
    [ask.clone().because(readiness), ask.because(heartbeat().readiness(readiness))]
}

/// The code of the one delivery that is asked for.
fn delivery(ask: &AskRecovery) -> Option<String> {
    match ask.plan::<PlatformRecovery>().as_slice() {
        [] => None,
        [one] if one.action == Action::ReconcilePlugins => Some(one.code().to_owned()),
        other => panic!("one delivery at most: {other:?}"),
    }
}

#[test]
fn missing_tools_are_delivered_in_the_step_that_fails_or_holds_the_row() {
    let cases = [
        (no_server(), "mcp-server-missing", true),
        (not_loaded(), "mcp-tools-not-loaded", true),
        (no_model(), "model-missing", false),
        (Readiness { model_present: Some(false), ..no_server() }, "mcp-server-missing", true),
        (Readiness { model_present: Some(false), ..not_loaded() }, "mcp-tools-not-loaded", true),
    ];
    for status in RUNNING {
        for (readiness, code, cured) in cases {
            for ask in said(*status, readiness) {
                let expected = cured.then_some(code);
                let failed = ask.clone().moved(Failed, code);
                assert_eq!(delivery(&failed).as_deref(), expected, "failed: {readiness:?}");
                let held = ask.held([code, code]);
                assert_eq!(delivery(&held).as_deref(), expected, "held: {readiness:?}");
            }
        }
    }
}

#[test]
fn a_gate_that_fails_does_not_starve_its_cure() {
    let cases = [
        (no_server(), Some("mcp-server-missing")),
        (not_loaded(), Some("mcp-tools-not-loaded")),
        (no_model(), None),
        (ready(), None),
        (unreported(), None),
    ];
    for (readiness, expected) in cases {
        for ask in said(Failed, readiness) {
            let held = ask.held(["policy-error"]);
            assert_eq!(delivery(&held).as_deref(), expected, "{readiness:?}");
        }
    }
}

#[test]
fn what_the_agent_is_too_old_to_say_the_gate_says() {
    for ask in said(Provisioning, unreported()) {
        let failed = ask.clone().moved(Failed, "mcp-server-missing");
        assert_eq!(delivery(&failed).as_deref(), Some("mcp-server-missing"));
        assert_eq!(delivery(&ask.moved(Online, "agent-started")), None);
    }
}

#[test]
fn the_reason_of_another_does_not_hide_the_missing_tools() {
    for ask in said(Online, not_loaded()) {
        let held = ask.clone().held(["change-freeze", "mcp-tools-not-loaded"]);
        assert_eq!(delivery(&held).as_deref(), Some("mcp-tools-not-loaded"));
        let failed = ask.clone().moved(Failed, "runtime-wedged");
        assert_eq!(delivery(&failed).as_deref(), Some("mcp-tools-not-loaded"));
        // Nobody denied anything: there is no gate, and nothing to cure.
        assert_eq!(delivery(&ask.clone().held([])), None);
        assert_eq!(delivery(&ask.moved(Degraded, "error-rate-high")), None);
    }
}

#[test]
fn a_count_of_one_tool_is_loaded() {
    for (count, expected) in [(0, Some("mcp-tools-not-loaded")), (1, None)] {
        for ask in said(Failed, Readiness { loaded_mcp_tools: Some(count), ..ready() }) {
            assert_eq!(delivery(&ask.held(["policy-error"])).as_deref(), expected);
        }
    }
}

#[test]
fn other_kinds_other_causes_and_what_was_put_away_get_nothing() {
    let ask = Ask::at(Failed).because(no_server());
    assert_eq!(delivery(&ask.kind("workspace").held(["mcp-server-missing"])), None);
    let restart = Ask::at(Failed).kind("platform").because(command(CommandKind::Restart));
    assert_eq!(delivery(&restart.held(["mcp-server-missing"])), None);
    for status in [Paused, Hibernated, Removed] {
        for ask in said(status, no_server()) {
            assert_eq!(delivery(&ask.held(["mcp-server-missing"])), None, "{status:?}");
        }
    }
}

#[test]
fn only_platform_workspaces_are_asked_about() {
    let manifest = sprag_policy::recovery_manifest::<PlatformRecovery>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.kinds, ["platform"]);
    assert_eq!(interest.causes, [CauseKind::Registered, CauseKind::Heartbeat]);
    assert_eq!(interest.statuses, RUNNING);
}
