//! Every loss, every switch, and what is no loss.

use sprag_policy::testing::{Ask, AskRecovery, NOW, command, heartbeat, ready};
use sprag_policy::{Setting, Settings as _};

use super::*;
use Status::*;

fn gone() -> Cause {
    Cause::Probed(Probe { instance_id: "i-1".to_owned(), running: false })
}

/// Each loss: from where, why, to where, its code and its switch.
fn losses() -> [(Status, Cause, Status, &'static str, &'static str); 6] {
    [
        (Online, Cause::Silence(90_000), Offline, "went-silent", "after-silence"),
        (Degraded, Cause::Silence(90_000), Offline, "went-silent", "after-silence"),
        (Online, gone(), Offline, "box-not-running", "after-probed"),
        (Degraded, gone(), Offline, "box-not-running", "after-probed"),
        (Provisioning, gone(), Failed, "boot-failed", "after-failed-boot"),
        (Provisioning, Cause::ProvisioningFor(600_000), Failed, "never-came-up", "after-provisioning-for"),
    ]
}

const SWITCHES: [&str; 4] = ["after-silence", "after-probed", "after-failed-boot", "after-provisioning-for"];

fn code(ask: &AskRecovery) -> Option<String> {
    match ask.plan::<RestartRecovery>().as_slice() {
        [] => None,
        [one] if one.action == Action::Restart => Some(one.code().to_owned()),
        other => panic!("one restart at most: {other:?}"),
    }
}

#[test]
fn a_lost_box_is_restarted_unless_that_is_switched_off() {
    for (from, cause, to, expected, own) in losses() {
        for kind in ["workspace", "platform"] {
            let ask = Ask::at(from).kind(kind).because(cause.clone());
            let ask = ask.workspace(|row| row.last_heartbeat_at = Some(NOW - 90_000));
            let ask = ask.setting(own, true);
            assert_eq!(code(&ask.clone().moved(to, "gone")).as_deref(), Some(expected), "{cause:?}");
            for switch in SWITCHES {
                let off = ask.clone().setting(switch, false).moved(to, "gone");
                let expected = (switch != own).then_some(expected);
                assert_eq!(code(&off).as_deref(), expected, "{cause:?} without {switch}");
            }
        }
    }
}

#[test]
fn what_was_heard_of_a_moment_ago_keeps_its_box() {
    for (from, cause, to, expected, _) in losses() {
        if !matches!(cause, Cause::Probed(_)) {
            continue;
        }
        let heard = |ago: u64, since: u64| {
            let ask = Ask::at(from).because(cause.clone());
            let ask = ask.workspace(|row| row.last_heartbeat_at = Some(NOW - ago));
            ask.workspace(|row| row.status_since = NOW - since).moved(to, "gone")
        };
        assert_eq!(code(&heard(44_999, 100_000)), None, "{from:?}");
        assert_eq!(code(&heard(45_000, 100_000)).as_deref(), Some(expected), "{from:?}");
        // Of a boot only its own word counts.
        let before = (from == Provisioning).then_some(expected);
        assert_eq!(code(&heard(10_000, 9_999)).as_deref(), before, "{from:?}");
    }
    let off = Ask::at(Online).because(gone()).setting("heard-within", Duration::ZERO);
    let off = off.workspace(|row| row.last_heartbeat_at = Some(NOW)).moved(Offline, "gone");
    assert_eq!(code(&off).as_deref(), Some("box-not-running"));
    // Silence speaks for itself, however short the window.
    let silent = Ask::at(Online).because(Cause::Silence(5_000));
    let silent = silent.workspace(|row| row.last_heartbeat_at = Some(NOW - 5_000)).moved(Offline, "gone");
    assert_eq!(code(&silent).as_deref(), Some("went-silent"));
}

#[test]
fn nobody_restarts_what_is_not_ours_was_held_or_went_elsewhere() {
    for (from, cause, to, ..) in losses() {
        let ask = Ask::at(from).because(cause.clone());
        assert_eq!(code(&ask.clone().runtime("external").moved(to, "gone")), None, "{cause:?}");
        assert_eq!(code(&ask.clone().held([])), None, "{cause:?}");
        assert_eq!(code(&ask.clone().held(["policy-error"])), None, "{cause:?}");
        for elsewhere in [AwaitingAgent, Online, Degraded, Paused, Hibernated, Removed] {
            assert_eq!(code(&ask.clone().moved(elsewhere, "gone")), None, "{cause:?} -> {elsewhere:?}");
        }
    }
}

#[test]
fn what_stays_down_is_restarted_again_unless_that_is_switched_off() {
    for (status, after) in [(Offline, 60_000), (Failed, 1_800_000)] {
        let down = |ms| Ask::at(status).because(Cause::Silence(ms));
        assert_eq!(code(&down(after).held([])).as_deref(), Some("still-down"), "{status:?}");
        assert_eq!(code(&down(after - 1).held([])), None, "{status:?}: it was heard of");
        assert_eq!(code(&down(after).setting("while-down", false).held([])), None, "{status:?}");
        assert_eq!(code(&down(after).runtime("external").held([])), None, "{status:?}");
        let given_up = down(after).setting("give-up-after", Duration::ZERO);
        assert_eq!(code(&given_up.held([])), None, "{status:?}: not heard of for too long");
    }
}

#[test]
fn a_box_that_boots_slowly_is_given_the_time() {
    let slow = Ask::at(Provisioning).because(Cause::ProvisioningFor(600_000));
    assert_eq!(code(&slow.moved(Failed, "provisioning-timed-out")), None);
}

#[test]
fn what_the_agent_says_and_what_people_do_is_no_loss() {
    let causes: [Cause; 4] =
        [heartbeat().into(), ready().into(), command(CommandKind::Pause).into(), Cause::IdleFor(3_600_000)];
    for cause in causes {
        for to in [Failed, Offline, Hibernated] {
            let moved = Ask::at(Online).because(cause.clone()).moved(to, "mcp-server-missing");
            assert_eq!(code(&moved), None, "{cause:?} -> {to:?}");
        }
    }
}

#[test]
fn it_is_asked_about_losses_only() {
    let manifest = sprag_policy::recovery_manifest::<RestartRecovery>();
    let asked = |cause, status| {
        manifest.interests.iter().any(|i| i.causes.contains(&cause) && i.statuses.contains(&status))
    };
    for cause in [CauseKind::Silence, CauseKind::Probed] {
        let boots = cause == CauseKind::Probed;
        assert!(asked(cause, Online) && asked(cause, Degraded), "{cause:?}");
        assert_eq!(asked(cause, Provisioning), boots, "{cause:?}");
    }
    assert!(asked(CauseKind::Silence, Offline) && asked(CauseKind::Silence, Failed));
    assert!(!asked(CauseKind::Probed, Offline) && !asked(CauseKind::Silence, Paused));
    assert!(asked(CauseKind::ProvisioningFor, Provisioning) && !asked(CauseKind::ProvisioningFor, Online));
    assert!(!asked(CauseKind::Heartbeat, Online) && !asked(CauseKind::Registered, Provisioning));
    let declared: Vec<_> = Settings::specs().into_iter().map(|spec| (spec.name, spec.default)).collect();
    let expected = [
        ("after-silence", Setting::Flag(true)),
        ("after-probed", Setting::Flag(true)),
        ("heard-within", Setting::Duration(45_000)),
        ("after-failed-boot", Setting::Flag(true)),
        ("after-provisioning-for", Setting::Flag(false)),
        ("while-down", Setting::Flag(true)),
        ("down-for", Setting::Duration(60_000)),
        ("failed-for", Setting::Duration(1_800_000)),
        ("give-up-after", Setting::Duration(86_400_000)),
    ];
    assert_eq!(declared, expected.map(|(name, default)| (name.to_owned(), default)));
}
