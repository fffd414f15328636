//! A host that is killed while it reckons times anew: nothing of it has happened, and
//! the next host does all of it, once.

use rstest::rstest;
use sprag::store::Backend;

use super::{HOUR, MINUTE};
use crate::provision::soon;
use crate::support::db::TestDb;
use crate::support::process::{Launch, Process};

/// A clock that is off by what a test says.
async fn offset(db: &TestDb) {
    let (make, now) = match db.store.backend() {
        Backend::Sqlite => {
            ("DROP VIEW clock; CREATE VIEW", "CAST(unixepoch('subsec') * 1000 + 0.5 AS INTEGER)")
        }
        Backend::Postgres => {
            ("CREATE OR REPLACE VIEW", "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
        }
    };
    db.sql(&format!(
        "CREATE TABLE test_offset (ms BIGINT NOT NULL); INSERT INTO test_offset VALUES (0);
        {make} clock AS SELECT {now} + test_offset.ms AS now FROM test_offset"
    ))
    .await;
}

/// All that a jump rewrites.
async fn written(db: &TestDb) -> [i64; 4] {
    let mut read = [0; 4];
    let numbers = [
        "SELECT clock_from FROM fleet",
        "SELECT trusted_from FROM fleet",
        "SELECT due_at FROM outbox WHERE id = 'owed'",
        "SELECT COUNT(*) FROM events WHERE reason_code = 'clock-jumped'",
    ];
    for (read, sql) in read.iter_mut().zip(numbers) {
        *read = db.number(sql).await;
    }
    read
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_in_it_has_done_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    offset(&db).await;
    db.workspace("w").await;
    let owed = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
        SELECT 'owed', 'w', 'stop', '{{}}', 'due', now + {HOUR}, now FROM clock"
    );
    db.sql(&owed).await;
    let dir = tempfile::tempdir().expect("a directory");
    // A busy machine makes for no other distrust.
    let config = "[brake]\njump_ms = 600000\nstall_ms = 600000\nslow_ms = 600000\nlost_ms = 50000\n\
                  forget_ms = 600000\n";
    let env = &[("SPRAG_DIE_AT", "clock:reckoned")];
    let host = Launch { config, env, ..Launch::of(&db.url, dir.path()) }.start().await;
    soon("it has pulsed", async || db.number("SELECT clock_seen FROM fleet").await > 0).await;
    let before = written(&db).await;
    db.sql(&format!("UPDATE test_offset SET ms = -{HOUR}")).await;
    host.died("clock:reckoned").await;
    assert_eq!(written(&db).await, before, "all of it or nothing");

    let next = Process::start(&db.url, dir.path(), config).await;
    soon("it is reckoned", async || written(&db).await[3] == 1).await;
    let [clock_from, trusted_from, due, _] = written(&db).await;
    assert!(clock_from > 0 && trusted_from >= clock_from, "{clock_from} {trusted_from}");
    let left = due - db.number("SELECT now FROM clock").await;
    let off = (left - HOUR.cast_signed()).abs();
    assert!(off < 5 * MINUTE.cast_signed(), "its distance is kept, and not shifted twice: {left}");
    next.kill().await;
}
