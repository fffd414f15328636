//! Both sides of the window, and every other action.

use sprag_policy::testing::{Ask, NOW};
use sprag_policy::{Setting, cooldown_manifest};

use super::*;
use Status::*;

const WINDOW: u64 = 300_000;

fn delivery() -> sprag_policy::testing::AskCooldown {
    Ask::at(Failed).kind("platform").action(Action::ReconcilePlugins)
}

#[test]
fn one_delivery_in_a_window() {
    let wait = |until| Ruling::until(until, "plugins-just-delivered");
    let cases = [
        (0, wait(NOW + WINDOW)),
        (1, wait(NOW + WINDOW - 1)),
        (WINDOW - 1, wait(NOW + 1)),
        (WINDOW, Ruling::Ready),
        (WINDOW + 1, Ruling::Ready),
        (u64::MAX, Ruling::Ready),
    ];
    assert_eq!(delivery().check::<PluginCooldown>(), Ruling::Ready, "it never fired");
    for (ago, expected) in cases {
        // How often it fired makes no difference.
        for fired in [0, 1, 40, u32::MAX] {
            let ask = delivery().fired(fired, Duration::from_millis(ago));
            assert_eq!(ask.check::<PluginCooldown>(), expected, "{ago} ms ago");
        }
    }
}

#[test]
fn a_delivery_that_is_dated_ahead_waits_too() {
    let mut ask = delivery();
    ask.last_fired_at = Some(NOW + 1_000);
    let expected = Ruling::until(NOW + 1_000 + WINDOW, "plugins-just-delivered");
    assert_eq!(ask.check::<PluginCooldown>(), expected);
    ask.last_fired_at = Some(u64::MAX);
    assert_eq!(ask.check::<PluginCooldown>().code(), Some("plugins-just-delivered"));
}

#[test]
fn the_window_is_a_setting() {
    let minute = |ago| {
        let mut ask = delivery().fired(1, Duration::from_millis(ago));
        ask.ask = ask.ask.setting("window", Duration::from_secs(60));
        ask.check::<PluginCooldown>()
    };
    assert_eq!(minute(59_999).code(), Some("plugins-just-delivered"));
    assert_eq!(minute(60_000), Ruling::Ready);
    let manifest = cooldown_manifest::<PluginCooldown>();
    assert_eq!(manifest.settings[0].name, manifest.thresholds[0].setting);
    assert_eq!(manifest.settings[0].default, Setting::Duration(WINDOW));
}

#[test]
fn other_actions_are_ready() {
    for action in [Action::Restart, Action::StopInstance, Action::Notify("platform-down".to_owned())] {
        let ask = Ask::at(Failed).action(action.clone()).fired(40, Duration::ZERO);
        assert_eq!(ask.check::<PluginCooldown>(), Ruling::Ready, "{action:?}");
    }
}
