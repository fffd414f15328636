//! The hot path: batches of heartbeats.

use rstest::rstest;
use sprag::machine::{CauseKind, Status};
use sprag::store::{Backend, Beat, Beaten, Commit};

use super::{beat, first_online, read, remove, step};
use crate::support::db::{TestDb, token_of};

/// `beaten` as one word each.
fn words(beaten: &[Beaten]) -> Vec<&'static str> {
    let word = |beaten: &Beaten| match beaten {
        Beaten::Stored(_, _) => "stored",
        Beaten::Unknown => "unknown",
        Beaten::Unauthorized => "unauthorized",
        Beaten::Removed => "removed",
        Beaten::Unreadable(_) => "unreadable",
    };
    beaten.iter().map(word).collect()
}

#[rstest]
#[tokio::test]
async fn a_heartbeat_is_stored_and_the_row_returned(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    let created = read(&db.store, "w").await;
    let beaten = db.store.beat(&[beat("w")]).await.unwrap();
    let [Beaten::Stored(snapshot, _)] = beaten.as_slice() else { panic!("{beaten:?}") };
    assert_eq!(snapshot.version, 1);
    assert_eq!(snapshot.workspace.last_heartbeat_at, Some(snapshot.now));
    assert!(snapshot.now >= created.now);
    assert_eq!(snapshot.workspace.active_tasks, 3);
    assert_eq!(snapshot.workspace.status_since, created.workspace.status_since);
    assert_eq!(read(&db.store, "w").await.workspace, snapshot.workspace);

    let view = db.store.view("w").await.unwrap().unwrap();
    assert_eq!((view.error_rate, view.uptime_seconds), (0.25, 77));
    assert_eq!(view.sample_error, "connection reset");
    assert_eq!((view.current_task.as_str(), view.runtime_state.as_str()), ("reading", "wedged"));
    assert_eq!(db.store.events(Some("w"), None, 10).await.unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_mixed_batch_is_answered_in_its_order(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for id in ["z", "a", "stranger", "gone", "gone-stranger"] {
        db.workspace(id).await;
    }
    remove(&db.store, "gone").await;
    remove(&db.store, "gone-stranger").await;
    let with = |id: &str, token: &str| Beat { token: token_of(token), ..beat(id) };
    let batch = [
        beat("z"),
        beat("nobody"),
        with("stranger", "z"),
        beat("gone"),
        with("gone-stranger", "z"),
        with("nobody-else", "z"),
        beat("a"),
    ];
    let beaten = db.store.beat(&batch).await.unwrap();
    assert_eq!(
        words(&beaten),
        ["stored", "unknown", "unauthorized", "removed", "unauthorized", "unknown", "stored"]
    );
    let [Beaten::Stored(z, _), .., Beaten::Stored(a, _)] = beaten.as_slice() else { panic!("{beaten:?}") };
    assert_eq!((z.workspace.id.as_str(), a.workspace.id.as_str()), ("z", "a"));
    for refused in ["stranger", "gone", "gone-stranger"] {
        assert_eq!(read(&db.store, refused).await.workspace.last_heartbeat_at, None, "{refused}");
    }
    assert!(db.store.beat(&[]).await.unwrap().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_revoked_token_stores_nothing(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.workspace("w").await;
    assert_eq!(db.store.revoke_tokens("w").await.unwrap(), 1);
    assert_eq!(db.store.tokens("w").await.unwrap(), []);
    assert_eq!(words(&db.store.beat(&[beat("w")]).await.unwrap()), ["unauthorized"]);
    remove(&db.store, "w").await;
    assert_eq!(words(&db.store.beat(&[beat("w")]).await.unwrap()), ["unauthorized"]);
}

/// The last one made is found in the row, the others among the tokens; and no way
/// to end one, not even by hand, leaves it in the row.
#[rstest]
#[case("UPDATE tokens SET revoked_at = 1 WHERE id = 'second'", "stored", "unauthorized")]
#[case("UPDATE tokens SET revoked_at = 1 WHERE id <> 'second'", "unauthorized", "stored")]
#[case("DELETE FROM tokens WHERE id = 'second'", "stored", "unauthorized")]
#[case("DELETE FROM tokens WHERE id <> 'second'", "unauthorized", "stored")]
#[case("UPDATE tokens SET revoked_at = 1", "unauthorized", "unauthorized")]
#[case("UPDATE tokens SET hash = hash || hash WHERE id = 'second'", "stored", "unauthorized")]
#[case("UPDATE tokens SET workspace_id = 'v' WHERE id = 'second'", "stored", "unauthorized")]
#[case("UPDATE workspaces SET live_token = NULL", "stored", "stored")]
#[tokio::test]
async fn every_live_token_is_taken_and_none_that_ended(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] end: &str,
    #[case] first: &str,
    #[case] second: &str,
) {
    let db = TestDb::new(backend).await;
    for id in ["v", "w"] {
        db.workspace(id).await;
    }
    let hash: String = token_of("second").0.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = match backend {
        Backend::Sqlite => format!("x'{hash}'"),
        Backend::Postgres => format!("'\\x{hash}'"),
    };
    let insert = "INSERT INTO tokens (hash, id, workspace_id, created_at) VALUES";
    db.sql(&format!("{insert} ({hash}, 'second', 'w', 9000000000000)")).await;
    let in_the_row = format!("SELECT COUNT(*) FROM workspaces WHERE live_token = {hash}");
    assert_eq!(db.number(&in_the_row).await, 1);
    let by = |token: &str| Beat { token: token_of(token), ..beat("w") };
    for token in ["w", "second"] {
        assert_eq!(words(&db.store.beat(&[by(token)]).await.unwrap()), ["stored"], "{token}");
    }

    db.sql(end).await;
    assert_eq!(words(&db.store.beat(&[by("w")]).await.unwrap()), [first]);
    assert_eq!(words(&db.store.beat(&[by("second")]).await.unwrap()), [second]);
}

/// From the release before, with what its rows and tokens were.
#[rstest]
#[tokio::test]
async fn an_upgrade_finds_the_live_tokens(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    for id in ["w", "ended", "none"] {
        db.workspace(id).await;
    }
    db.store.revoke_tokens("ended").await.unwrap();
    db.sql("DELETE FROM tokens WHERE workspace_id = 'none'").await;
    db.sql(match backend {
        Backend::Sqlite => {
            "DROP TRIGGER tokens_made; DROP TRIGGER tokens_changed; DROP TRIGGER tokens_deleted"
        }
        Backend::Postgres => "DROP FUNCTION keep_live_token, forget_live_tokens CASCADE",
    })
    .await;
    db.sql("ALTER TABLE workspaces DROP COLUMN live_token").await;
    db.sql("DELETE FROM _sqlx_migrations WHERE version = 4").await;

    db.store.migrate().await.unwrap();
    let held = "SELECT COUNT(*) FROM workspaces AS w JOIN tokens AS t ON t.workspace_id = w.id
        WHERE w.live_token = t.hash AND w.id = 'w'";
    assert_eq!(db.number(held).await, 1);
    assert_eq!(db.number("SELECT COUNT(*) FROM workspaces WHERE live_token IS NOT NULL").await, 1);
    let batch = [beat("w"), beat("ended"), beat("none")];
    assert_eq!(words(&db.store.beat(&batch).await.unwrap()), ["stored", "unauthorized", "unauthorized"]);
    db.store.revoke_tokens("w").await.unwrap();
    assert_eq!(words(&db.store.beat(&batch[..1]).await.unwrap()), ["unauthorized"]);
}

#[tokio::test]
async fn emptied_tokens_are_no_live_ones() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    db.sql("TRUNCATE tokens").await;
    assert_eq!(words(&db.store.beat(&[beat("w")]).await.unwrap()), ["unauthorized"]);
}

/// Each ends one by hand, and neither sees what the other does until it has the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_end_tokens_at_once_neither_puts_one_back() {
    let db = TestDb::new(Backend::Postgres).await;
    db.workspace("w").await;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    sqlx::query(
        "INSERT INTO tokens (hash, id, workspace_id, created_at) VALUES ('\\x02', 'second', 'w', 9000000000000)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut one = pool.begin().await.unwrap();
    sqlx::query("UPDATE tokens SET revoked_at = 1 WHERE id = 'second'").execute(&mut *one).await.unwrap();
    let other = pool.clone();
    let other = tokio::spawn(async move {
        sqlx::query("UPDATE tokens SET revoked_at = 1 WHERE id <> 'second'").execute(&other).await.unwrap();
    });
    while db.waiting_for_locks().await == 0 && !other.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    one.commit().await.unwrap();
    other.await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM workspaces WHERE live_token IS NOT NULL").await, 0);
}

#[rstest]
#[tokio::test]
async fn one_odd_heartbeat_does_not_fail_its_batch(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for id in ["a", "b"] {
        db.workspace(id).await;
    }
    let odd = Beat {
        error_rate: Some(f64::NAN),
        sample_error: Some("nul\0 \"quoted\" {a,b} \\ 🦀\n".to_owned()),
        active_tasks: Some(u32::MAX),
        uptime_seconds: Some(u64::MAX),
        current_task: Some("\0".repeat(3)),
        ..beat("a")
    };
    let nul = Beat { workspace_id: "b\0".to_owned(), ..beat("b") };
    let beaten = db.store.beat(&[odd, nul, beat("b")]).await.unwrap();
    assert_eq!(words(&beaten), ["stored", "unknown", "stored"]);
    let view = db.store.view("a").await.unwrap().unwrap();
    assert_eq!(view.sample_error, "nul\u{fffd} \"quoted\" {a,b} \\ 🦀\n");
    assert_eq!((view.error_rate, view.workspace.active_tasks), (1.0, u32::MAX));
    assert_eq!(view.uptime_seconds, i64::MAX as u64);
}

#[rstest]
#[tokio::test]
async fn a_heartbeat_sees_its_row_as_it_is_now(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.workspace("p").await;
    db.child("w", "p").await;
    assert_eq!(db.store.commit(&[first_online("w")]).await.unwrap(), Commit::Done);
    let pause = step("p", 1, Status::Provisioning, Status::Paused, CauseKind::Pause);
    assert_eq!(db.store.commit(&[pause]).await.unwrap(), Commit::Done);
    let beaten = db.store.beat(&[beat("w"), beat("p")]).await.unwrap();
    let [Beaten::Stored(w, _), Beaten::Stored(p, _)] = beaten.as_slice() else { panic!("{beaten:?}") };
    assert_eq!((w.version, w.workspace.status, w.workspace.ancestor_paused), (2, Status::Online, true));
    assert_eq!((p.version, p.workspace.status, p.workspace.ancestor_paused), (2, Status::Paused, false));
    assert!(w.now >= w.workspace.status_since);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_overlap_do_not_deadlock(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let ids: Vec<_> = (0..40).map(|n| format!("w{n}")).collect();
    for id in &ids {
        db.workspace(id).await;
    }
    let tasks = (0..8).map(|turn| {
        let (store, mut batch) = (db.store.clone(), ids.iter().map(|id| beat(id)).collect::<Vec<_>>());
        tokio::spawn(async move {
            for _ in 0..10 {
                batch.rotate_left(turn);
                assert!(store.beat(&batch).await.unwrap().iter().all(|b| matches!(b, Beaten::Stored(_, _))));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_never_brings_a_removed_row_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for round in 0..10 {
        let id = format!("w{round}");
        db.workspace(&id).await;
        let (removed, beaten) = tokio::join!(remove(&db.store, &id), async {
            let batch = [beat(&id)];
            db.store.beat(&batch).await.unwrap()
        });
        assert_eq!(removed, Commit::Done);
        assert!(matches!(beaten[0], Beaten::Stored(_, _) | Beaten::Removed), "{beaten:?}");
        assert_eq!(words(&db.store.beat(&[beat(&id)]).await.unwrap()), ["removed"]);
        assert_eq!(read(&db.store, &id).await.workspace.status, Status::Removed);
    }
}

#[rstest]
#[tokio::test]
async fn one_unreadable_row_is_the_trouble_of_one_agent(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    for id in ["a", "b", "c"] {
        db.workspace(id).await;
    }
    db.sql("UPDATE workspaces SET labels = 'no' WHERE id = 'b'").await;
    let beaten = db.store.beat(&[beat("a"), beat("b"), beat("c")]).await.unwrap();
    assert_eq!(words(&beaten), ["stored", "unreadable", "stored"]);
    let Beaten::Unreadable(error) = &beaten[1] else { panic!("{beaten:?}") };
    assert_eq!(error.to_string(), "workspaces.labels of b: \"no\" is not a JSON object of strings");
}

#[tokio::test]
async fn the_log_of_sqlite_starts_anew_under_heartbeats_alone() {
    let db = TestDb::new(Backend::Sqlite).await;
    let mut batch = Vec::new();
    for id in (0..256).map(|n| format!("w{n}")) {
        db.workspace(&id).await;
        batch.push(beat(&id));
    }
    let log = format!("{}-wal", db.url.trim_start_matches("sqlite:"));
    // How often the log was begun stands in its header, whatever its file's length.
    let begun = || std::fs::read(&log).expect("a log")[12..16].to_vec();
    let before = begun();
    for _ in 0..300 {
        assert!(words(&db.store.beat(&batch).await.unwrap()).iter().all(|word| *word == "stored"));
        if begun() != before {
            return;
        }
    }
    panic!("76,800 heartbeats, and nothing of the log is folded");
}
