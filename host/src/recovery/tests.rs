//! The longest wait, the host's own window, an error; and who is entitled to what.

use std::sync::Arc;

use super::{DEFAULT_COOLDOWN_MS, entitled, fate};
use crate::facts::{
    Action, Bound, Cause, Cooldown, CooldownAnswer, Decision, Denial, Fate, Fault, Heartbeat, Outcome,
    Question, Reason, Ruling, Settings, Workspace,
};
use crate::machine::Status;

const RESTART: Action = Action::Restart;
const NOW: u64 = 1_800_000_000_000;

fn ruled(policy: &str, answer: CooldownAnswer) -> Cooldown {
    let by = Bound {
        policy: policy.to_owned(),
        version: "1.0.0".to_owned(),
        digest: String::new(),
        settings: Settings::new(),
    };
    Cooldown { by: Arc::new(by), answer }
}

fn wait(policy: &str, until: u64) -> Cooldown {
    let reason = Reason::new("wait", policy);
    ruled(policy, CooldownAnswer::Ruling(Ruling::WaitUntil { until, reason }))
}

#[test]
fn the_longest_wait_wins() {
    let ready = ruled("r", CooldownAnswer::Ruling(Ruling::Ready));
    let all = [wait("a", NOW + 5), ready.clone(), wait("b", NOW + 9), wait("c", NOW + 7)];
    assert_eq!(
        fate(&RESTART, &all, None, NOW),
        Fate::Waits { until: NOW + 9, reason: Reason::new("wait", "b") }
    );
    assert_eq!(fate(&RESTART, &[ready, wait("past", NOW)], Some(NOW - 1), NOW), Fate::Owed);
}

#[test]
fn an_error_means_not_now() {
    let fault = Fault { code: "trap".to_owned(), detail: "boom".to_owned() };
    let all = [wait("a", NOW + 5), ruled("broken", CooldownAnswer::Error(fault))];
    assert!(matches!(fate(&RESTART, &all, None, NOW), Fate::NotNow { .. }));
}

#[test]
fn without_a_cooldown_policy_the_hosts_window_holds() {
    assert_eq!(fate(&RESTART, &[], None, NOW), Fate::Owed);
    let last = NOW - DEFAULT_COOLDOWN_MS;
    assert_eq!(fate(&RESTART, &[], Some(last), NOW), Fate::Owed);
    assert!(
        matches!(fate(&RESTART, &[], Some(last + 1), NOW), Fate::Waits { until, .. } if until == NOW + 1)
    );
}

#[test]
fn a_notice_has_the_hosts_window_whatever_others_say() {
    let ready = [ruled("r", CooldownAnswer::Ruling(Ruling::Ready))];
    let notice = Action::Notify("disk-full".to_owned());
    assert!(matches!(fate(&notice, &ready, Some(NOW - 1), NOW), Fate::Waits { .. }));
    assert_eq!(fate(&RESTART, &ready, Some(NOW - 1), NOW), Fate::Owed);
}

fn held(status: Status, change: impl FnOnce(&mut Workspace)) -> Decision {
    let mut workspace = Workspace {
        id: "w".to_owned(),
        kind: "workspace".to_owned(),
        runtime: "claude-code".to_owned(),
        provider: Some("local".to_owned()),
        instance_id: None,
        status,
        status_since: NOW,
        last_heartbeat_at: None,
        active_tasks: 0,
        ancestor_paused: false,
        persistent_volume: false,
        labels: Default::default(),
    };
    change(&mut workspace);
    Decision {
        format: Decision::FORMAT.to_owned(),
        id: "d".to_owned(),
        row_version: 1,
        revision: 1,
        question: Question {
            now: NOW,
            workspace,
            cause: Cause::Heartbeat(Heartbeat::default()),
            candidates: Vec::new(),
        },
        votes: Vec::new(),
        outcome: Outcome::Held { denials: Vec::<Denial>::new() },
        recovery: Vec::new(),
        actions: Vec::new(),
    }
}

#[test]
fn who_is_entitled_to_what() {
    let ok = |action: &Action, decision: &Decision| entitled(action, decision).is_ok();
    let plain = |status| held(status, |_| {});
    for status in Status::ALL {
        let down = matches!(status, Status::Paused | Status::Hibernated | Status::Removed);
        assert_eq!(ok(&Action::StopInstance, &plain(status)), down, "{status}");
        assert_eq!(ok(&Action::ReconcilePlugins, &plain(status)), !down, "{status}");
        let stays_down = [Status::AwaitingAgent, Status::Paused, Status::Hibernated, Status::Removed];
        let restarts = !stays_down.contains(&status);
        assert_eq!(ok(&Action::Restart, &plain(status)), restarts, "{status}");
        assert!(ok(&Action::Notify("x".to_owned()), &plain(status)));
    }
    for action in [Action::Restart, Action::ReconcilePlugins] {
        assert!(!ok(&action, &held(Status::Failed, |w| w.runtime = "external".to_owned())));
        assert!(!ok(&action, &held(Status::Failed, |w| w.provider = None)));
        assert!(!ok(&action, &held(Status::Failed, |w| w.ancestor_paused = true)));
    }
}
