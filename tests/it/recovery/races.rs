//! A step that lost its race owes nothing, and one that won owes once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use sprag::advance::Advanced;
use sprag::facts::{Cause, Fate, Heartbeat, Readiness};
use sprag::machine::Status;
use sprag::store::{Backend, EffectState};

use crate::support::fleet::Fleet;
use crate::support::sandbox::shipped;

/// Workspaces that are raced for; SPRAG_TEST_RACES is another number.
const RACES: usize = 150;

/// Steps that race for each.
const RACERS: usize = 4;

fn without_tools() -> Cause {
    let readiness = Readiness { mcp_server_present: Some(false), ..Readiness::default() };
    Cause::Heartbeat(Heartbeat { readiness, ..Heartbeat::default() })
}

/// Each is failed by one of several at once, which alone owes the delivery: the
/// window is shut to those that come after, and those that lost wrote nothing.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_are_owed_as_moved(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let races = std::env::var("SPRAG_TEST_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(RACES);
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let outran = Arc::new(AtomicUsize::new(0));
    let (mut moved, mut owed) = (0, 0);
    for _ in 0..races {
        let made = fleet.workspace("platform", "hermes", Status::Online).await;
        let racers = (0..RACERS).map(|_| {
            let (fleet, id) = (fleet.clone(), made.id.clone());
            tokio::spawn(async move {
                fleet.advance.workspace(&id, &without_tools(), None).await.expect("answered")
            })
        });
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.expect("a racer") {
                Advanced::Moved { decision, .. } => {
                    moved += 1;
                    owed += decision.actions.iter().filter(|a| a.fate == Fate::Owed).count();
                }
                Advanced::Outran => drop(outran.fetch_add(1, Ordering::SeqCst)),
                Advanced::Held { .. } | Advanced::NoEdge(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let effects = fleet.store.effect_counts().await.expect("reading the outbox");
    println!(
        "{races} raced by {RACERS} each, {moved} moved, {owed} said owed, {effects:?} in the outbox, {backend:?}"
    );
    assert_eq!((moved, owed, effects), (races, races, (races as u64, 0)));
}

/// Somebody moves the row between the judgement and the write: nothing of the step is left.
#[rstest]
#[tokio::test]
async fn a_step_that_a_removal_outran_owes_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Online, Status::Failed, Status::Paused)] status: Status,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("platform", "hermes", status).await;
    // From failed it holds and only owes; from paused it has no edge and only owes.
    let id = made.id.clone();
    let outrun = fleet.outrun_by_removal();
    let advanced = outrun.workspace(&id, &without_tools(), None).await.expect("answered");
    match status {
        // No hook stands beside the table; it is owed there and then.
        Status::Paused => assert!(matches!(advanced, Advanced::NoEdge(_)), "{advanced:?}"),
        _ => {
            assert!(matches!(advanced, Advanced::NoEdge(none) if none.from == Status::Removed));
            let kinds = reconciles(&fleet, &id).await;
            assert_eq!(kinds, 0, "owed by a step that was outrun");
            assert_eq!(fleet.store.cooldown(&id, "reconcile_plugins").await.expect("reading"), None);
        }
    }
}

async fn reconciles(fleet: &Fleet, id: &str) -> usize {
    let due = fleet.store.effects(Some(EffectState::Due), Some(id), None, 100).await.expect("reading");
    due.iter().filter(|effect| effect.kind == "reconcile_plugins").count()
}

/// Judged at one version, written when another holds: with nothing to move, the version alone guards.
#[rstest]
#[tokio::test]
async fn a_step_that_only_owes_is_guarded_too(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let mut effects = 0;
    for _ in 0..20 {
        let made = fleet.workspace("platform", "hermes", Status::Failed).await;
        let rival = fleet.advance.clone();
        let ready = Cause::Heartbeat(Heartbeat::default());
        // Between judgement and write the agent comes online: the judgement is out of date.
        let outrun = fleet.between(move |id| {
            let (rival, ready) = (rival.clone(), ready.clone());
            async move {
                let moved = rival.workspace(&id, &ready, None).await.expect("answered");
                assert!(matches!(moved, Advanced::Moved { to: Status::Online, .. }), "{moved:?}");
            }
        });
        let advanced = outrun.workspace(&made.id, &without_tools(), None).await.expect("answered");
        assert!(matches!(advanced, Advanced::Moved { to: Status::Failed, .. }), "judged anew: {advanced:?}");
        effects += 1;
        assert_eq!(reconciles(&fleet, &made.id).await, 1, "the rival's, when it came online");
    }
    assert_eq!(fleet.store.effect_counts().await.expect("reading"), (effects, 0));
}
