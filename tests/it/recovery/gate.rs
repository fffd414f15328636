//! The gate holds, and its cure is asked for in the same step: what triggers
//! it, what does not, and what becomes of it when it can't work.

use rstest::rstest;
use serde_json::{Value, json};
use sprag::advance::Advanced;
use sprag::facts::{Cause, Fate, Heartbeat, Readiness};
use sprag::machine::Status;
use sprag::store::{Backend, EffectState};

use super::{RED, Stage, TOOLS, one, ready, without_tools};
use crate::support::control_plane::{Verb, What, Where};
use crate::support::fleet::Fleet;
use crate::support::sandbox::{limits, revision, sandbox, shipped};

#[rstest]
#[case::no_server(without_tools(), "mcp-server-missing")]
#[case::declared_and_not_loaded(
    json!({ "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": 0 }),
    "mcp-tools-not-loaded"
)]
#[tokio::test(flavor = "multi_thread")]
async fn it_stays_shut_until_the_tools_are_there(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] says: Value,
    #[case] code: &str,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted("platform").await;
    let refused = stage.register(&boxed, &says).await;
    assert_eq!(refused.problem(), (400, "NOT_READY"));
    assert_eq!(refused.body["reason"], code);
    assert_eq!(stage.row(&boxed.id).await["status"], "failed");
    stage.delivered().await;
    assert_eq!(stage.plane.plugins(RED, &boxed.instance), Some(vec![TOOLS.to_owned()]));

    for _ in 0..5 {
        assert_eq!(stage.beat(&boxed, &says).await, "failed");
        assert_eq!(stage.register(&boxed, &says).await.problem(), (400, "NOT_READY"));
    }
    assert_eq!(stage.beat(&boxed, &ready()).await, "online");
    stage.delivered().await;
    assert_eq!(stage.owed(&boxed.id).await, one("done"));
    assert_eq!((stage.done(&boxed.id), stage.deliveries(&boxed.id).len()), (1, 1));
}

#[rstest]
#[case::a_missing_model("platform", json!({ "mcp_server_present": true, "model_present": false, "loaded_mcp_tools": [TOOLS] }), "failed")]
#[case::not_a_platform("workspace", without_tools(), "online")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_cured_by_a_delivery(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] kind: &str,
    #[case] says: Value,
    #[case] status: &str,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted(kind).await;
    // Nor does coming online ask for anything: that is another policy's business.
    stage.db.sql(&format!("UPDATE workspaces SET status = '{status}' WHERE id = '{}'", boxed.id)).await;
    for _ in 0..5 {
        assert_eq!(stage.beat(&boxed, &says).await, status);
    }
    assert_eq!(stage.owed(&boxed.id).await, []);
    assert_eq!(stage.deliveries(&boxed.id).len(), 0);
}

/// It can't work: loud, parked, once in a window, and no restart.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fails_is_parked_and_tried_once_a_window(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted("platform").await;
    stage.plane.faults.always(Where::verb(Verb::Deliver), What::Fail);
    let id = &boxed.id;
    for window in 1..=3_usize {
        for _ in 0..4 {
            assert_eq!(stage.beat(&boxed, &without_tools()).await, "failed");
        }
        stage.delivered().await;
        assert_eq!(stage.owed(id).await, vec![one("parked")[0].clone(); window]);
        let keys: std::collections::BTreeSet<_> =
            stage.deliveries(id).into_iter().map(|call| call.key).collect();
        assert_eq!(keys.len(), window, "one key a window");
        // The worker counts as it takes.
        let counted = async || stage.metric("sprag_effects_parked").await == Some(window as f64);
        super::until("the parked are counted", counted).await;
        // As if the window were over.
        let past = "UPDATE cooldowns SET last_fired_at = last_fired_at - 300001";
        stage.db.sql(past).await;
    }
    let parked = stage.metric("sprag_effects_total{kind=\"reconcile_plugins\",outcome=\"parked\"}").await;
    assert_eq!(parked, Some(3.0));
    assert_eq!(stage.plane.running(id).len(), 1);
    assert_eq!(stage.boxed(id).instance, boxed.instance, "the same box");
    assert_eq!(stage.row(id).await["status"], "failed");

    // The provider is well again: a person need not wait for the window.
    stage.plane.faults.clear();
    let parked = stage.db.store.effects(Some(EffectState::Parked), Some(id), None, 1).await.expect("reading");
    let path = format!("/effects/{}/retry", parked[0].id);
    stage.host().admin(reqwest::Method::POST, &path, json!({})).await.ok();
    stage.delivered().await;
    assert_eq!(stage.plane.plugins(RED, &boxed.instance), Some(vec![TOOLS.to_owned()]));
}

/// The gate itself fails: the row is as it was, and the cure is owed in the very step.
#[rstest]
#[tokio::test]
async fn a_guard_that_traps_does_not_starve_the_cure(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Failed, Status::Online, Status::Offline)] status: Status,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("platform", "hermes", status).await;
    let mut mixed = revision(&sandbox(limits()), 2, &["trap"]).await;
    mixed.bindings.extend(shipped().await.bindings);
    let before = fleet.row(&made.id).await;

    let readiness = Readiness { mcp_server_present: Some(false), ..Readiness::default() };
    let cause = Cause::Heartbeat(Heartbeat { readiness, ..Heartbeat::default() });
    let advance = fleet.advance_under(mixed);
    let advanced = advance.workspace(&made.id, &cause, None).await.expect("answered");
    let Advanced::Held { decision, .. } = advanced else { panic!("it moved: {advanced:?}") };
    assert_eq!(fleet.row(&made.id).await, before);
    let [asked] = decision.actions.as_slice() else { panic!("asked for {:?}", decision.actions) };
    assert_eq!((asked.fate.clone(), asked.policy.as_str()), (Fate::Owed, "platform-recovery"));

    let owed = fleet.store.effects(None, Some(&made.id), None, 10).await.expect("reading the outbox");
    let [effect] = owed.as_slice() else { panic!("owed {owed:?}") };
    assert_eq!(effect.kind, "reconcile_plugins");
    assert_eq!(effect.body["decision_id"], decision.id);
    let kept = fleet.store.decision(&decision.id).await.expect("reading");
    assert_eq!(kept, Some(decision));

    // Again, within the window: asked, and not owed.
    let again = advance.workspace(&made.id, &cause, None).await.expect("answered");
    let Advanced::Held { decision, .. } = again else { panic!("it moved: {again:?}") };
    assert!(matches!(decision.actions[0].fate, Fate::Waits { .. }), "{:?}", decision.actions);
    assert_eq!(fleet.store.effects(None, Some(&made.id), None, 10).await.expect("reading").len(), 1);
}
