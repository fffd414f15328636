//! The bugs that must be impossible, each raced deterministically: the rival
//! acts between the read and the write, not after a sleep.

use std::sync::Arc;

use rstest::rstest;
use serde_json::json;
use sprag::advance::{Advance, Advanced, Removal};
use sprag::facts::{Action, Cause, Command, Heartbeat, Outcome, Readiness};
use sprag::heartbeats::Heard;
use sprag::machine::Status;
use sprag::store::{Patch, Placed, Registration};

use crate::support::fleet::{Each, Fleet, Made};
use crate::support::sandbox::shipped;
use sprag::store::Backend;

/// A heartbeat that moves a row of the given status.
fn moving(cause: &str) -> Heartbeat {
    match cause {
        "errors" => Heartbeat { error_rate: 0.9, ..Heartbeat::default() },
        "wedge" => Heartbeat { runtime_state: "wedged".to_owned(), ..Heartbeat::default() },
        "no tools" => Heartbeat {
            readiness: Readiness { mcp_server_present: Some(false), ..Readiness::default() },
            ..Heartbeat::default()
        },
        _ => Heartbeat::default(),
    }
}

fn registration() -> Registration {
    Registration {
        url: Some("http://agent".to_owned()),
        agent_card: Some(json!({"name": "late"})),
        readiness: Readiness::default(),
        warnings: None,
        first_token: None,
    }
}

/// Somebody who moves the row on each time that it was judged.
fn always_moves(fleet: &Arc<Fleet>, id: &str) -> Arc<Each> {
    let sql = format!("UPDATE workspaces SET version = version + 1 WHERE id = '{id}'");
    Arc::new(Each { fleet: fleet.clone(), sql })
}

/// The row is removed, and its log says nothing but that it was made and removed.
async fn assert_stays_removed(fleet: &Fleet, made: &Made) {
    let row = fleet.row(&made.id).await;
    assert_eq!(row.workspace.status, Status::Removed);
    assert_eq!(row.url, None, "the loser wrote its address");
    let events = fleet.events(&made.id).await;
    let causes: Vec<_> = events.iter().map(|e| (e.version, e.cause.as_str())).collect();
    assert_eq!(causes, [(1, "created"), (2, "remove")]);
    // What the heartbeat of a removed row's box sets in motion is the end of that box.
    for decision in fleet.store.decisions(None, 10_000).await.expect("reading decisions") {
        if decision.question.workspace.id == made.id && decision.question.workspace.status == Status::Removed
        {
            assert!(
                decision.actions.iter().all(|asked| asked.action == Action::StopInstance),
                "{decision:?}"
            );
            assert_eq!(decision.outcome, Outcome::Held { denials: Vec::new() });
        } else if decision.question.workspace.id == made.id {
            assert_eq!(decision.question.cause, Cause::Commanded(Command::remove()), "{decision:?}");
        }
    }
    let effects = fleet.store.effects(None, Some(&made.id), None, 100).await.expect("reading the outbox");
    let kinds: Vec<_> = effects.iter().map(|effect| effect.kind.as_str()).collect();
    assert!(kinds.iter().all(|kind| ["stop", "stop_instance"].contains(kind)), "{kinds:?}");
}

/// Case 1: a heartbeat that was judged before a removal is not written after it.
#[rstest]
#[tokio::test]
async fn a_heartbeat_never_resurrects(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        ("workspace", Status::Online, "errors"),
        ("workspace", Status::Online, "wedge"),
        ("workspace", Status::Degraded, "well"),
        ("workspace", Status::Offline, "well"),
        ("workspace", Status::Provisioning, "well"),
        ("workspace", Status::AwaitingAgent, "well"),
        ("workspace", Status::Failed, "well"),
        ("platform", Status::Online, "no tools"),
        ("platform", Status::Degraded, "no tools")
    )]
    path: (&str, Status, &str),
) {
    let (kind, from, cause) = path;
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace(kind, "hermes", from).await;
    let heard = fleet.beat(&fleet.outrun_by_removal(), &made, moving(cause)).await;
    assert_eq!(heard.expect("answered"), Heard::Removed);
    assert_stays_removed(&fleet, &made).await;
    let again = fleet.beat(&fleet.advance, &made, moving(cause)).await;
    assert_eq!(again.expect("answered"), Heard::Removed);
    assert_stays_removed(&fleet, &made).await;
}

/// Case 1: the same for a registration.
#[rstest]
#[tokio::test]
async fn a_registration_never_resurrects(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        Status::Provisioning,
        Status::AwaitingAgent,
        Status::Online,
        Status::Degraded,
        Status::Offline,
        Status::Failed
    )]
    from: Status,
    #[values("workspace", "platform")] kind: &str,
) {
    if (from, kind) == (Status::Failed, "platform") {
        return; // The gate denies the one way there is: nothing would be written.
    }
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace(kind, "hermes", from).await;
    let readiness = Readiness { mcp_server_present: Some(kind != "platform"), ..Readiness::default() };
    let cause = Cause::Registered(readiness);
    let outrun = fleet.outrun_by_removal();
    let advanced = outrun.workspace(&made.id, &cause, Some(&registration())).await.expect("answered");
    assert!(
        matches!(&advanced, Advanced::NoEdge(none) if none.from == Status::Removed),
        "a removed row was registered: {advanced:?}"
    );
    assert_stays_removed(&fleet, &made).await;
}

/// Case 1: a registration does not upsert over a row that is set aside.
#[rstest]
#[tokio::test]
async fn a_registration_leaves_a_row_that_is_set_aside(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Paused, Status::Hibernated, Status::Removed)] status: Status,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", status).await;
    let before = fleet.row(&made.id).await;
    let cause = Cause::Registered(Readiness::default());
    let advanced = fleet.advance.workspace(&made.id, &cause, Some(&registration())).await.expect("answered");
    assert!(matches!(&advanced, Advanced::NoEdge(none) if none.from == status), "{advanced:?}");
    assert_eq!(fleet.row(&made.id).await, before);
    assert_eq!(fleet.events(&made.id).await.len(), 1);
}

/// Case 1: a card that arrives after the removal changes nothing and leaves no event.
#[rstest]
#[tokio::test]
async fn a_card_never_reaches_a_removed_row(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Online).await;
    fleet.advance.remove(&made.id, &Command::remove(), true).await.expect("removed");
    assert!(!fleet.store.update_card(&made.id, &json!({"name": "late"})).await.expect("answered"));
    assert_stays_removed(&fleet, &made).await;
}

/// Case 1: legitimate transitions still happen, also where somebody else moved the row first.
#[rstest]
#[tokio::test]
async fn an_outrun_heartbeat_is_judged_again(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let rival = (fleet.advance.clone(), made.clone());
    let outrun = fleet.between(move |id| {
        let (rival, _) = rival.clone();
        async move {
            let cause = Cause::Registered(Readiness::default());
            let first = rival.workspace(&id, &cause, None).await.expect("registered");
            assert!(matches!(first, Advanced::Moved { to: Status::Online, .. }), "{first:?}");
        }
    });
    let heard = fleet.beat(&outrun, &made, moving("errors")).await.expect("answered");
    assert!(matches!(heard, Heard::Stored { status: Status::Degraded, decision_id: Some(_) }), "{heard:?}");
    let chain: Vec<_> = fleet.events(&made.id).await.iter().map(|e| (e.version, e.to)).collect();
    assert_eq!(
        chain,
        [(1, Some(Status::Provisioning)), (2, Some(Status::Online)), (3, Some(Status::Degraded))]
    );
}

/// Somebody who is outrun every time gives up, and has written nothing.
#[rstest]
#[tokio::test]
async fn three_attempts_and_no_more(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let made = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let always = fleet.advance.clone().with_between(always_moves(&fleet, &made.id));
    let cause = Cause::Heartbeat(Heartbeat::default());
    let advanced = always.workspace(&made.id, &cause, None).await.expect("answered");
    assert_eq!(advanced, Advanced::Outran);
    let row = fleet.row(&made.id).await;
    assert_eq!((row.workspace.status, row.version), (Status::Offline, 4));
    assert_eq!((fleet.events(&made.id).await.len(), fleet.decisions(&made.id).await), (1, 0));
}

/// The path on which, between its judgement and its write, a child appears below the row that it
/// is about: created, or `stray` moved there; or moved there and out again.
fn with_a_newcomer(fleet: &Arc<Fleet>, stray: &str, how: &'static str) -> Advance {
    let (rival, stray) = (fleet.clone(), stray.to_owned());
    fleet.between(move |id| {
        let (rival, stray) = (rival.clone(), stray.clone());
        async move {
            if how == "created" {
                rival.child("workspace", "hermes", Status::Online, Some(&id)).await;
                return;
            }
            let last = (how == "moved out again").then_some(None);
            for to in [Some(Some(id)), last].into_iter().flatten() {
                let patch = Patch { parent_id: Some(to), ..Patch::default() };
                assert_eq!(rival.store.patch(&stray, &patch).await.expect("moved"), Placed::Done);
            }
        }
    })
}

/// A child that appears while its parent is removed is removed as well.
#[rstest]
#[tokio::test]
async fn a_removal_leaves_no_orphan(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("created", "moved")] how: &'static str,
) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let parent = fleet.workspace("workspace", "hermes", Status::Online).await;
    let elsewhere = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let outrun = with_a_newcomer(&fleet, &elsewhere.id, how);
    let removal = outrun.remove(&parent.id, &Command::remove(), true).await.expect("answered");
    assert!(matches!(&removal, Removal::Done(all) if all.len() == 2), "{removal:?}");
    assert_eq!(fleet.store.subtree(&parent.id).await.expect("read"), []);
}

/// A child that appears while its parent is removed, and nobody said that children go too, keeps it.
#[rstest]
#[tokio::test]
async fn a_removal_takes_nobody_along_unasked(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("created", "moved", "moved out again")] how: &'static str,
) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let parent = fleet.workspace("workspace", "hermes", Status::Online).await;
    let elsewhere = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let outrun = with_a_newcomer(&fleet, &elsewhere.id, how);
    let removal = outrun.remove(&parent.id, &Command::remove(), false).await.expect("answered");
    if how == "moved out again" {
        assert!(matches!(&removal, Removal::Done(all) if all.len() == 1), "{removal:?}");
        assert_eq!(fleet.row(&elsewhere.id).await.workspace.status, Status::Offline);
        return;
    }
    assert_eq!(removal, Removal::HasDescendants(1));
    let kept = fleet.store.subtree(&parent.id).await.expect("read");
    assert_eq!(kept.len(), 2);
    assert_eq!((fleet.events(&parent.id).await.len(), fleet.decisions(&parent.id).await), (1, 0));
}

/// A row that was moved out of the tree before its removal was written stays.
#[rstest]
#[tokio::test]
async fn a_removal_spares_what_moved_out(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let parent = fleet.workspace("workspace", "hermes", Status::Online).await;
    let leaver = fleet.child("workspace", "hermes", Status::Online, Some(&parent.id)).await;
    let stayer = fleet.child("workspace", "hermes", Status::Online, Some(&parent.id)).await;
    let (rival, id) = (fleet.clone(), leaver.id.clone());
    let outrun = fleet.between(move |_| {
        let (rival, id) = (rival.clone(), id.clone());
        async move {
            let patch = Patch { parent_id: Some(None), ..Patch::default() };
            assert_eq!(rival.store.patch(&id, &patch).await.expect("moved"), Placed::Done);
        }
    });
    let removal = outrun.remove(&parent.id, &Command::remove(), true).await.expect("answered");
    assert!(matches!(&removal, Removal::Done(all) if all.len() == 2), "{removal:?}");
    assert_eq!(fleet.row(&leaver.id).await.workspace.status, Status::Online);
    assert_eq!(fleet.row(&stayer.id).await.workspace.status, Status::Removed);
}

/// A removal that wins against the last attempt is told as one.
#[rstest]
#[tokio::test]
async fn a_removal_that_wins_last_is_seen(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let made = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let sql = format!(
        "UPDATE workspaces SET version = version + 1,
         status = CASE WHEN version < 3 THEN status ELSE 'removed' END WHERE id = '{}'",
        made.id
    );
    let always = fleet.advance.clone().with_between(Arc::new(Each { fleet: fleet.clone(), sql }));
    let heard = fleet.beat(&always, &made, Heartbeat::default()).await.expect("answered");
    assert_eq!(heard, Heard::Removed);
}

/// One descendant that moved on between read and write keeps the whole family.
#[rstest]
#[tokio::test]
async fn a_removal_is_whole_or_not_at_all(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Arc::new(Fleet::new(backend, shipped().await).await);
    let parent = fleet.workspace("workspace", "hermes", Status::Online).await;
    let child = fleet.child("workspace", "hermes", Status::Online, Some(&parent.id)).await;
    let always = fleet.advance.clone().with_between(always_moves(&fleet, &child.id));
    let removal = always.remove(&parent.id, &Command::remove(), true).await.expect("answered");
    assert_eq!(removal, Removal::Outran);
    for made in [&parent, &child] {
        assert_eq!(fleet.row(&made.id).await.workspace.status, Status::Online);
        assert_eq!((fleet.events(&made.id).await.len(), fleet.decisions(&made.id).await), (1, 0));
    }
}

/// Case 5: a live heartbeat is the authority: failed → online.
#[rstest]
#[tokio::test]
async fn a_box_that_boots_late_is_alive(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Failed).await;
    let heard = fleet.beat(&fleet.advance, &made, Heartbeat::default()).await.expect("answered");
    assert!(matches!(heard, Heard::Stored { status: Status::Online, decision_id: Some(_) }), "{heard:?}");
}
