//! The guarded step: what it stores, and that a lost one stores nothing.

use rstest::rstest;
use sprag::machine::{CauseKind, Status};
use sprag::store::{Backend, Commit, NewWorkspace, Registration, Step};

use super::{decision, first_online, read, registration, remove, step};
use crate::support::db::{TestDb, new_workspace, token_of};

#[rstest]
#[tokio::test]
async fn a_step_stores_status_event_and_decision(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let before = read(&db.store, "w").await;
    let judged = decision("0190-d", &before);
    let taken = Step { decision: Some(judged.clone()), ..first_online("w") };
    assert_eq!(db.store.commit(&[taken]).await.unwrap(), Commit::Done);

    let after = read(&db.store, "w").await;
    assert_eq!((after.version, after.workspace.status), (2, Status::Online));
    assert!(after.workspace.status_since >= before.workspace.status_since);
    assert_eq!(db.store.decision("0190-d").await.unwrap(), Some(judged));
    let events = db.store.events(Some("w"), None, 10).await.unwrap();
    let [online, created] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((created.version, created.from, created.to), (1, None, Some(Status::Provisioning)));
    assert_eq!((created.cause.as_str(), created.event_type.as_str()), ("created", "WORKSPACE_PROVISIONING"));
    assert_eq!((created.reason.as_ref(), created.decision_id.as_ref()), (None, None));
    assert_eq!(online.version, 2);
    assert_eq!((online.from, online.to), (Some(Status::Provisioning), Some(Status::Online)));
    assert_eq!((online.cause.as_str(), online.event_type.as_str()), ("heartbeat", "WORKSPACE_ONLINE"));
    assert_eq!(online.reason, Some(super::to(Status::Provisioning, Status::Online, CauseKind::Heartbeat).1));
    assert_eq!(online.decision_id.as_deref(), Some("0190-d"));
    // Two statements of one transaction, each with the clock's own time.
    assert!((after.workspace.status_since..=after.now).contains(&online.at));
}

#[rstest]
#[case::stale_version(0, Status::Provisioning)]
#[case::future_version(2, Status::Provisioning)]
#[case::other_status(1, Status::AwaitingAgent)]
#[tokio::test]
async fn a_step_that_was_outrun_stores_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] version: i64,
    #[case] from: Status,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let before = read(&db.store, "w").await;
    let lost = Step {
        registration: Some(registration(None)),
        decision: Some(decision("d", &before)),
        ..step("w", version, from, Status::Online, CauseKind::Heartbeat)
    };
    assert_eq!(db.store.commit(&[lost]).await.unwrap(), Commit::Outran);
    assert_eq!(read(&db.store, "w").await.workspace, before.workspace);
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);
    assert_eq!(db.store.decision("d").await.unwrap(), None);
    assert_eq!(db.store.view("w").await.unwrap().unwrap().url, None);
}

#[rstest]
#[tokio::test]
async fn many_steps_are_stored_or_none(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.workspace("b").await;
    let of_a = read(&db.store, "a").await;
    let first = || Step { decision: Some(decision("d", &of_a)), ..first_online("a") };
    let stale = step("b", 7, Status::Provisioning, Status::Online, CauseKind::Heartbeat);
    assert_eq!(db.store.commit(&[first(), stale]).await.unwrap(), Commit::Outran);
    assert_eq!(read(&db.store, "a").await.version, 1);
    assert_eq!(db.store.events(None, None, 10).await.unwrap().len(), 2);
    assert_eq!(db.store.decisions(None, 10).await.unwrap(), []);

    assert_eq!(db.store.commit(&[first(), first_online("b")]).await.unwrap(), Commit::Done);
    assert_eq!(read(&db.store, "a").await.workspace.status, Status::Online);
    assert_eq!(read(&db.store, "b").await.workspace.status, Status::Online);
    assert_eq!(db.store.decisions(None, 10).await.unwrap().len(), 1);
    assert_eq!(db.store.commit(&[]).await.unwrap(), Commit::Done);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_one_version_one_wins(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let racers = (0..12).map(|_| {
        let store = db.store.clone();
        tokio::spawn(async move { store.commit(&[first_online("w")]).await.unwrap() })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Commit::Done => won += 1,
            lost => assert_eq!(lost, Commit::Outran),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(read(&db.store, "w").await.version, 2);
    assert_eq!(db.store.events(Some("w"), None, 20).await.unwrap().len(), 2);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_opposite_order_do_not_deadlock(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for round in 0..10 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        db.workspace(&a).await;
        db.workspace(&b).await;
        let (forth, back) = ([first_online(&a), first_online(&b)], [first_online(&b), first_online(&a)]);
        let (forth, back) = tokio::join!(db.store.commit(&forth), db.store.commit(&back));
        let mut both = [forth.unwrap(), back.unwrap()];
        both.sort_by_key(|commit| *commit != Commit::Done);
        assert_eq!(both, [Commit::Done, Commit::Outran]);
        assert_eq!(read(&db.store, &a).await.version, 2);
        assert_eq!(read(&db.store, &b).await.version, 2);
    }
}

#[rstest]
#[tokio::test]
async fn a_registration_is_stored_with_its_transition(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let without = NewWorkspace { token: None, ..new_workspace("w") };
    db.store.create(&without).await.unwrap();
    let Registration { url, agent_card, .. } = registration(None);
    let registered = Step { registration: Some(registration(Some("first"))), ..first_online("w") };
    assert_eq!(db.store.commit(&[registered]).await.unwrap(), Commit::Done);
    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.version, view.url, view.agent_card), (2, url, agent_card));
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("first")]);
}

#[rstest]
#[tokio::test]
async fn a_registration_alone_is_guarded_too(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let alone = |version| Step { registration: Some(registration(None)), ..Step::of("w", version) };
    assert_eq!(db.store.commit(&[alone(2)]).await.unwrap(), Commit::Outran);
    assert_eq!(db.store.view("w").await.unwrap().unwrap().url, None);
    assert_eq!(db.store.commit(&[alone(1)]).await.unwrap(), Commit::Done);
    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.version, view.url.is_some()), (1, true));
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);

    remove(&db.store, "w").await;
    for version in [1, 2] {
        assert_eq!(db.store.commit(&[alone(version)]).await.unwrap(), Commit::Outran);
    }
}

#[rstest]
#[tokio::test]
async fn a_first_token_is_refused_where_there_is_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let before = read(&db.store, "w").await;
    let second = || Step {
        registration: Some(registration(Some("second"))),
        decision: Some(decision("d", &before)),
        ..first_online("w")
    };
    assert_eq!(db.store.commit(&[second()]).await.unwrap(), Commit::TokenTaken);
    assert_eq!(read(&db.store, "w").await.workspace, before.workspace);
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("w")]);
    assert_eq!(db.store.decision("d").await.unwrap(), None);
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);

    db.store.revoke_tokens("w").await.unwrap();
    assert_eq!(db.store.commit(&[second()]).await.unwrap(), Commit::Done);
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("second")]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_first_tokens_one_is_handed_out(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let without = NewWorkspace { token: None, ..new_workspace("w") };
    db.store.create(&without).await.unwrap();
    // Without a transition the version does not move, so the token alone decides.
    let racers = (0..12).map(|n| {
        let store = db.store.clone();
        let step = Step { registration: Some(registration(Some(&n.to_string()))), ..Step::of("w", 1) };
        tokio::spawn(async move { store.commit(&[step]).await.unwrap() })
    });
    let mut handed_out = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Commit::Done => handed_out += 1,
            lost => assert_eq!(lost, Commit::TokenTaken),
        }
    }
    assert_eq!(handed_out, 1);
    assert_eq!(db.store.tokens("w").await.unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn decisions_are_paged_oldest_first(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let row = read(&db.store, "w").await;
    for id in ["03", "01", "02"] {
        let only = Step { decision: Some(decision(id, &row)), ..Step::of("w", 1) };
        assert_eq!(db.store.commit(&[only]).await.unwrap(), Commit::Done);
    }
    let ids = async |after: Option<&str>, limit| {
        let page = db.store.decisions(after, limit).await.unwrap();
        page.into_iter().map(|decision| decision.id).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(None, 2).await, "01 02");
    assert_eq!(ids(Some("02"), 2).await, "03");
    assert_eq!(ids(Some("03"), 2).await, "");
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);
    db.sql("UPDATE decisions SET body = '{}' WHERE id = '02'").await;
    let error = db.store.decision("02").await.unwrap_err().to_string();
    assert_eq!(error, "decisions.body of 02: \"{}\" is not the JSON of a decision");
}
