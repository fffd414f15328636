//! The bound where nobody foresees anything: it is counted in the transaction
//! that takes the row down.

use std::sync::Arc;

use futures::future::join_all;
use rstest::rstest;
use sprag::advance::{Advance, Look, Settled};
use sprag::facts::Cause;
use sprag::metrics::Metrics;
use sprag::revisions::Active;
use sprag::store::{Backend, BrakeLimits, Down, Due, Still, Store, Sweep};

use super::{BLUE, HOUR_MS, RED, crowd, events};
use crate::support::db::TestDb;
use crate::support::sandbox::shipped;

const HOSTS: usize = 3;

/// Of three hundred rows, so many may go down; of red alone, fewer.
const LIMITS: BrakeLimits = BrakeLimits { share: 0.1, number: 10, window_ms: 300_000, per_minute: 60 };

/// One row's way down, with nothing asked before.
async fn down(advance: &Advance, due: Due, limits: BrakeLimits) -> Settled {
    let still = Still {
        last_heartbeat_at: due.facts.workspace.last_heartbeat_at,
        instance_id: due.facts.workspace.instance_id.clone(),
        taken_at: due.taken_at,
        until: due.facts.now + HOUR_MS,
        down: Some(Down { provider: due.facts.workspace.provider.clone(), limits }),
    };
    let cause = Cause::Silence { for_: due.facts.now - due.since };
    match advance.look(due.facts, &cause, &still).await.expect("judging") {
        Look::Found(found) => advance.settle(*found).await.expect("writing"),
        look => panic!("{look:?}"),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_race_keep_to_it_together(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    db.sql(&crowd(RED, 120, HOUR_MS)).await;
    db.sql(&crowd(BLUE, 180, HOUR_MS)).await;
    assert!(db.store.count_live(1, &LIMITS).await.expect("counting"));
    let mut racing = Vec::new();
    for _ in 0..HOSTS {
        let store = Store::connect(&db.url).await.expect("one more host");
        let advance =
            Advance::new(store.clone(), Active::of(shipped().await), Arc::new(Metrics::default()), 1);
        let taken = store.take_due(Sweep::Silence, 60_000, 60_000, 100).await.expect("taking");
        racing.extend(taken.due.into_iter().map(|due| {
            let advance = advance.clone();
            tokio::spawn(async move { down(&advance, due, LIMITS).await })
        }));
    }
    assert_eq!(racing.len(), 300);
    let settled: Vec<_> = join_all(racing).await.into_iter().map(|one| one.expect("a step")).collect();
    let moved = settled.iter().filter(|one| matches!(one, Settled::Moved { .. })).count();
    let braked = settled.iter().filter(|one| **one == Settled::Braked).count();
    assert_eq!(moved + braked, 300, "none was outrun");

    let offline = |provider| {
        format!("SELECT COUNT(*) FROM workspaces WHERE status = 'offline' AND provider = '{provider}'")
    };
    let (red, blue) = (db.number(&offline(RED)).await, db.number(&offline(BLUE)).await);
    assert_eq!((red, blue), (12, 18), "a tenth of each, and so a tenth of all");
    assert_eq!(events(&db, "WORKSPACE_OFFLINE").await, 30);
    assert_eq!(moved, 30);
    let counted = "SELECT CAST(SUM(flips) AS BIGINT) FROM brake_flips WHERE scope = 'fleet'";
    assert_eq!(db.number(counted).await, 30, "what was refused is not counted");
}

/// A rate is one from its first second on.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn in_the_second_of_a_release_the_rate_holds(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    db.sql(&crowd(RED, 40, HOUR_MS)).await;
    let advance =
        Advance::new(db.store.clone(), Active::of(shipped().await), Arc::new(Metrics::default()), 1);
    db.sql("INSERT INTO brakes (scope, state, since) SELECT 'fleet', 'easing', now FROM clock").await;
    let limits = BrakeLimits { per_minute: 5, ..LIMITS };
    let taken = db.store.take_due(Sweep::Silence, 60_000, 60_000, 40).await.expect("taking");
    for due in taken.due {
        down(&advance, due, limits).await;
    }
    assert_eq!(events(&db, "WORKSPACE_OFFLINE").await, 5);
}

/// Whatever is set and counted: never less than the number, never more than all.
#[test]
fn the_bound_is_the_share_and_at_least_the_number() {
    let shares = [0.0, 0.001, 0.1, 0.2, 0.5, 0.999, 1.0];
    let rows = [0, 1, 9, 10, 11, 99, 5_000, 1_000_000, u64::from(u32::MAX)];
    for (share, number) in shares.into_iter().flat_map(|share| rows.map(|number| (share, number))) {
        let limits = BrakeLimits { share, number, ..LIMITS };
        let mut before = 0;
        for live in rows {
            let bound = limits.bound(live);
            assert!(bound >= number && bound <= number.max(live), "{limits:?} of {live}: {bound}");
            assert!(bound == number || bound as f64 <= share * live as f64, "{limits:?} of {live}: {bound}");
            assert!(bound >= before, "more rows, and fewer may go down: {limits:?} of {live}");
            before = bound;
        }
    }
    let default = BrakeLimits { share: 0.2, ..LIMITS };
    assert_eq!([0, 49, 50, 54, 55, 5_000].map(|live| default.bound(live)), [10, 10, 10, 10, 11, 1_000]);
}
