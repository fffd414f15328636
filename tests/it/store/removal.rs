//! Removing a subtree, and what may race with it: a new child, a child that
//! moves in, another removal.

use rstest::rstest;
use sprag::machine::Status;
use sprag::store::{Backend, Commit, NewWorkspace, Patch, Placed};

use super::{read, removal, remove};
use crate::support::db::{TestDb, new_workspace};

#[rstest]
#[tokio::test]
async fn a_removal_takes_all_descendants(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.child("b", "a").await;
    db.child("c", "b").await;
    db.workspace("other").await;
    assert_eq!(remove(&db.store, "a").await, Commit::Done);
    for id in ["a", "b", "c"] {
        let row = read(&db.store, id).await;
        assert_eq!((row.version, row.workspace.status), (2, Status::Removed));
        let events = db.store.events(Some(id), None, 10).await.unwrap();
        assert_eq!(events[0].event_type, "WORKSPACE_REMOVED");
    }
    assert_eq!(read(&db.store, "other").await.version, 1);
}

#[rstest]
#[tokio::test]
async fn a_child_that_appeared_undoes_the_removal(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.child("b", "a").await;
    let judged: Vec<_> = db.store.subtree("a").await.unwrap().iter().map(removal).collect();
    db.child("late", "b").await;
    assert_eq!(db.store.commit(&judged).await.unwrap(), Commit::Outran);
    assert_eq!(read(&db.store, "a").await.version, 1);
    assert_eq!(db.store.events(Some("a"), None, 10).await.unwrap().len(), 1);
    assert_eq!(remove(&db.store, "a").await, Commit::Done);
    assert_eq!(read(&db.store, "late").await.workspace.status, Status::Removed);
}

#[rstest]
#[tokio::test]
async fn a_child_that_moved_in_undoes_the_removal(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.workspace("mover").await;
    let judged: Vec<_> = db.store.subtree("a").await.unwrap().iter().map(removal).collect();
    let under = Patch { parent_id: Some(Some("a".to_owned())), ..Patch::default() };
    assert_eq!(db.store.patch("mover", &under).await.unwrap(), Placed::Done);
    assert_eq!(db.store.commit(&judged).await.unwrap(), Commit::Outran);
    assert_eq!(read(&db.store, "a").await.workspace.status, Status::Provisioning);
}

/// Whichever comes first, no live row has a removed parent.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_race_leaves_an_orphan(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for round in 0..20 {
        let (parent, born, mover) = (format!("p{round}"), format!("c{round}"), format!("m{round}"));
        db.workspace(&parent).await;
        db.workspace(&mover).await;
        let child = NewWorkspace { parent_id: Some(parent.clone()), ..new_workspace(&born) };
        let under = Patch { parent_id: Some(Some(parent.clone())), ..Patch::default() };
        let (removed, created, moved) =
            tokio::join!(remove(&db.store, &parent), db.store.create(&child), db.store.patch(&mover, &under));
        let (created, moved) = (created.unwrap(), moved.unwrap());
        if removed == Commit::Done {
            // What came too late was refused; what came before was in the subtree.
            for (id, placed) in [(&born, created), (&mover, moved)] {
                let row = db.store.snapshot(id).await.unwrap();
                match placed {
                    Placed::Done => assert_eq!(row.unwrap().workspace.status, Status::Removed),
                    refused => assert_eq!(refused, Placed::ParentRemoved),
                }
            }
        } else {
            assert_eq!(removed, Commit::Outran);
            assert_eq!(read(&db.store, &parent).await.workspace.status, Status::Provisioning);
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_removals_one_wins(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for round in 0..10 {
        let (parent, child) = (format!("z{round}"), format!("a{round}"));
        db.workspace(&parent).await;
        db.child(&child, &parent).await;
        let whole: Vec<_> = db.store.subtree(&parent).await.unwrap().iter().map(removal).collect();
        let part = vec![removal(&read(&db.store, &child).await)];
        let (whole, part) = tokio::join!(db.store.commit(&whole), db.store.commit(&part));
        let mut both = [whole.unwrap(), part.unwrap()];
        both.sort_by_key(|commit| *commit != Commit::Done);
        assert_eq!(both, [Commit::Done, Commit::Outran]);
        assert_eq!(read(&db.store, &child).await.version, 2);
    }
}

/// The removal is written but not yet committed when the child arrives: it must
/// wait for it, and then see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_waits_for_a_removal_that_is_under_way() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("p").await;
    db.workspace("mover").await;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    let mut removal = pool.begin().await.unwrap();
    sqlx::query("UPDATE workspaces SET status = 'removed', version = 2 WHERE id = 'p'")
        .execute(&mut *removal)
        .await
        .unwrap();
    let store = db.store.clone();
    let child = NewWorkspace { parent_id: Some("p".to_owned()), ..new_workspace("child") };
    let created = tokio::spawn(async move { store.create(&child).await.unwrap() });
    let store = db.store.clone();
    let under = Patch { parent_id: Some(Some("p".to_owned())), ..Patch::default() };
    let moved = tokio::spawn(async move { store.patch("mover", &under).await.unwrap() });
    // Both now wait for the row, or did not look and are through.
    while !(created.is_finished() || moved.is_finished()) && db.waiting_for_locks().await != 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    removal.commit().await.unwrap();
    assert_eq!(created.await.unwrap(), Placed::ParentRemoved);
    assert_eq!(moved.await.unwrap(), Placed::ParentRemoved);
    assert_eq!(db.store.snapshot("child").await.unwrap(), None);
}
