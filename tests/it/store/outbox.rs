//! What a step owes: stamped and written with it, taken in the order of each
//! workspace, ended by a person where it was parked; and declared plugins.

use rstest::rstest;
use sprag::facts::{Action, Fate, Reason, Timestamp};
use sprag::machine::{CauseKind, Status};
use sprag::store::{Backend, Commit, DeclaredPlugin, Effect, EffectState, Owe, Retried, Step, Store};

use super::{decision, first_online, read, remove, step};
use crate::support::db::TestDb;

const LEASE_MS: u64 = 60_000;

fn owe(action: Action, last_fired_at: Option<Timestamp>, fired: u32) -> Owe {
    Owe { action, reason: Reason::new("test", "because the test says so"), last_fired_at, fired }
}

fn plugins(last_fired_at: Option<Timestamp>) -> Owe {
    owe(Action::ReconcilePlugins, last_fired_at, 1)
}

/// A step of `id` at `version` that changes nothing and owes.
fn owing(id: &str, version: i64, owes: Vec<Owe>) -> Step {
    Step { owes, ..Step::of(id, version) }
}

async fn all(store: &Store, id: &str) -> Vec<Effect> {
    let mut found = store.effects(None, Some(id), None, 500).await.expect("reading the outbox");
    found.reverse();
    found
}

async fn take(store: &Store, lease_ms: u64) -> Vec<Effect> {
    store.due_effects(32, lease_ms).await.expect("taking")
}

fn names(effects: &[Effect]) -> Vec<(&str, &str)> {
    effects.iter().map(|e| (e.workspace_id.as_str(), e.kind.as_str())).collect()
}

/// Two steps that read the same stamp: one owes, the other has lost its action and nothing else.
#[rstest]
#[tokio::test]
async fn of_two_steps_with_one_stamp_one_owes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(false, true)] fired_before: bool,
) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    db.workspace("w").await;
    if fired_before {
        let first = store.commit(&[owing("w", 1, vec![plugins(None)])]).await.unwrap();
        assert_eq!(first, Commit::Done);
    }
    let before = all(store, "w").await.len();
    let last = store.cooldown("w", "reconcile_plugins").await.unwrap().map(|(at, _)| at);
    assert_eq!(last.is_some(), fired_before);
    // The stamp is in milliseconds; one that is set within the same is not told apart.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;

    let row = read(store, "w").await;
    let mut told = decision("d-2", &row);
    told.actions = vec![asked(last)];
    for (id, expected) in [("d-1", 1), ("d-2", 1)] {
        let judged = sprag::facts::Decision { id: id.to_owned(), ..told.clone() };
        let step = Step { decision: Some(judged), ..owing("w", 1, vec![plugins(last)]) };
        assert_eq!(store.commit(&[step]).await.unwrap(), Commit::Done, "{id}");
        assert_eq!(all(store, "w").await.len() - before, expected, "{id}");
    }
    let fate = async |id| store.decision(id).await.unwrap().unwrap().actions[0].fate.clone();
    assert_eq!(fate("d-1").await, Fate::Owed);
    let Fate::NotNow { reason } = fate("d-2").await else { panic!("it says that it is owed") };
    assert_eq!(reason.code, sprag::recovery::FIRED_MEANWHILE);
    let stamp = store.cooldown("w", "reconcile_plugins").await.unwrap().expect("a stamp");
    assert!(last.is_none_or(|last| stamp.0 > last));
    assert_eq!(all(store, "w").await.last().unwrap().body["decision_id"], "d-1");
}

fn asked(last_fired_at: Option<Timestamp>) -> sprag::facts::Asked {
    sprag::facts::Asked {
        action: Action::ReconcilePlugins,
        reason: Reason::new("test", "because the test says so"),
        policy: "test".to_owned(),
        last_fired_at,
        fired: 0,
        cooldowns: Vec::new(),
        fate: Fate::Owed,
    }
}

/// At the same time, in as many transactions.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_one_stamp_one_owes(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let racers = (0..16).map(|_| {
        let store = db.store.clone();
        tokio::spawn(async move { store.commit(&[owing("w", 1, vec![plugins(None)])]).await.unwrap() })
    });
    for racer in racers.collect::<Vec<_>>() {
        assert_eq!(racer.await.unwrap(), Commit::Done);
    }
    assert_eq!(all(&db.store, "w").await.len(), 1);
}

/// Each action and each subject of a notice has a stamp of its own.
#[rstest]
#[tokio::test]
async fn a_stamp_is_of_one_action_of_one_workspace(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.workspace("x").await;
    let notice = |subject: &str| owe(Action::Notify(subject.to_owned()), None, 1);
    let four = vec![plugins(None), owe(Action::Restart, None, 3), notice("one"), notice("other")];
    let keys: Vec<_> = four.iter().map(|owe| owe.action.key()).collect();
    assert_eq!(db.store.commit(&[owing("w", 1, four.clone())]).await.unwrap(), Commit::Done);
    assert_eq!(db.store.commit(&[owing("x", 1, four)]).await.unwrap(), Commit::Done);
    for id in ["w", "x"] {
        assert_eq!(all(&db.store, id).await.len(), 4, "{id}");
        for key in &keys {
            let (_, fired) = db.store.cooldown(id, key).await.unwrap().expect("a stamp");
            assert_eq!(fired, if key == "restart" { 3 } else { 1 }, "{key}");
        }
    }
}

#[rstest]
#[case::still(false)]
#[case::moving(true)]
#[tokio::test]
async fn a_step_that_was_outrun_owes_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] moving: bool,
) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    db.workspace("w").await;
    assert_eq!(store.commit(&[first_online("w")]).await.unwrap(), Commit::Done);
    let late = owing("w", 1, vec![plugins(None)]);
    let late = if moving { Step { owes: late.owes, ..first_online("w") } } else { late };
    assert_eq!(store.commit(&[late]).await.unwrap(), Commit::Outran);
    assert_eq!(all(store, "w").await, []);
    assert_eq!(store.cooldown("w", "reconcile_plugins").await.unwrap(), None);

    // And in a batch, none of it where one is outrun.
    db.workspace("x").await;
    let good = Step { owes: vec![plugins(None)], ..first_online("x") };
    let stale = step("w", 9, Status::Online, Status::Failed, CauseKind::Heartbeat);
    assert_eq!(store.commit(&[good, stale]).await.unwrap(), Commit::Outran);
    assert_eq!(all(store, "x").await, []);
    assert_eq!(store.cooldown("x", "reconcile_plugins").await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn the_effects_of_a_workspace_come_one_by_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    db.workspace("w").await;
    db.workspace("x").await;
    let two = || vec![plugins(None), owe(Action::Restart, None, 1)];
    assert_eq!(store.commit(&[owing("w", 1, two())]).await.unwrap(), Commit::Done);
    assert_eq!(store.commit(&[owing("x", 1, two())]).await.unwrap(), Commit::Done);

    let first = take(store, LEASE_MS).await;
    assert_eq!(names(&first), [("w", "reconcile_plugins"), ("x", "reconcile_plugins")]);
    assert_eq!(first[0].attempts, 1);
    assert_eq!(take(store, LEASE_MS).await, [], "what is taken stands in the way of what is behind it");

    store.effect_done(&first[0].id, Some("noted")).await.unwrap();
    assert_eq!(names(&take(store, LEASE_MS).await), [("w", "restart")], "x has its first one still");
    store.effect_failed(&first[1].id, LEASE_MS, "no", false).await.unwrap();
    assert_eq!(take(store, LEASE_MS).await, [], "due later, it stands in the way all the same");
    store.effect_failed(&first[1].id, 0, "no", true).await.unwrap();
    assert_eq!(names(&take(store, LEASE_MS).await), [("x", "restart")], "parked it does not");

    let states: Vec<_> = all(store, "w").await.iter().map(|e| (e.state, e.last_error.clone())).collect();
    assert_eq!(states, [(EffectState::Done, Some("noted".to_owned())), (EffectState::Due, None)]);
    assert_eq!(store.effect_counts().await.unwrap(), (2, 1));
}

/// Whoever took it and did not come back has lost it.
#[rstest]
#[tokio::test]
async fn a_lease_that_is_over_is_anybodys(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.store.commit(&[owing("w", 1, vec![plugins(None)])]).await.unwrap();
    let first = take(&db.store, 50).await;
    assert_eq!(first.len(), 1);
    tokio::time::sleep(std::time::Duration::from_millis(80)).await;
    let again = take(&db.store, LEASE_MS).await;
    assert_eq!((again[0].id.as_str(), again[0].attempts), (first[0].id.as_str(), 2));
    db.store.effect_done(&again[0].id, None).await.unwrap();
    db.store.effect_failed(&first[0].id, 0, "late", true).await.unwrap();
    assert_eq!(all(&db.store, "w").await[0].state, EffectState::Done, "what is done stays done");
}

/// One taker each, however many take.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_is_taken_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for i in 0..24 {
        let id = format!("w{i}");
        db.workspace(&id).await;
        db.store.commit(&[owing(&id, 1, vec![plugins(None), owe(Action::Restart, None, 1)])]).await.unwrap();
    }
    let takers = (0..8).map(|_| {
        let store = db.store.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for _ in 0..12 {
                mine.extend(store.due_effects(3, LEASE_MS).await.unwrap().into_iter().map(|e| e.id));
            }
            mine
        })
    });
    let mut taken = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        taken.extend(taker.await.unwrap());
    }
    let once: std::collections::BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), once.len()), (24, 24), "the first of each workspace, once");
}

#[rstest]
#[tokio::test]
async fn a_person_retries_what_is_parked_and_drops_what_is_not_over(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    db.workspace("w").await;
    store.commit(&[owing("w", 1, vec![plugins(None)])]).await.unwrap();
    let id = take(store, LEASE_MS).await[0].id.clone();
    let state = |retried: Retried| match retried {
        Retried::Done(effect) => (true, effect.state),
        Retried::Not(effect) => (false, effect.state),
        Retried::Unknown => panic!("unknown"),
    };
    assert_eq!(state(store.retry_effect(&id).await.unwrap()), (false, EffectState::Due));
    store.effect_failed(&id, 0, "spent", true).await.unwrap();
    assert_eq!(take(store, LEASE_MS).await, [], "nobody takes what is parked");
    assert_eq!(state(store.retry_effect(&id).await.unwrap()), (true, EffectState::Due));
    let again = take(store, LEASE_MS).await;
    assert_eq!((again[0].id.as_str(), again[0].attempts), (id.as_str(), 1), "all its attempts");
    store.effect_failed(&id, 0, "spent", true).await.unwrap();
    assert_eq!(state(store.drop_effect(&id).await.unwrap()), (true, EffectState::Dropped));
    assert_eq!(state(store.drop_effect(&id).await.unwrap()), (false, EffectState::Dropped));
    assert_eq!(state(store.retry_effect(&id).await.unwrap()), (false, EffectState::Dropped));
    assert_eq!(store.retry_effect("no-such").await.unwrap(), Retried::Unknown);
    assert_eq!(store.effect_counts().await.unwrap(), (0, 0));
}

#[rstest]
#[tokio::test]
async fn declared_plugins_are_replaced_whole(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    db.workspace("w").await;
    let plugin = |name: &str, version: Option<&str>| DeclaredPlugin {
        name: name.to_owned(),
        version: version.map(str::to_owned),
    };
    let two = [plugin("b", Some("1.2")), plugin("a", None)];
    assert!(store.declare_plugins("w", &two, false).await.unwrap());
    assert_eq!(store.declared_plugins("w").await.unwrap(), [two[1].clone(), two[0].clone()]);
    assert_eq!(all(store, "w").await, []);
    assert!(store.declare_plugins("w", &[plugin("c", None)], true).await.unwrap());
    assert_eq!(store.declared_plugins("w").await.unwrap(), [plugin("c", None)]);
    assert_eq!(names(&all(store, "w").await), [("w", "reconcile_plugins")]);
    assert!(store.declare_plugins("w", &[], false).await.unwrap());
    assert_eq!(store.declared_plugins("w").await.unwrap(), []);

    assert!(!store.declare_plugins("no-such", &two, true).await.unwrap());
    assert_eq!(remove(store, "w").await, Commit::Done);
    assert!(!store.declare_plugins("w", &two, true).await.unwrap(), "removed");
    assert_eq!(store.declared_plugins("w").await.unwrap(), []);
}
