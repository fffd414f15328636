//! Both sides of every window, who wins, and what a typo does.

use sprag_policy::testing::{Ask, heartbeat, ready};
use sprag_policy::{Setting, manifest};

use super::*;
use Status::*;

const SECOND: u64 = 1_000;

fn silent(runtime: &str, millis: u64) -> Ask {
    Ask::at(Online).runtime(runtime).because(Cause::Silence(millis))
}

/// Asserts that exactly so much silence takes a row of this runtime to `target`.
fn goes(runtime: &str, change: impl Fn(Ask) -> Ask, target: Status, window: u64) {
    for status in [Online, Degraded] {
        let after = |millis| change(silent(runtime, millis)).workspace(|row| row.status = status);
        assert_eq!(after(window).of::<Silence>(target).code(), Some("went-silent"), "{runtime}");
        assert_eq!(after(u64::MAX).of::<Silence>(target).code(), Some("went-silent"), "{runtime}");
        if window > 0 {
            assert_eq!(after(window - 1).of::<Silence>(target), Verdict::Abstain, "{runtime}");
        }
    }
}

#[test]
fn each_runtime_has_its_window() {
    let cases = [
        ("claude-code", Offline, 90),
        ("codex", Offline, 90),
        ("", Offline, 90),
        ("hermes", Offline, 180),
        ("external", AwaitingAgent, 300),
    ];
    for (runtime, target, seconds) in cases {
        goes(runtime, |ask| ask, target, seconds * SECOND);
    }
}

#[test]
fn the_windows_are_settings() {
    let second = Duration::from_secs(1);
    goes("claude-code", |ask| ask.setting("window", second), Offline, SECOND);
    goes("hermes", |ask| ask.setting("window-hermes", second), Offline, SECOND);
    goes("external", |ask| ask.setting("window-external", second), AwaitingAgent, SECOND);
    goes("hermes", |ask| ask.setting("window", second), Offline, 180 * SECOND);
    goes("claude-code", |ask| ask.setting("window", Duration::ZERO), Offline, 0);
}

#[test]
fn an_entry_by_name_wins() {
    let named = |ask: Ask| ask.setting("windows", "codex=2m, hermes=45s,external=250ms".to_owned());
    goes("codex", named, Offline, 120 * SECOND);
    goes("hermes", named, Offline, 45 * SECOND);
    goes("external", named, AwaitingAgent, 250);
    goes("claude-code", named, Offline, 90 * SECOND);
}

#[test]
fn a_typo_denies_every_candidate_of_every_runtime() {
    for runtime in ["codex", "hermes", "external", "claude-code"] {
        for millis in [0, u64::MAX] {
            let ask = silent(runtime, millis).setting("windows", "hermes=3m, codex=2x".to_owned());
            for verdict in ask.all::<Silence>(&[Offline, AwaitingAgent]) {
                assert!(matches!(&verdict, Verdict::Deny(r) if r.code == "bad-setting"), "{verdict:?}");
                let detail = verdict.reason().unwrap().detail.as_deref().unwrap();
                assert!(detail.starts_with("windows has \"codex=2x\""), "{detail}");
            }
        }
    }
}

#[test]
fn the_detail_names_the_silence_and_the_window() {
    let verdict = silent("hermes", 241_500).of::<Silence>(Offline);
    assert_eq!(verdict, Verdict::allow("went-silent").detail("silent for 4m 1s, its window is 3m"));
}

#[test]
fn other_candidates_and_other_causes_are_left_to_others() {
    let every = [Provisioning, Online, Degraded, Failed, Paused, Hibernated, Removed];
    for (runtime, elsewhere) in [("claude-code", AwaitingAgent), ("external", Offline)] {
        let ask = silent(runtime, u64::MAX);
        assert_eq!(ask.of::<Silence>(elsewhere), Verdict::Abstain, "{runtime}");
        for candidate in every {
            assert_eq!(ask.of::<Silence>(candidate), Verdict::Abstain, "{runtime} -> {candidate:?}");
        }
    }
    for cause in [heartbeat().into(), ready().into(), Cause::IdleFor(u64::MAX)] {
        assert_eq!(Ask::at(Online).because(cause).of::<Silence>(Offline), Verdict::Abstain);
    }
}

#[test]
fn it_is_asked_about_silence_only_and_names_its_windows() {
    let manifest = manifest::<Silence>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.causes, [CauseKind::Silence]);
    assert_eq!(interest.statuses, [Online, Degraded]);
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    let expected = [
        ("window", Setting::Duration(90 * SECOND)),
        ("window-external", Setting::Duration(300 * SECOND)),
        ("window-hermes", Setting::Duration(180 * SECOND)),
        ("windows", Setting::Text(String::new())),
    ];
    assert_eq!(settings, expected);
    let thresholds: Vec<_> = manifest.thresholds.iter().map(|t| t.setting.as_str()).collect();
    assert_eq!(thresholds, ["window", "window-external", "window-hermes"]);
}
