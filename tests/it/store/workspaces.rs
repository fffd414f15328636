//! Creating, reading, listing and changing workspaces.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::json;
use sprag::machine::{CauseKind, Status};
use sprag::store::{Backend, Commit, Filter, NewWorkspace, Patch, Placed, StoreError};

use super::{beat, first_online, read, remove, step};
use crate::support::db::{TestDb, new_workspace, token_of};

/// Ids that a careless query, index or array would trip over.
const STRANGE: [&str; 12] = [
    "",
    " ",
    "'",
    "\"; DROP TABLE workspaces; --",
    "{a,b}",
    "NULL",
    "\\",
    "%_",
    "ünïcødé 🦀",
    "line\nbreak",
    "$1",
    "[\"json\"]",
];

#[rstest]
#[tokio::test]
async fn a_new_workspace_is_read_as_it_was_made(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("p").await;
    let new = NewWorkspace {
        provider: Some("process".to_owned()),
        parent_id: Some("p".to_owned()),
        tier: Some("gold".to_owned()),
        labels: BTreeMap::from([("team".to_owned(), "réd \"x\"".to_owned())]),
        persistent_volume: true,
        hibernation_idle_minutes: Some(30),
        kind: "platform".to_owned(),
        runtime: "hermes".to_owned(),
        ..new_workspace("w")
    };
    assert_eq!(db.store.create(&new).await.unwrap(), Placed::Done);
    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.name.as_str(), view.version), ("name of w", 1));
    assert_eq!(view.parent_id.as_deref(), Some("p"));
    assert_eq!(view.tier.as_deref(), Some("gold"));
    assert_eq!((view.url, view.agent_card), (None, None));
    assert_eq!(view.hibernation_idle_minutes, Some(30));
    assert_eq!((view.error_rate, view.uptime_seconds), (0.0, 0));
    let workspace = view.workspace;
    assert_eq!(workspace.status, Status::Provisioning);
    assert_eq!(workspace.status_since, view.created_at);
    assert_eq!(workspace.last_heartbeat_at, None);
    assert_eq!((workspace.kind.as_str(), workspace.runtime.as_str()), ("platform", "hermes"));
    assert_eq!(workspace.provider.as_deref(), Some("process"));
    assert!(workspace.persistent_volume && !workspace.ancestor_paused);
    assert_eq!(workspace.labels, new.labels);
    let snapshot = read(&db.store, "w").await;
    assert_eq!(snapshot.workspace, workspace);
    assert!(snapshot.now >= view.created_at && snapshot.now < view.created_at + 60_000);
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("w")]);
}

#[rstest]
#[tokio::test]
async fn the_clock_is_in_milliseconds_of_the_epoch(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let before = sprag::clock::now();
    let now = read(&db.store, "w").await.now;
    assert!(now.abs_diff(before) < 60_000, "{now} is far from {before}");
}

#[rstest]
#[tokio::test]
async fn nothing_is_found_where_there_is_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for id in STRANGE.into_iter().chain(["nul\0byte"]) {
        assert_eq!(db.store.snapshot(id).await.unwrap(), None);
        assert_eq!(db.store.view(id).await.unwrap(), None);
        assert_eq!(db.store.subtree(id).await.unwrap(), []);
        assert_eq!(db.store.tokens(id).await.unwrap(), []);
        assert_eq!(db.store.decision(id).await.unwrap(), None);
        assert!(!db.store.update_card(id, &json!({})).await.unwrap());
        assert_eq!(db.store.patch(id, &Patch::default()).await.unwrap(), Placed::NoSuchWorkspace);
    }
}

#[rstest]
#[tokio::test]
async fn strange_ids_are_ordinary_ids(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for id in STRANGE {
        db.workspace(id).await;
    }
    let beats: Vec<_> = STRANGE.into_iter().map(beat).collect();
    for (id, beaten) in STRANGE.iter().zip(db.store.beat(&beats).await.unwrap()) {
        let sprag::store::Beaten::Stored(snapshot, _) = beaten else { panic!("{id:?}: {beaten:?}") };
        assert_eq!(snapshot.workspace.id, *id);
        assert_eq!(db.store.commit(&[first_online(id)]).await.unwrap(), Commit::Done);
        assert_eq!(read(&db.store, id).await.version, 2);
        assert_eq!(db.store.events(Some(id), None, 10).await.unwrap().len(), 2);
    }
    let listed = db.store.list(&Filter { limit: 100, ..Filter::default() }).await.unwrap();
    let mut sorted = STRANGE.to_vec();
    sorted.sort_unstable();
    assert_eq!(listed.iter().map(|view| view.workspace.id.as_str()).collect::<Vec<_>>(), sorted);
}

#[rstest]
#[tokio::test]
async fn every_status_comes_back_as_it_went_in(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for status in Status::ALL {
        let id = status.as_str();
        db.workspace(id).await;
        db.sql(&format!("UPDATE workspaces SET status = '{id}' WHERE id = '{id}'")).await;
        assert_eq!(read(&db.store, id).await.workspace.status, status);
        let filter = Filter { status: Some(status), limit: 9, ..Filter::default() };
        let listed = db.store.list(&filter).await.unwrap();
        assert_eq!(listed.iter().map(|view| view.workspace.status).collect::<Vec<_>>(), [status]);
    }
}

#[rstest]
#[case("status = 'molten'", "status", "molten")]
#[case("labels = '[1'", "labels", "[1")]
#[case("active_tasks = -1", "active_tasks", "-1")]
#[case("status_since = -5", "status_since", "-5")]
#[tokio::test]
async fn a_broken_row_says_where_it_is_broken(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] damage: &str,
    #[case] broken: &str,
    #[case] value: &str,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    db.sql(&format!("UPDATE workspaces SET {damage} WHERE id = 'w'")).await;
    let error = db.store.snapshot("w").await.unwrap_err();
    let StoreError::BadRow { table, column, id, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*table, *column, id.as_str(), found.as_str()), ("workspaces", broken, "w", value));
    assert!(!error.is_unavailable());
}

/// Postgres has no such column: it refuses the text.
#[tokio::test]
async fn a_column_of_another_type_is_named() {
    let db = TestDb::new(Backend::Sqlite).await;
    db.workspace("w").await;
    db.sql("UPDATE workspaces SET status_since = 'yesterday' WHERE id = 'w'").await;
    let error = db.store.snapshot("w").await.unwrap_err();
    let StoreError::Statement(sqlx::Error::ColumnDecode { index, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(index, "status_since");
}

#[rstest]
#[tokio::test]
async fn a_parent_must_be_there_and_not_removed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("gone").await;
    assert_eq!(remove(&db.store, "gone").await, Commit::Done);
    let under = |parent: &str| NewWorkspace { parent_id: Some(parent.to_owned()), ..new_workspace("child") };
    assert_eq!(db.store.create(&under("nobody")).await.unwrap(), Placed::NoSuchParent);
    assert_eq!(db.store.create(&under("gone")).await.unwrap(), Placed::ParentRemoved);
    assert_eq!(db.store.view("child").await.unwrap(), None);
    assert_eq!(db.store.tokens("child").await.unwrap(), []);
    assert_eq!(db.store.events(Some("child"), None, 10).await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn the_same_id_twice_is_refused_whole(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let again = NewWorkspace { token: Some(token_of("another")), ..new_workspace("w") };
    assert!(matches!(db.store.create(&again).await, Err(StoreError::Statement(_))));
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("w")]);
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn tokens_are_replaced_whole(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for id in ["w", "other", "gone"] {
        db.workspace(id).await;
    }
    assert!(db.store.replace_tokens("w", &token_of("new")).await.unwrap());
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("new")]);
    assert_eq!(db.store.tokens("other").await.unwrap(), [token_of("other")]);
    assert_eq!(read(&db.store, "w").await.version, 1);
    // A hash that somebody has already: the insert fails, and the revocation with it.
    assert!(db.store.replace_tokens("w", &token_of("other")).await.is_err());
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("new")]);
    // Of two at once one is left.
    let (one, other) = (token_of("one"), token_of("another"));
    let both = tokio::join!(db.store.replace_tokens("w", &one), db.store.replace_tokens("w", &other));
    assert!(both.0.unwrap() && both.1.unwrap());
    let left = db.store.tokens("w").await.unwrap();
    assert!(left == [one] || left == [other], "{} are left", left.len());
    // Also where there was none.
    db.store.revoke_tokens("w").await.unwrap();
    assert!(db.store.replace_tokens("w", &token_of("again")).await.unwrap());
    assert_eq!(db.store.tokens("w").await.unwrap(), [token_of("again")]);

    remove(&db.store, "gone").await;
    let before = db.store.tokens("gone").await.unwrap();
    assert!(!db.store.replace_tokens("gone", &token_of("more")).await.unwrap());
    assert_eq!(db.store.tokens("gone").await.unwrap(), before);
    assert!(!db.store.replace_tokens("nobody", &token_of("more")).await.unwrap());
}

#[rstest]
#[tokio::test]
async fn a_list_is_filtered_and_paged(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.child("b", "a").await;
    db.child("c", "a").await;
    let other = NewWorkspace {
        kind: "platform".to_owned(),
        runtime: "external".to_owned(),
        provider: Some("process".to_owned()),
        ..new_workspace("d")
    };
    db.store.create(&other).await.unwrap();
    assert_eq!(remove(&db.store, "c").await, Commit::Done);

    let all = || Filter { limit: 10, ..Filter::default() };
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (all(), "a b d"),
        (Filter { limit: 2, ..all() }, "a b"),
        (Filter { after: some("b"), ..all() }, "d"),
        (Filter { include_removed: true, ..all() }, "a b c d"),
        (Filter { status: Some(Status::Removed), ..all() }, "c"),
        (Filter { parent_id: some("a"), ..all() }, "b"),
        (Filter { parent_id: some("a"), include_removed: true, after: some("b"), ..all() }, "c"),
        (Filter { kind: some("platform"), ..all() }, "d"),
        (Filter { runtime: some("external"), provider: some("process"), ..all() }, "d"),
        (Filter { kind: some("nul\0"), ..all() }, ""),
    ];
    for (filter, expected) in cases {
        let listed = db.store.list(&filter).await.unwrap();
        let ids: Vec<_> = listed.into_iter().map(|view| view.workspace.id).collect();
        assert_eq!(ids.join(" "), expected, "{filter:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_patch_changes_what_it_names_and_no_version(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("p").await;
    db.workspace("w").await;
    let before = db.store.view("w").await.unwrap().unwrap();
    assert_eq!(db.store.patch("w", &Patch::default()).await.unwrap(), Placed::Done);
    assert_eq!(db.store.view("w").await.unwrap().unwrap(), before);

    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let patch = Patch {
        name: Some("new".to_owned()),
        labels: Some(labels.clone()),
        parent_id: Some(Some("p".to_owned())),
        tier: Some(Some("t".to_owned())),
        hibernation_idle_minutes: Some(Some(5)),
    };
    assert_eq!(db.store.patch("w", &patch).await.unwrap(), Placed::Done);
    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.name.as_str(), view.version), ("new", 1));
    assert_eq!(view.workspace.labels, labels);
    assert_eq!((view.parent_id.as_deref(), view.tier.as_deref()), (Some("p"), Some("t")));
    assert_eq!(view.hibernation_idle_minutes, Some(5));

    let undo = Patch {
        parent_id: Some(None),
        tier: Some(None),
        hibernation_idle_minutes: Some(None),
        ..Patch::default()
    };
    assert_eq!(db.store.patch("w", &undo).await.unwrap(), Placed::Done);
    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.parent_id, view.tier, view.hibernation_idle_minutes), (None, None, None));
    assert_eq!(view.name, "new");
}

#[rstest]
#[tokio::test]
async fn a_move_is_refused_where_the_tree_would_break(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.child("b", "a").await;
    db.child("c", "b").await;
    db.workspace("gone").await;
    remove(&db.store, "gone").await;
    let under = |parent: &str| Patch { parent_id: Some(Some(parent.to_owned())), ..Patch::default() };
    for (id, parent, expected) in [
        ("a", "a", Placed::Cycle),
        ("a", "c", Placed::Cycle),
        ("b", "c", Placed::Cycle),
        ("a", "nobody", Placed::NoSuchParent),
        ("a", "gone", Placed::ParentRemoved),
        ("gone", "a", Placed::Removed),
        ("nobody", "a", Placed::NoSuchWorkspace),
        ("c", "a", Placed::Done),
    ] {
        assert_eq!(db.store.patch(id, &under(parent)).await.unwrap(), expected, "{id} under {parent}");
    }
    assert_eq!(db.store.patch("gone", &Patch::default()).await.unwrap(), Placed::Removed);
    assert_eq!(db.store.view("a").await.unwrap().unwrap().parent_id, None);
}

#[rstest]
#[tokio::test]
async fn moves_that_race_close_no_circle(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for round in 0..10 {
        let id = |name: &str| format!("{round}{name}");
        db.workspace(&id("a")).await;
        db.child(&id("d"), &id("a")).await;
        db.workspace(&id("b")).await;
        db.child(&id("c"), &id("b")).await;
        // Each is fine alone; both would make a → c → b → d → a.
        let under = |parent: &str| Patch { parent_id: Some(Some(id(parent))), ..Patch::default() };
        let (a, b) = (id("a"), id("b"));
        let (under_c, under_d) = (under("c"), under("d"));
        let (one, other) = tokio::join!(db.store.patch(&a, &under_c), db.store.patch(&b, &under_d));
        let mut placed = [one.unwrap(), other.unwrap()];
        placed.sort_by_key(|placed| *placed != Placed::Done);
        assert_eq!(placed, [Placed::Done, Placed::Cycle]);
    }
}

#[rstest]
#[tokio::test]
async fn a_paused_ancestor_is_seen_from_below(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("a").await;
    db.child("b", "a").await;
    db.child("c", "b").await;
    let pause = step("a", 1, Status::Provisioning, Status::Paused, CauseKind::Pause);
    assert_eq!(db.store.commit(&[pause]).await.unwrap(), Commit::Done);
    assert!(!read(&db.store, "a").await.workspace.ancestor_paused);
    assert!(read(&db.store, "b").await.workspace.ancestor_paused);
    assert!(read(&db.store, "c").await.workspace.ancestor_paused);
    assert!(db.store.view("c").await.unwrap().unwrap().workspace.ancestor_paused);
}

#[rstest]
#[tokio::test]
async fn a_subtree_has_parents_first_and_none_removed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("z").await;
    db.child("y", "z").await;
    db.child("a", "y").await;
    db.child("b", "z").await;
    db.child("gone", "z").await;
    remove(&db.store, "gone").await;
    let rows = db.store.subtree("z").await.unwrap();
    assert_eq!(rows.iter().map(|row| row.workspace.id.as_str()).collect::<Vec<_>>(), ["z", "b", "y", "a"]);
    assert_eq!(db.store.subtree("gone").await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn a_card_is_stored_with_its_event(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    for card in [json!({ "a": 1 }), json!({ "b": [1.5, "\u{0}"] })] {
        assert!(db.store.update_card("w", &card).await.unwrap());
        let view = db.store.view("w").await.unwrap().unwrap();
        assert_eq!((view.agent_card, view.version), (Some(card), 1));
    }
    let events = db.store.events(Some("w"), None, 10).await.unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].event_type, "AGENT_CARD_UPDATED");
    assert_eq!((events[0].from, events[0].to, events[0].version), (None, None, 1));
    assert_eq!(events[0].cause, "card_updated");
    remove(&db.store, "w").await;
    assert!(!db.store.update_card("w", &json!({})).await.unwrap());
}
