//! What the loops look at next, by index on both databases.

use rstest::rstest;
use sprag::store::{Backend, Store, Sweep};

use crate::support::db::TestDb;

/// An online row with a box, heard of `ago` milliseconds ago.
async fn online(db: &TestDb, id: &str, ago: u64) {
    db.workspace(id).await;
    db.sql(&format!(
        "UPDATE workspaces SET status = 'online', provider = 'red', instance_id = 'box-{id}',
            hibernation_idle_minutes = 1,
            status_since = (SELECT now FROM clock) - 1000000, created_at = (SELECT now FROM clock) - 1000000,
            last_heartbeat_at = (SELECT now FROM clock) - {ago} WHERE id = '{id}'"
    ))
    .await;
}

async fn taken(store: &Store, sweep: Sweep, after_ms: u64) -> Vec<String> {
    let taken = store.take_due(sweep, after_ms, 60_000, 100).await.expect("taking");
    assert!(taken.unreadable.is_empty(), "{taken:?}");
    let mut ids: Vec<_> = taken.due.into_iter().map(|due| due.facts.workspace.id).collect();
    ids.sort();
    ids
}

#[rstest]
#[tokio::test]
async fn what_is_due_is_found_by_its_index(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        (Sweep::Silence, "workspaces_silence"),
        (Sweep::Instances, "workspaces_probe"),
        (Sweep::Provisioning, "workspaces_provisioning"),
        (Sweep::Idle, "workspaces_idle"),
        (Sweep::Down, "workspaces_down")
    )]
    (sweep, index): (Sweep, &str),
) {
    let db = TestDb::new(backend).await;
    crowd(&db, 20_000).await;
    let plan = db.store.plan_of_taking(sweep).await.expect("a plan").join("\n");
    let read = match backend {
        Backend::Sqlite => format!("SEARCH workspaces USING INDEX {index} ("),
        Backend::Postgres => format!("Index Scan using {index} on workspaces"),
    };
    assert!(plan.contains(&read), "{index} is not used:\n{plan}");
    for whole in ["SCAN workspaces", "Seq Scan on workspaces", "TEMP B-TREE FOR ORDER", "Sort Key"] {
        assert!(!plan.contains(whole), "{whole}:\n{plan}");
    }
    let recall = db.store.plan_of_recalling(sweep).await.expect("a plan").join("\n");
    let far_end = read.replace("Index Scan", "Index Scan Backward");
    assert!(recall.contains(&far_end), "{index} is not used to find what was put off:\n{recall}");
    for whole in ["SCAN workspaces", "Seq Scan on workspaces", "TEMP B-TREE FOR ORDER", "Sort Key"] {
        assert!(!recall.contains(whole), "{whole}:\n{recall}");
    }
    let plan = db.store.plan_of_waiting(sweep).await.expect("a plan").join("\n");
    assert!(plan.contains(&read), "{index} is not used to count what waits:\n{plan}");
}

/// As many rows of all kinds, of which the database knows the statistics.
async fn crowd(db: &TestDb, rows: u32) {
    db.sql(&format!(
        "INSERT INTO workspaces (id, name, kind, runtime, provider, instance_id, labels, persistent_volume,
            hibernation_idle_minutes, created_at, status, status_since, version)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
        SELECT 'w' || n, 'w', 'workspace', 'claude-code', 'red', 'box', '{{}}', FALSE, 30, 0,
            CASE WHEN n % 4 = 0 THEN 'provisioning' ELSE 'online' END, 0, 1 FROM n;
        ANALYZE workspaces;"
    ))
    .await;
}

#[rstest]
#[tokio::test]
async fn the_silent_are_taken_once_and_the_heard_moved(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    online(&db, "silent", 90_000).await;
    online(&db, "heard", 1_000).await;
    assert_eq!(db.store.rearm(Sweep::Silence, 60_000, 15_000, 10).await.expect("rearming"), 1);
    assert_eq!(db.store.rearm(Sweep::Silence, 60_000, 15_000, 10).await.expect("rearming"), 0);
    assert_eq!(taken(&db.store, Sweep::Silence, 60_000).await, ["silent"]);
    assert_eq!(taken(&db.store, Sweep::Silence, 60_000).await, [] as [&str; 0], "nobody takes it twice");
}

#[rstest]
#[tokio::test]
async fn each_sweep_sees_its_own(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    online(&db, "online", 90_000).await;
    online(&db, "claimed", 90_000).await;
    online(&db, "external", 90_000).await;
    online(&db, "boxless", 90_000).await;
    online(&db, "removed", 90_000).await;
    online(&db, "booting", 90_000).await;
    db.sql("UPDATE workspaces SET claim_id = 'c' WHERE id = 'claimed'").await;
    db.sql("UPDATE workspaces SET runtime = 'external' WHERE id = 'external'").await;
    db.sql("UPDATE workspaces SET instance_id = NULL, hibernation_idle_minutes = NULL WHERE id = 'boxless'")
        .await;
    db.sql("UPDATE workspaces SET status = 'removed' WHERE id = 'removed'").await;
    db.sql("UPDATE workspaces SET status = 'provisioning' WHERE id = 'booting'").await;
    assert_eq!(taken(&db.store, Sweep::Silence, 60_000).await, ["boxless", "external", "online"]);
    assert_eq!(taken(&db.store, Sweep::Instances, 0).await, ["booting", "online"]);
    assert_eq!(taken(&db.store, Sweep::Provisioning, 60_000).await, ["booting"]);
    assert_eq!(taken(&db.store, Sweep::Idle, 0).await, ["external", "online"]);
}

/// The clock ran a day ahead, and was set back.
#[rstest]
#[tokio::test]
async fn what_a_clock_put_off_is_recalled(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    online(&db, "put-off", 90_000).await;
    online(&db, "waits", 90_000).await;
    db.sql("UPDATE workspaces SET silence_at = (SELECT now FROM clock) + 86400000 WHERE id = 'put-off'")
        .await;
    db.sql("UPDATE workspaces SET silence_at = (SELECT now FROM clock) + 60000 WHERE id = 'waits'").await;
    assert_eq!(taken(&db.store, Sweep::Silence, 60_000).await, [] as [&str; 0]);
    assert_eq!(db.store.recall(Sweep::Silence, 60_000, 15_000, 10).await.expect("recalling"), 1);
    assert_eq!(taken(&db.store, Sweep::Silence, 60_000).await, ["put-off"]);
}
