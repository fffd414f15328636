//! Modules, revisions, and which one is active.

use rstest::rstest;
use sprag::facts::{ModuleLimits, Setting, Settings};
use sprag::store::{Backend, BoundModule, Store, StoredModule};

use crate::support::db::TestDb;

fn bound(digest: &str) -> BoundModule {
    let settings = Settings::from([
        ("rate".to_owned(), Setting::Number(0.1)),
        ("window".to_owned(), Setting::Duration(90_000)),
        ("strict".to_owned(), Setting::Flag(true)),
        ("who".to_owned(), Setting::Text("ops \"x\"".to_owned())),
    ]);
    BoundModule {
        digest: digest.to_owned(),
        name: "heartbeat".to_owned(),
        version: "1".to_owned(),
        settings,
        limits: ModuleLimits::default(),
    }
}

async fn active(store: &Store) -> Option<i64> {
    store.active_revision().await.unwrap().map(|revision| revision.number)
}

async fn previous(store: &Store) -> Option<i64> {
    store.previous_revision().await.unwrap().map(|revision| revision.number)
}

#[rstest]
#[tokio::test]
async fn a_module_is_kept_by_its_digest(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    assert!(db.store.module("sha256:0").await.unwrap().is_none());
    let module = StoredModule {
        digest: "sha256:0".to_owned(),
        name: "heartbeat".to_owned(),
        version: "1.0".to_owned(),
        bytes: vec![0, 255, 7, 0].into(),
    };
    db.store.put_module(&module).await.unwrap();
    db.store.put_module(&StoredModule { name: "liar".to_owned(), ..module.clone() }).await.unwrap();
    let kept = db.store.module("sha256:0").await.unwrap().unwrap();
    assert_eq!((kept.name, kept.version, kept.bytes), (module.name, module.version, module.bytes));
}

#[rstest]
#[tokio::test]
async fn the_newest_activation_is_the_active_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let store = &db.store;
    assert_eq!((active(store).await, previous(store).await), (None, None));
    assert!(!store.activate(1).await.unwrap());

    assert_eq!(store.activate_new("dir", "f1", &[bound("a"), bound("b")]).await.unwrap(), 1);
    assert_eq!((active(store).await, previous(store).await), (Some(1), None));
    assert_eq!(store.activate_new("api", "f2", &[]).await.unwrap(), 2);
    assert_eq!((active(store).await, previous(store).await), (Some(2), Some(1)));
    assert!(store.activate(1).await.unwrap());
    assert_eq!((active(store).await, previous(store).await), (Some(1), None));
    assert!(store.activate(1).await.unwrap());
    assert_eq!((active(store).await, previous(store).await), (Some(1), None));
    assert!(!store.activate(9).await.unwrap());
    assert_eq!(active(store).await, Some(1));

    let revisions = store.revisions().await.unwrap();
    assert_eq!(revisions.iter().map(|r| (r.number, r.active)).collect::<Vec<_>>(), [(2, false), (1, true)]);
    assert_eq!(revisions[1].modules, [bound("a"), bound("b")]);
    assert_eq!((revisions[1].source.as_str(), revisions[1].fingerprint.as_str()), ("dir", "f1"));
    assert!(revisions[1].activated_at >= Some(revisions[1].created_at));
    assert_eq!(store.newest_revision_from("dir").await.unwrap().unwrap().number, 1);
    assert_eq!(store.newest_revision_from("rollback").await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn the_same_rules_from_the_same_source_are_one_revision(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    assert_eq!(db.store.activate_new("dir", "f", &[]).await.unwrap(), 1);
    assert_eq!(db.store.activate_new("dir", "f", &[]).await.unwrap(), 1);
    assert_eq!(db.store.activate_new("api", "f", &[]).await.unwrap(), 2);
    assert_eq!(db.store.activate_new("dir", "f", &[]).await.unwrap(), 3);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_activate_at_once_do_so_in_turn(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let hosts = (0..8).map(|host| {
        let store = db.store.clone();
        tokio::spawn(async move { store.activate_new("api", &format!("f{host}"), &[]).await.unwrap() })
    });
    let mut numbers = Vec::new();
    for host in hosts.collect::<Vec<_>>() {
        numbers.push(host.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    assert_eq!((active(&db.store).await, previous(&db.store).await), (Some(8), Some(7)));
}

#[rstest]
#[tokio::test]
async fn a_broken_revision_is_named(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.store.activate_new("dir", "f", &[]).await.unwrap();
    db.sql("UPDATE policy_revisions SET modules = 'no'").await;
    let error = db.store.active_revision().await.unwrap_err().to_string();
    assert_eq!(error, "policy_revisions.modules of 1: \"no\" is not a JSON array of bound modules");
}
