//! What the hooks said is recorded with the decision, and asked again.

use rstest::rstest;
use sprag::facts::{Cause, Decision, Fate, Heartbeat, Readiness, Setting, Settings};
use sprag::machine::Status;
use sprag::policy::{Binding, Revision};
use sprag::replay::{Closeness, ask_again, differences, read_line};
use sprag::store::Backend;

use crate::support::fleet::Fleet;
use crate::support::sandbox::shipped;

/// The shipped policies, with plugins that may be delivered as often as anybody likes.
async fn without_a_window() -> Revision {
    let mut revision = shipped().await;
    let binding = revision.bindings.iter_mut().find(|b| b.module.manifest().name == "plugin-cooldown");
    let binding = binding.expect("it is shipped");
    let window = Settings::from([("window".to_owned(), Setting::Duration(0))]);
    let settings = binding.module.settle(&window).expect("settings");
    *binding = Binding::new(binding.module.clone(), settings);
    revision
}

async fn again(revision: &Revision, then: &Decision) -> Vec<String> {
    let now = ask_again(revision, then).await;
    differences(then, &now, Closeness::Exact).iter().map(ToString::to_string).collect()
}

#[rstest]
#[tokio::test]
async fn a_recording_is_silent_until_the_window_moves(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("platform", "hermes", Status::Online).await;
    let readiness = Readiness { mcp_server_present: Some(false), ..Readiness::default() };
    let missing = Cause::Heartbeat(Heartbeat { readiness, ..Heartbeat::default() });
    for cause in [&missing, &missing, &Cause::Heartbeat(Heartbeat::default())] {
        fleet.advance.workspace(&made.id, cause, None).await.expect("answered");
    }
    let mut recorded = Vec::new();
    for decision in fleet.store.decisions(None, 100).await.expect("exporting") {
        let line = serde_json::to_string(&decision).expect("JSON");
        recorded.push(read_line(1, &line).expect("a recorded decision"));
    }
    recorded.sort_by(|a, b| a.id.cmp(&b.id));
    let [failed, held, online] = recorded.as_slice() else { panic!("{} decisions", recorded.len()) };
    let fate = |decision: &Decision| decision.actions.iter().map(|a| a.fate.clone()).collect::<Vec<_>>();
    assert_eq!(fate(failed), [Fate::Owed]);
    for waiting in [held, online] {
        assert!(matches!(fate(waiting).as_slice(), [Fate::Waits { .. }]), "{waiting:?}");
        assert!(waiting.actions[0].last_fired_at.is_some());
    }
    assert!(recorded.iter().all(|decision| !decision.recovery.is_empty()));

    for decision in &recorded {
        assert_eq!(again(&shipped().await, decision).await, Vec::<String>::new());
    }
    let other = without_a_window().await;
    assert_eq!(again(&other, failed).await, Vec::<String>::new(), "it was owed, and is");
    for waited in [held, online] {
        let found = again(&other, waited).await;
        let [only] = found.as_slice() else { panic!("{found:#?}") };
        assert!(only.contains("[action reconcile_plugins]: then waits until"), "{only}");
        assert!(only.contains("(plugins-just-delivered") && only.ends_with("now owed"), "{only}");
    }
}
