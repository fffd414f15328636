//! Both sides of every wait, of the cap and of being healthy.

use sprag_policy::testing::{Ask, NOW};
use sprag_policy::{Setting, SettingValue, cooldown_manifest};

use super::*;
use Status::*;

const MINUTE: u64 = 60_000;

/// The row that a restart is asked for: offline since just now.
fn row() -> Ask {
    Ask::at(Offline).workspace(|row| row.status_since = NOW)
}

/// The ruling on a restart of this row after so many, the last so long ago.
fn ruling(row: Ask, fired: u32, ago: u64) -> Ruling {
    row.action(Action::Restart).fired(fired, Duration::from_millis(ago)).check::<RestartCooldown>()
}

/// Asserts that exactly so long has to pass.
fn waits(row: &Ask, fired: u32, wait: u64) {
    if wait > 0 {
        let until = |time| Ruling::until(time, "restarted-recently");
        assert_eq!(ruling(row.clone(), fired, 0), until(NOW + wait), "after {fired}");
        assert_eq!(ruling(row.clone(), fired, wait - 1), until(NOW + 1), "after {fired}");
    }
    assert_eq!(ruling(row.clone(), fired, wait), Ruling::Ready, "after {fired}");
}

fn with(name: &str, value: impl SettingValue) -> Ask {
    row().setting(name, value)
}

#[test]
fn the_first_restart_is_at_once() {
    assert_eq!(row().action(Action::Restart).check::<RestartCooldown>(), Ruling::Ready);
}

#[test]
fn each_further_wait_is_twice_as_long_up_to_an_hour() {
    let minutes = [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (40, 60)];
    for (fired, minutes) in minutes {
        waits(&row(), fired, minutes * MINUTE);
    }
    waits(&row(), u32::MAX, 60 * MINUTE);
}

#[test]
fn base_factor_and_cap_are_settings() {
    waits(&with("base", Duration::from_millis(1_500)), 3, 6_000);
    waits(&with("factor", 3.0), 3, 9 * MINUTE);
    waits(&with("cap", Duration::from_secs(180)), 2, 2 * MINUTE);
    waits(&with("cap", Duration::from_secs(180)), 3, 3 * MINUTE);
    waits(&with("cap", Duration::from_secs(30)), 1, MINUTE / 2);
}

#[test]
fn odd_settings_have_a_bounded_wait() {
    for factor in [1.0, 0.5, 0.0, -2.0] {
        waits(&with("factor", factor), 9, MINUTE);
    }
    waits(&with("factor", f64::MAX), 9, 60 * MINUTE);
    for fired in [0, 1, 9, u32::MAX] {
        waits(&with("base", Duration::ZERO), fired, 0);
        waits(&with("cap", Duration::ZERO), fired, 0);
        let ruling = ruling(with("base", Duration::MAX).setting("cap", Duration::MAX), fired, 0);
        assert_eq!(ruling.code(), Some("restarted-recently"));
    }
}

#[test]
fn a_healthy_while_online_forgets_all_but_the_base() {
    let online_for = |millis: u64| Ask::at(Online).workspace(move |row| row.status_since = NOW - millis);
    waits(&online_for(10 * MINUTE - 1), 5, 16 * MINUTE);
    waits(&online_for(10 * MINUTE), 5, MINUTE);
    let hour = |millis| online_for(millis).setting("healthy-after", Duration::from_secs(3_600));
    waits(&hour(60 * MINUTE - 1), 5, 16 * MINUTE);
    waits(&hour(60 * MINUTE), 5, MINUTE);
    // A clock that went back proves nothing.
    waits(&Ask::at(Online).workspace(|row| row.status_since = NOW + 1), 5, 16 * MINUTE);
}

#[test]
fn only_online_is_healthy() {
    for status in [Provisioning, AwaitingAgent, Degraded, Offline, Failed, Paused, Hibernated] {
        let long = Ask::at(status).workspace(|row| row.status_since = NOW - 60 * MINUTE);
        waits(&long, 5, 16 * MINUTE);
    }
}

#[test]
fn other_actions_are_ready() {
    for action in [Action::ReconcilePlugins, Action::StopInstance, Action::Notify("x".to_owned())] {
        let ask = row().action(action.clone()).fired(40, Duration::ZERO);
        assert_eq!(ask.check::<RestartCooldown>(), Ruling::Ready, "{action:?}");
    }
}

#[test]
fn the_manifest_names_what_the_code_uses() {
    let manifest = cooldown_manifest::<RestartCooldown>();
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    let expected = [
        ("base", Setting::Duration(MINUTE)),
        ("factor", Setting::Number(2.0)),
        ("cap", Setting::Duration(60 * MINUTE)),
        ("healthy-after", Setting::Duration(10 * MINUTE)),
    ];
    assert_eq!(settings, expected);
    for threshold in &manifest.thresholds {
        assert!(settings.iter().any(|(name, _)| *name == threshold.setting), "{threshold:?}");
    }
}
