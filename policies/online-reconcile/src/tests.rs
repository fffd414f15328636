//! Every way online, and what is none.

use sprag_policy::testing::{Ask, heartbeat, ready};

use super::*;
use Status::*;

const ALL: [Status; 9] =
    [Provisioning, AwaitingAgent, Online, Degraded, Offline, Failed, Paused, Hibernated, Removed];

#[test]
fn coming_online_from_away_and_nothing_else_reconciles() {
    for from in ALL {
        for to in ALL {
            for ask in [Ask::at(from).because(heartbeat()), Ask::at(from).because(ready())] {
                let comes = [Provisioning, AwaitingAgent, Offline, Failed].contains(&from) && to == Online;
                let expected =
                    comes.then(|| Trigger::new(Action::ReconcilePlugins, "came-online")).into_iter();
                let plan = ask.moved(to, "agent-started").plan::<OnlineReconcile>();
                assert_eq!(plan, expected.collect::<Vec<_>>(), "{from:?} -> {to:?}");
            }
        }
        assert_eq!(Ask::at(from).held(["mcp-server-missing"]).plan::<OnlineReconcile>(), []);
    }
}

#[test]
fn an_online_row_is_not_asked_about() {
    let manifest = sprag_policy::recovery_manifest::<OnlineReconcile>();
    let [interest] = manifest.interests.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(interest.statuses, [Provisioning, AwaitingAgent, Offline, Failed]);
    assert_eq!(interest.causes, [CauseKind::Registered, CauseKind::Heartbeat]);
    assert!(interest.kinds.is_empty());
}
