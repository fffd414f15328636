//! The log: paging it, following it, and never skipping a line of it.

use std::collections::HashSet;
use std::time::Duration;

use rstest::rstest;
use sprag::machine::{CauseKind, Status};
use sprag::store::{Backend, Commit, Event, Store, StoreError};

use super::{first_online, step};
use crate::support::db::TestDb;

/// Everything that can be read of the log now, in pages of two, from `after` on.
async fn follow(store: &Store, mut after: Option<String>) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let page = store.events_after(after.as_deref(), 2).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.id.clone());
        all.extend(page);
    }
}

/// Like [`follow`], until `wanted` events are there: in Postgres a transaction
/// anywhere in the cluster, so in another test, may hold the newest ones back.
async fn follow_until(store: &Store, wanted: usize) -> Vec<Event> {
    for _ in 0..600 {
        let all = follow(store, None).await;
        if all.len() >= wanted {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{wanted} events did not appear");
}

#[rstest]
#[tokio::test]
async fn the_log_is_paged_both_ways(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    assert_eq!(db.store.newest_event().await.unwrap(), None);
    for id in ["a", "b", "c"] {
        db.workspace(id).await;
    }
    assert_eq!(db.store.commit(&[first_online("b")]).await.unwrap(), Commit::Done);
    let forward = follow_until(&db.store, 4).await;
    let lines: Vec<_> = forward
        .iter()
        .map(|e| format!("{}{}", e.workspace_id.as_deref().unwrap_or("-"), e.version))
        .collect();
    assert_eq!(lines, ["a1", "b1", "c1", "b2"]);
    assert_eq!(db.store.newest_event().await.unwrap().as_ref(), Some(&forward[3].id));
    assert_eq!(follow(&db.store, Some(forward[1].id.clone())).await, forward[2..]);

    let mut backward = Vec::new();
    let mut before = None::<String>;
    loop {
        let page = db.store.events(None, before.as_deref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        backward.extend(page);
    }
    backward.reverse();
    assert_eq!(backward, forward);

    let of_b = db.store.events(Some("b"), None, 10).await.unwrap();
    assert_eq!(of_b.iter().map(|e| e.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(db.store.events(Some("b"), Some(&of_b[0].id), 10).await.unwrap(), of_b[1..]);
    assert_eq!(db.store.events(Some("nobody"), None, 10).await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn the_beginning_is_the_same_on_both(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let all = follow_until(&db.store, 1).await;
    for beginning in ["0", "0-0"] {
        assert_eq!(follow(&db.store, Some(beginning.to_owned())).await, all, "{beginning}");
    }
}

#[rstest]
#[tokio::test]
async fn a_cursor_that_is_none_is_named(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for bad in ["", "x", "-1", "1-", "-", "1-2-3", "+1-+2", " 1", "99999999999999999999", "1'--", "\0"] {
        for error in [
            db.store.events_after(Some(bad), 1).await.unwrap_err(),
            db.store.events(None, Some(bad), 1).await.unwrap_err(),
        ] {
            assert!(matches!(&error, StoreError::BadCursor(named) if named == bad), "{error:?}");
            assert_eq!(error.to_string(), format!("{bad:?} is no id of this list"));
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_broken_line_says_where_it_is_broken(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let id = db.store.events(None, None, 1).await.unwrap().remove(0).id;
    db.sql("UPDATE events SET to_status = 'molten'").await;
    let error = db.store.events(None, None, 1).await.unwrap_err().to_string();
    assert_eq!(error, format!("events.to_status of {id}: \"molten\" is not a status"));
}

#[rstest]
#[tokio::test]
async fn a_version_has_one_transition(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    // Someone set the version back: the log does not take a second story of it.
    assert_eq!(db.store.commit(&[first_online("w")]).await.unwrap(), Commit::Done);
    db.sql("UPDATE workspaces SET version = 1").await;
    let again = step("w", 1, Status::Online, Status::Degraded, CauseKind::Heartbeat);
    assert!(matches!(db.store.commit(&[again]).await, Err(StoreError::Statement(_))));
    assert_eq!(super::read(&db.store, "w").await.workspace.status, Status::Online);
}

/// An event whose number was drawn first but which commits last.
#[tokio::test]
async fn an_event_that_commits_late_is_not_skipped() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("early").await;
    db.workspace("late").await;
    follow_until(&db.store, 2).await;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    let mut open = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO events (workspace_id, version, type, cause, at) VALUES ('late', 1, 'T', 'test', 1)",
    )
    .execute(&mut *open)
    .await
    .unwrap();

    assert_eq!(db.store.commit(&[first_online("early")]).await.unwrap(), Commit::Done);
    // It is stored and operators see it, but a stream must wait for the older one.
    assert_eq!(db.store.events(Some("early"), None, 1).await.unwrap()[0].version, 2);
    assert_eq!(follow(&db.store, None).await.len(), 2);
    let newest = db.store.newest_event().await.unwrap();
    open.commit().await.unwrap();

    let all = follow_until(&db.store, 4).await;
    assert_eq!(
        (all[2].workspace_id.as_deref(), all[3].workspace_id.as_deref()),
        (Some("late"), Some("early"))
    );
    // Who began at the newest before sees both as well.
    assert_eq!(follow(&db.store, newest).await, all[2..]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_beside_writers_sees_every_event_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    const WRITERS: usize = 4;
    const EACH: usize = 15;
    let db = TestDb::new(backend).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = db.store.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let id = format!("{writer}-{n}");
                store.create(&crate::support::db::new_workspace(&id)).await.unwrap();
                assert_eq!(store.commit(&[first_online(&id)]).await.unwrap(), Commit::Done);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen: Vec<Event> = Vec::new();
    for _ in 0..6000 {
        let after = seen.last().map(|event| event.id.clone());
        seen.extend(follow(&db.store, after).await);
        if seen.len() >= WRITERS * EACH * 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen.len(), WRITERS * EACH * 2);
    let distinct: HashSet<_> = seen.iter().map(|e| (&e.workspace_id, e.version)).collect();
    assert_eq!(distinct.len(), seen.len());
    for (place, event) in seen.iter().enumerate().filter(|(_, event)| event.version == 2) {
        assert!(seen[..place].iter().any(|e| e.workspace_id == event.workspace_id && e.version == 1));
    }
}
