//! What holds back the stop of a stray, and how many act: the brake, a clock that was
//! set, many hosts.

use futures::future::join_all;
use rstest::rstest;
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::store::{Backend, BrakeState, STRAYS};

use super::{DAY, GRACE, QUIET, Stage, WEEK, soon};
use crate::loops::{MINUTE, SECOND, pass, patient};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_the_brake_allows(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(3, 4)] strays: u64,
) {
    let brake = BrakeConfig { number: 3, share: 0.9, release_per_minute: 2, ..patient() };
    let stage = Stage::of(backend, 1, &LoopsConfig::default(), &brake).await;
    let made = stage.row(9).await;
    for epoch in 1..=strays {
        stage.runs(&made, epoch);
    }
    soon(&stage).await;
    let tally = stage.tick().await;
    let down = "SELECT COUNT(*) FROM brake_flips WHERE scope <> 'strays'";
    assert_eq!(stage.fleet.db.number(down).await, 0, "no row went down");
    if strays <= brake.number {
        assert_eq!(tally.flipped, strays);
        // It is as much as may be within a window.
        stage.runs(&made, 7);
        pass(&stage.fleet, MINUTE).await;
        stage.tick().await;
        stage.fleet.db.sql("UPDATE strays SET found_at = 0").await;
        assert_eq!(stage.after(MINUTE).await.skipped["braked"], 1);
        assert_eq!(stage.provider.stopped().len(), 3);
        return;
    }
    assert_eq!((tally.flipped, tally.skipped["braked"]), (0, 4), "before the first");
    assert_eq!(stage.brake(STRAYS).await, Some((BrakeState::Held, 0)));
    assert_eq!(stage.events("BRAKE_HELD").await, 1);
    assert_eq!(stage.after(WEEK).await.flipped, 0, "it is a person's to release");
    let released = stage.fleet.store.release_brake(Some(STRAYS), "operator").await.expect("releasing");
    assert_eq!(released, [STRAYS]);
    assert_eq!(stage.after(MINUTE).await.flipped, 2, "so many a minute");
    assert_eq!(stage.after(2 * MINUTE).await.flipped, 2);
}

/// Where rows are held, strays are: the same doubts hold for both.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn where_rows_are_held_no_stray_is_stopped(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("fleet", "provider:process", "provider:black")] scope: &str,
) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    soon(&stage).await;
    let hold = format!(
        "INSERT INTO brakes (scope, state, since) SELECT '{scope}', 'held', now FROM clock WHERE TRUE
        ON CONFLICT (scope) DO UPDATE SET state = 'held'"
    );
    stage.fleet.db.sql(&hold).await;
    assert_eq!(stage.tick().await.flipped, u64::from(scope == "provider:black"));
}

/// Of hosts that share a database one looks and stops.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_many_hosts_one_acts(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::of(backend, 4, &LoopsConfig::default(), &patient()).await;
    let made = stage.row(9).await;
    for epoch in 1..=6 {
        stage.runs(&made, epoch);
    }
    pass(&stage.fleet, QUIET).await;
    for passed in [MINUTE, GRACE, MINUTE] {
        pass(&stage.fleet, passed).await;
        let ticks = join_all(stage.hosts.iter().map(|host| host.tick("strays"))).await;
        let others = ticks.iter().filter(|tally| tally.skipped.contains_key("counted-by-another")).count();
        assert_eq!(others, 3, "{ticks:?}");
    }
    assert_eq!(stage.provider.stop_calls().len(), 6);
    assert_eq!((stage.events("STRAY_FOUND").await, stage.events("STRAY_STOPPED").await), (6, 6));
    // Even where the turn is everybody's.
    for epoch in 1..=6 {
        stage.runs(&made, epoch);
    }
    for passed in [MINUTE, GRACE + MINUTE] {
        pass(&stage.fleet, passed).await;
        let ticks = stage.hosts.iter().map(async |host| {
            stage.fleet.db.sql("UPDATE fleet SET strays_at = 0").await;
            host.tick("strays").await
        });
        join_all(ticks).await;
    }
    // One may have listed what another has stopped since; it is soon forgotten.
    assert!(stage.events("STRAY_FOUND").await >= 12);
    assert_eq!(stage.events("STRAY_STOPPED").await, 12);
    assert_eq!(stage.provider.stop_calls().len(), 12);
}

/// A clock that is set, whichever way: the grace counts anew, and the first hours are
/// as long as they were. Before anybody has noticed, nothing is stopped.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_ends_no_grace(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(-1, 1)] sign: i64,
) {
    const STEP: u64 = 8 * SECOND;
    let config = LoopsConfig { strays_ms: STEP, strays_grace_ms: 4 * STEP, ..LoopsConfig::default() };
    let config = LoopsConfig { strays_quiet_ms: 12 * STEP, ..config };
    let brake = BrakeConfig { jump_ms: 9 * SECOND, ..patient() };
    let stage = Stage::of(backend, 1, &config, &brake).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    let step = async || {
        pass(&stage.fleet, STEP).await;
        stage.hosts[0].tick("pulse").await;
        stage.tick().await
    };
    for _ in 0..6 {
        assert_eq!(step().await.flipped, 0);
    }
    let month = sign * (30 * DAY).cast_signed();
    stage.fleet.db.sql(&format!("UPDATE test_clock SET now = now + {month}")).await;
    let tally = stage.tick().await;
    assert_eq!((tally.looked, tally.skipped.get("clock-jumped")), (0, Some(&1)), "{tally:?}");
    stage.hosts[0].tick("pulse").await;
    for n in 0..5 {
        assert_eq!(step().await.flipped, 0, "{n}: half of the first hours were over");
    }
    let last = [step().await, step().await];
    assert_eq!(last.iter().map(|tally| tally.flipped).sum::<u64>(), 1, "and now they are: {last:?}");
}
