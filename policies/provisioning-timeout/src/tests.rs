//! Both sides of every limit, who wins, and what a typo does.

use sprag_policy::testing::{Ask, heartbeat, ready};
use sprag_policy::{Setting, manifest};

use super::*;
use Status::*;

const MINUTE: u64 = 60_000;

fn waiting(runtime: &str, millis: u64) -> Ask {
    Ask::at(Provisioning).runtime(runtime).because(Cause::ProvisioningFor(millis))
}

/// Asserts that exactly so long a wait gives up a row of this runtime.
fn fails(runtime: &str, change: impl Fn(Ask) -> Ask, limit: u64) {
    let after = |millis| change(waiting(runtime, millis)).of::<ProvisioningTimeout>(Failed);
    assert_eq!(after(limit).code(), Some("provisioning-timed-out"), "{runtime}");
    assert_eq!(after(u64::MAX).code(), Some("provisioning-timed-out"), "{runtime}");
    assert_eq!(after(limit - 1), Verdict::Abstain, "{runtime}");
}

#[test]
fn ten_minutes_and_thirty_for_hermes() {
    for (runtime, minutes) in [("claude-code", 10), ("external", 10), ("", 10), ("hermes", 30)] {
        fails(runtime, |ask| ask, minutes * MINUTE);
    }
}

#[test]
fn the_limits_are_settings() {
    let hour = Duration::from_secs(3_600);
    fails("claude-code", |ask| ask.setting("limit", hour), 60 * MINUTE);
    fails("hermes", |ask| ask.setting("limit-hermes", hour), 60 * MINUTE);
    fails("hermes", |ask| ask.setting("limit", hour), 30 * MINUTE);
}

#[test]
fn an_entry_by_name_wins() {
    let named = |ask: Ask| ask.setting("limits", "codex=20m, hermes=1h".to_owned());
    fails("codex", named, 20 * MINUTE);
    fails("hermes", named, 60 * MINUTE);
    fails("claude-code", named, 10 * MINUTE);
}

#[test]
fn a_typo_denies_every_candidate_of_every_runtime() {
    for runtime in ["codex", "hermes", "claude-code"] {
        for millis in [0, u64::MAX] {
            let ask = waiting(runtime, millis).setting("limits", "hermes=1h, codex=20".to_owned());
            for verdict in ask.all::<ProvisioningTimeout>(&[Failed, Offline]) {
                assert!(matches!(&verdict, Verdict::Deny(r) if r.code == "bad-setting"), "{verdict:?}");
                let detail = verdict.reason().unwrap().detail.as_deref().unwrap();
                assert!(detail.starts_with("limits has \"codex=20\""), "{detail}");
            }
        }
    }
}

#[test]
fn the_detail_names_the_wait_and_the_limit() {
    let verdict = waiting("hermes", 31 * MINUTE).of::<ProvisioningTimeout>(Failed);
    let expected = Verdict::allow("provisioning-timed-out").detail("provisioning for 31m, its limit is 30m");
    assert_eq!(verdict, expected);
}

#[test]
fn other_candidates_and_other_causes_are_left_to_others() {
    for candidate in [AwaitingAgent, Online, Degraded, Offline, Paused, Hibernated, Removed] {
        let verdict = waiting("claude-code", u64::MAX).of::<ProvisioningTimeout>(candidate);
        assert_eq!(verdict, Verdict::Abstain, "{candidate:?}");
    }
    for cause in [heartbeat().into(), ready().into(), Cause::Silence(u64::MAX)] {
        let ask = Ask::at(Provisioning).because(cause);
        assert_eq!(ask.of::<ProvisioningTimeout>(Failed), Verdict::Abstain);
    }
}

#[test]
fn it_is_asked_about_slow_boots_only_and_names_its_limits() {
    let manifest = manifest::<ProvisioningTimeout>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.causes, [CauseKind::ProvisioningFor]);
    assert_eq!(interest.statuses, [Provisioning]);
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    let expected = [
        ("limit", Setting::Duration(10 * MINUTE)),
        ("limit-hermes", Setting::Duration(30 * MINUTE)),
        ("limits", Setting::Text(String::new())),
    ];
    assert_eq!(settings, expected);
    let thresholds: Vec<_> = manifest.thresholds.iter().map(|t| t.setting.as_str()).collect();
    assert_eq!(thresholds, ["limit", "limit-hermes"]);
}
