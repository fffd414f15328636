//! Whose box it is, whether it runs, and both sides of each doubt.

use sprag_policy::testing::{Ask, NOW, heartbeat, ready};
use sprag_policy::{Setting, manifest};

use super::*;
use Status::*;

/// The provider's answer about this instance; the row names `i-1`.
fn probed(instance: &str, running: bool) -> Ask {
    Ask::at(Online).because(Cause::Probed(Probe { instance_id: instance.to_owned(), running }))
}

/// Nothing is doubted unless a test says so.
fn gone() -> Ask {
    trusting(probed("i-1", false))
}

fn trusting(ask: Ask) -> Ask {
    ask.setting("grace", Duration::ZERO).setting("heard-within", Duration::ZERO)
}

/// A boot since a minute ago, whose box is not running.
fn ended() -> Ask {
    gone().workspace(|row| (row.status, row.status_since) = (Provisioning, NOW - 60_000))
}

fn code(ask: &Ask) -> Option<String> {
    code_of(ask, Offline)
}

fn code_of(ask: &Ask, candidate: Status) -> Option<String> {
    match ask.of::<Instances>(candidate) {
        Verdict::Allow(reason) => Some(reason.code),
        Verdict::Deny(reason) => panic!("nothing is denied: {reason:?}"),
        Verdict::Abstain => None,
    }
}

#[test]
fn a_row_without_its_box_is_offline() {
    for status in [Online, Degraded] {
        for kind in ["workspace", "platform"] {
            let row = |ask: Ask| ask.kind(kind).workspace(|row| row.status = status);
            assert_eq!(code(&row(gone())).as_deref(), Some("box-not-running"));
            assert_eq!(code(&row(probed("i-1", true))), None);
        }
    }
}

#[test]
fn a_boot_without_its_box_has_failed() {
    for kind in ["workspace", "platform"] {
        assert_eq!(code_of(&ended().kind(kind), Failed).as_deref(), Some("boot-failed"));
    }
    let running = probed("i-1", true).workspace(|row| row.status = Provisioning);
    let another = trusting(probed("i-2", false)).workspace(|row| row.status = Provisioning);
    for ask in [running, another, ended().runtime("external")] {
        assert_eq!(code_of(&ask, Failed), None);
    }
    // Each status has its own way down.
    assert_eq!(code(&ended()), None);
    assert_eq!(code_of(&gone(), Failed), None);
}

#[test]
fn a_boot_has_its_grace_and_is_heard_by_its_own_word_alone() {
    let grace = |ms| ended().setting("grace", Duration::from_millis(ms));
    assert_eq!(code_of(&grace(60_001), Failed), None);
    assert_eq!(code_of(&grace(60_000), Failed).as_deref(), Some("boot-failed"));
    let heard = |ago: u64| {
        let heard = ended().workspace(|row| row.last_heartbeat_at = Some(NOW - ago));
        heard.setting("heard-within", Duration::from_secs(90))
    };
    assert_eq!(code_of(&heard(60_001), Failed).as_deref(), Some("boot-failed"), "the box before said it");
    assert_eq!(code_of(&heard(60_000), Failed), None);
    assert_eq!(code_of(&heard(0), Failed), None);
}

#[test]
fn what_is_said_of_another_instance_proves_nothing() {
    let named = |ask: Ask, id: Option<&str>| {
        let id = id.map(str::to_owned);
        ask.workspace(|row| row.instance_id = id)
    };
    let probed = |instance: &str, running| trusting(probed(instance, running));
    assert_eq!(code(&probed("i-2", false)), None);
    assert_eq!(code(&probed("I-1", false)), None);
    assert_eq!(code(&probed("", false)), None);
    assert_eq!(code(&named(gone(), Some("i-2"))), None);
    assert_eq!(code(&named(gone(), None)), None);
    assert_eq!(code(&named(probed("", false), None)), None);
    assert_eq!(code(&named(probed("", false), Some(""))), None);
}

#[test]
fn a_box_that_is_not_ours_is_left_alone() {
    assert_eq!(code(&gone().runtime("external")), None);
}

#[test]
fn a_new_status_has_its_grace() {
    let since = |millis: u64| gone().workspace(|row| row.status_since = NOW - millis);
    let grace = |millis| since(millis).setting("grace", Duration::from_secs(30));
    assert_eq!(code(&grace(29_999)), None);
    assert_eq!(code(&grace(30_000)).as_deref(), Some("box-not-running"));
    assert_eq!(code(&since(0)).as_deref(), Some("box-not-running"), "none where it is off");
    // A clock that went back proves nothing.
    let later = gone().workspace(|row| row.status_since = NOW + 60_000);
    assert_eq!(code(&later.setting("grace", Duration::from_secs(30))), None);
}

#[test]
fn a_young_heartbeat_outweighs_the_provider() {
    let heard = |ago: Option<u64>| gone().workspace(|row| row.last_heartbeat_at = ago.map(|ago| NOW - ago));
    let doubted = |ago| heard(ago).setting("heard-within", Duration::from_secs(20));
    assert_eq!(code(&doubted(Some(19_999))), None);
    assert_eq!(code(&doubted(Some(20_000))).as_deref(), Some("box-not-running"));
    assert_eq!(code(&doubted(None)).as_deref(), Some("box-not-running"), "it never spoke");
    assert_eq!(code(&heard(Some(0))).as_deref(), Some("box-not-running"), "off at 0");
    // A registration is a word as well, before the first heartbeat.
    let came = |ago: u64| doubted(None).workspace(|row| row.status_since = NOW - ago);
    assert_eq!(code(&came(19_999)), None);
    assert_eq!(code(&came(20_000)).as_deref(), Some("box-not-running"));
}

#[test]
fn other_candidates_and_other_causes_are_left_to_others() {
    for candidate in [Provisioning, AwaitingAgent, Online, Degraded, Failed, Paused, Hibernated, Removed] {
        assert_eq!(gone().of::<Instances>(candidate), Verdict::Abstain, "{candidate:?}");
    }
    for cause in [heartbeat().into(), ready().into(), Cause::Silence(u64::MAX)] {
        assert_eq!(code(&Ask::at(Online).because(cause)), None);
    }
}

#[test]
fn an_agent_that_speaks_every_half_minute_survives_a_provider_that_lags() {
    let at = |heard: u64| probed("i-1", false).workspace(|row| row.last_heartbeat_at = Some(NOW - heard));
    for late in [0, 30_000, 44_999] {
        assert_eq!(code(&at(late)), None, "{late}");
    }
    // A minute later it is asked about again: by then it has spoken, or it is gone.
    assert_eq!(code(&at(45_000)).as_deref(), Some("box-not-running"));
    let boot = |since: u64| {
        let boot = probed("i-1", false)
            .workspace(|row| (row.status, row.status_since) = (Provisioning, NOW - since));
        boot.workspace(|row| row.last_heartbeat_at = None)
    };
    assert_eq!(code_of(&boot(29_999), Failed), None);
    assert_eq!(code_of(&boot(30_000), Failed).as_deref(), Some("boot-failed"));
}

#[test]
fn it_is_asked_about_probes_only() {
    let manifest = manifest::<Instances>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.causes, [CauseKind::Probed]);
    assert_eq!(interest.statuses, [Provisioning, Online, Degraded]);
    let settings: Vec<_> = manifest.settings.iter().map(|s| (s.name.as_str(), s.default.clone())).collect();
    assert_eq!(settings, [("grace", Setting::Duration(30_000)), ("heard-within", Setting::Duration(45_000))]);
    let thresholds: Vec<_> = manifest.thresholds.iter().map(|t| t.setting.as_str()).collect();
    assert_eq!(thresholds, ["grace", "heard-within"]);
}
