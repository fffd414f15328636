//! Every edge, both sides of every threshold, every reason code.

use sprag_policy::Setting;
use sprag_policy::testing::{Ask, heartbeat, ready};

use super::*;
use Status::*;

const ALL: [Status; 9] =
    [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Hibernated, Removed];

fn code(ask: &Ask, candidate: Status) -> Option<String> {
    match ask.of::<LiveHeartbeat>(candidate) {
        Verdict::Allow(reason) => Some(reason.code),
        Verdict::Abstain => None,
        Verdict::Deny(reason) => panic!("the heartbeat policy denies nothing: {reason:?}"),
    }
}

#[test]
fn a_live_agent_comes_online_from_wherever_it_was_believed_to_be() {
    let cases = [
        (Provisioning, "agent-started"),
        (AwaitingAgent, "agent-started"),
        (Offline, "agent-returned"),
        (Failed, "agent-alive"),
    ];
    let unwell = [heartbeat(), heartbeat().wedged(), heartbeat().error_rate(1.0), heartbeat().native()];
    for (from, expected) in cases {
        for beat in &unwell {
            let ask = Ask::at(from).because(beat.clone());
            assert_eq!(code(&ask, Online).as_deref(), Some(expected), "{from:?} {beat:?}");
        }
    }
}

#[test]
fn online_is_degraded_by_errors_or_a_wedge() {
    let cases = [
        (heartbeat(), None),
        (heartbeat().error_rate(0.5_f64.next_down()), None),
        (heartbeat().error_rate(0.5), Some("error-rate-high")),
        (heartbeat().error_rate(1.0), Some("error-rate-high")),
        (heartbeat().error_rate(f64::INFINITY), Some("error-rate-high")),
        (heartbeat().error_rate(f64::NAN), None),
        (heartbeat().error_rate(-1.0), None),
        (heartbeat().wedged(), Some("runtime-wedged")),
        (heartbeat().wedged().error_rate(1.0), Some("runtime-wedged")),
        (heartbeat().wedged().error_rate(f64::NAN), Some("runtime-wedged")),
        (heartbeat().native().error_rate(1.0), None),
        (heartbeat().native().wedged(), Some("runtime-wedged")),
        (Heartbeat { runtime_state: "busy".to_owned(), ..heartbeat() }, None),
    ];
    for (beat, expected) in cases {
        assert_eq!(code(&Ask::at(Online).because(beat.clone()), Degraded).as_deref(), expected, "{beat:?}");
    }
}

#[test]
fn degraded_recovers_when_neither_errors_nor_a_wedge_hold_it() {
    let cases = [
        (heartbeat(), true),
        (heartbeat().error_rate(0.1_f64.next_down()), true),
        (heartbeat().error_rate(0.1), false),
        (heartbeat().error_rate(0.3), false),
        (heartbeat().error_rate(f64::NAN), false),
        (heartbeat().wedged(), false),
        (heartbeat().native(), true),
        (heartbeat().native().error_rate(1.0), true),
        (heartbeat().native().wedged(), false),
    ];
    for (beat, recovers) in cases {
        let expected = recovers.then_some("recovered");
        assert_eq!(code(&Ask::at(Degraded).because(beat.clone()), Online).as_deref(), expected, "{beat:?}");
    }
}

#[test]
fn the_thresholds_are_settings() {
    let strict = |status, rate| {
        Ask::at(status)
            .because(heartbeat().error_rate(rate))
            .setting("degrade-at", 0.2)
            .setting("recover-below", 0.05)
    };
    assert_eq!(code(&strict(Online, 0.2), Degraded).as_deref(), Some("error-rate-high"));
    assert_eq!(code(&strict(Online, 0.2_f64.next_down()), Degraded), None);
    assert_eq!(code(&strict(Degraded, 0.05), Online), None);
    assert_eq!(code(&strict(Degraded, 0.05_f64.next_down()), Online).as_deref(), Some("recovered"));
}

#[test]
fn a_setting_of_the_wrong_type_or_no_number_keeps_its_default() {
    for wrong in [Setting::Text("0.2".to_owned()), Setting::Flag(true), Setting::Number(f64::NAN)] {
        let mut ask = Ask::at(Online).because(heartbeat().error_rate(0.5));
        ask.settings = vec![("degrade-at".to_owned(), wrong)];
        assert_eq!(code(&ask, Degraded).as_deref(), Some("error-rate-high"));
    }
}

#[test]
fn it_never_votes_for_failed_nor_where_it_knows_nothing() {
    for from in ALL {
        for beat in [heartbeat(), heartbeat().wedged().error_rate(1.0)] {
            let ask = Ask::at(from).because(beat);
            for candidate in [Failed, Offline, Paused, Hibernated, Removed, Provisioning, AwaitingAgent] {
                assert_eq!(code(&ask, candidate), None, "{from:?} -> {candidate:?}");
            }
        }
    }
    for from in [Paused, Hibernated, Removed, Online] {
        assert_eq!(code(&Ask::at(from), Online), None, "{from:?}");
    }
    assert_eq!(code(&Ask::at(Failed).because(ready()), Online), None, "a registration is not its business");
}

#[test]
fn the_manifest_names_what_the_code_uses() {
    let manifest = sprag_policy::manifest::<LiveHeartbeat>();
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    assert_eq!(settings, [("degrade-at", Setting::Number(0.5)), ("recover-below", Setting::Number(0.1))]);
    for threshold in &manifest.thresholds {
        assert!(settings.iter().any(|(name, _)| *name == threshold.setting), "{threshold:?}");
    }
    assert_eq!(manifest.name, "heartbeat");
    assert_eq!(manifest.interests.len(), 1);
}
