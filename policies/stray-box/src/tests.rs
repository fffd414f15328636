//! Every status, and the boxes that are left alone.

use sprag_policy::testing::{Ask, AskRecovery, ready};

use super::*;
use Status::*;

fn code(ask: &AskRecovery) -> Option<String> {
    match ask.plan::<StrayBox>().as_slice() {
        [] => None,
        [one] if one.action == Action::StopInstance => Some(one.code().to_owned()),
        other => panic!("one stop at most: {other:?}"),
    }
}

#[test]
fn a_heartbeat_for_what_was_put_away_stops_its_box() {
    let cases = [
        (Provisioning, None),
        (AwaitingAgent, None),
        (Online, None),
        (Degraded, None),
        (Offline, None),
        (Failed, None),
        (Paused, Some("workspace-paused")),
        (Hibernated, Some("workspace-hibernated")),
        (Removed, Some("workspace-removed")),
    ];
    for (status, expected) in cases {
        for kind in ["workspace", "platform"] {
            let ask = Ask::at(status).kind(kind);
            assert_eq!(code(&ask.clone().held([])).as_deref(), expected, "{status:?}");
            assert_eq!(code(&ask.held(["policy-error"])).as_deref(), expected, "{status:?}");
        }
    }
}

#[test]
fn other_causes_other_owners_and_a_row_that_moved_are_left_alone() {
    for status in [Paused, Hibernated, Removed] {
        assert_eq!(code(&Ask::at(status).because(ready()).held([])), None);
        assert_eq!(code(&Ask::at(status).runtime("external").held([])), None);
        assert_eq!(code(&Ask::at(status).moved(Provisioning, "operator-resumed")), None);
    }
}

#[test]
fn a_running_row_is_not_asked_about() {
    let manifest = sprag_policy::recovery_manifest::<StrayBox>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.statuses, [Paused, Hibernated, Removed]);
    assert_eq!(interest.causes, [CauseKind::Heartbeat]);
    assert!(interest.kinds.is_empty());
}
