//! Who is hibernated, who never, and both sides of the least wait.

use sprag_policy::testing::{Ask, heartbeat, ready};
use sprag_policy::{Setting, manifest};

use super::*;
use Status::*;

const LEAST: u64 = 300_000;

fn idle(millis: u64) -> Ask {
    Ask::at(Online).because(Cause::IdleFor(millis))
}

fn code(ask: &Ask) -> Option<String> {
    match ask.of::<Idle>(Hibernated) {
        Verdict::Allow(reason) => Some(reason.code),
        Verdict::Deny(reason) => panic!("nothing is denied: {reason:?}"),
        Verdict::Abstain => None,
    }
}

#[test]
fn who_has_nothing_to_do_is_hibernated() {
    for status in [Online, Degraded] {
        let ask = idle(LEAST).workspace(|row| row.status = status);
        assert_eq!(code(&ask).as_deref(), Some("idle"));
        assert_eq!(code(&ask.persistent_volume()).as_deref(), Some("idle"));
    }
}

#[test]
fn nobody_is_hibernated_in_the_first_minutes() {
    assert_eq!(code(&idle(LEAST - 1)), None);
    let at_least = |millis| idle(millis).setting("at-least", Duration::from_secs(60));
    assert_eq!(code(&at_least(59_999)), None);
    assert_eq!(code(&at_least(60_000)).as_deref(), Some("idle"));
    assert_eq!(code(&idle(0).setting("at-least", Duration::ZERO)).as_deref(), Some("idle"));
}

#[test]
fn a_platform_stays_unless_it_may_go() {
    let platform = idle(u64::MAX).kind("platform");
    assert_eq!(code(&platform), None);
    assert_eq!(code(&platform.clone().setting("platform", false)), None);
    let allowed = platform.setting("platform", true);
    assert_eq!(code(&allowed).as_deref(), Some("idle"));
    assert_eq!(code(&allowed.tasks(1)), None);
}

#[test]
fn a_box_that_is_not_ours_or_has_tasks_is_left_alone() {
    for setting in [false, true] {
        let ask = idle(u64::MAX).setting("platform", setting);
        assert_eq!(code(&ask.clone().runtime("external")), None);
        assert_eq!(code(&ask.clone().tasks(1)), None);
        assert_eq!(code(&ask.tasks(u32::MAX)), None);
    }
}

#[test]
fn other_candidates_and_other_causes_are_left_to_others() {
    for candidate in [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Removed] {
        assert_eq!(idle(u64::MAX).of::<Idle>(candidate), Verdict::Abstain, "{candidate:?}");
    }
    for cause in [heartbeat().into(), ready().into(), Cause::Silence(u64::MAX)] {
        assert_eq!(code(&Ask::at(Online).because(cause)), None);
    }
}

#[test]
fn it_is_asked_about_idleness_only() {
    let manifest = manifest::<Idle>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.causes, [CauseKind::IdleFor]);
    assert_eq!(interest.statuses, [Online, Degraded]);
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    assert_eq!(settings, [("at-least", Setting::Duration(LEAST)), ("platform", Setting::Flag(false))]);
    let thresholds: Vec<_> = manifest.thresholds.iter().map(|t| t.setting.as_str()).collect();
    assert_eq!(thresholds, ["at-least"]);
}
