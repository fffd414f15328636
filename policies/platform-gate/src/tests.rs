//! Every combination of readiness, both causes, every way online.

use sprag_policy::CommandKind;
use sprag_policy::testing::{Ask, command, heartbeat, ready, unreported};

use super::*;
use Status::*;

/// How the first missing thing follows from the three facts.
fn expected(readiness: &Readiness, unreported_is_missing: bool) -> Option<&'static str> {
    let absent = |fact: Option<bool>| fact == Some(false) || (fact.is_none() && unreported_is_missing);
    [
        (absent(readiness.mcp_server_present), "mcp-server-missing"),
        (absent(readiness.loaded_mcp_tools.map(|n| n != 0)), "mcp-tools-not-loaded"),
        (absent(readiness.model_present), "model-missing"),
    ]
    .into_iter()
    .find_map(|(missing, code)| missing.then_some(code))
}

fn every_readiness() -> Vec<Readiness> {
    let flags = [None, Some(false), Some(true)];
    let counts = [None, Some(0), Some(1), Some(40)];
    flags
        .into_iter()
        .flat_map(|server| flags.into_iter().map(move |model| (server, model)))
        .flat_map(|(mcp_server_present, model_present)| {
            counts.into_iter().map(move |loaded_mcp_tools| Readiness {
                mcp_server_present,
                model_present,
                loaded_mcp_tools,
            })
        })
        .collect()
}

#[test]
fn what_is_missing_denies_every_way_online_and_allows_failed() {
    for strict in [false, true] {
        for readiness in every_readiness() {
            let causes = [Cause::from(readiness), Cause::from(heartbeat().readiness(readiness))];
            for cause in causes {
                let ask = Ask::at(Degraded)
                    .kind("platform")
                    .because(cause)
                    .setting("unreported-is-missing", strict);
                let verdicts = ask.all::<PlatformGate>(&[Failed, Online, Degraded]);
                match expected(&readiness, strict) {
                    Some(code) => {
                        assert!(matches!(&verdicts[0], Verdict::Allow(r) if r.code == code), "{verdicts:?}");
                        assert!(matches!(&verdicts[1], Verdict::Deny(r) if r.code == code), "{verdicts:?}");
                        assert!(matches!(&verdicts[2], Verdict::Deny(r) if r.code == code), "{verdicts:?}");
                    }
                    None => assert_eq!(verdicts, [Verdict::Abstain, Verdict::Abstain, Verdict::Abstain]),
                }
            }
        }
    }
}

#[test]
fn one_missing_thing_at_a_time() {
    let cases = [
        (Readiness { mcp_server_present: Some(false), ..ready() }, Some("mcp-server-missing")),
        (Readiness { loaded_mcp_tools: Some(0), ..ready() }, Some("mcp-tools-not-loaded")),
        (Readiness { loaded_mcp_tools: Some(1), ..ready() }, None),
        (Readiness { model_present: Some(false), ..ready() }, Some("model-missing")),
        (ready(), None),
        (unreported(), None),
    ];
    for (readiness, code) in cases {
        for from in [Provisioning, AwaitingAgent, Offline, Failed, Degraded] {
            let verdict = Ask::at(from).kind("platform").because(readiness).of::<PlatformGate>(Online);
            assert_eq!(verdict.code(), code, "{from:?} {readiness:?}");
        }
    }
}

#[test]
fn an_agent_too_old_to_say_is_shut_out_on_request() {
    let old = Ask::at(Provisioning).kind("platform").because(unreported());
    assert_eq!(old.of::<PlatformGate>(Online), Verdict::Abstain);
    let strict = old.setting("unreported-is-missing", true);
    assert_eq!(strict.of::<PlatformGate>(Online).code(), Some("mcp-server-missing"));
}

#[test]
fn only_platform_workspaces_registrations_and_heartbeats_are_gated() {
    let nothing =
        Readiness { mcp_server_present: Some(false), model_present: Some(false), loaded_mcp_tools: Some(0) };
    for candidate in [Failed, Online, Degraded] {
        let ask = Ask::at(Provisioning).kind("workspace").because(nothing);
        assert_eq!(ask.of::<PlatformGate>(candidate), Verdict::Abstain);
        let ask = Ask::at(Failed).kind("platform").because(command(CommandKind::Restart));
        assert_eq!(ask.of::<PlatformGate>(candidate), Verdict::Abstain);
    }
    let manifest = sprag_policy::manifest::<PlatformGate>();
    assert_eq!(manifest.interests[0].kinds, ["platform"]);
    assert_eq!(manifest.interests[0].causes, [CauseKind::Registered, CauseKind::Heartbeat]);
}
