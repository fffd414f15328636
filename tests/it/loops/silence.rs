//! Silence: windows by runtime, reckoned from the last thing that was heard,
//! and a heartbeat that comes in time always wins.

use rstest::rstest;
use sprag::machine::Status;
use sprag::store::Backend;

use super::race::{Rival, outrun};
use super::{
    BEGINNING, MINUTE, SECOND, Watch, beat, both, boxed, fleet, flipped, left, nothing, pass, seen, set,
    status,
};

#[rstest]
#[tokio::test]
async fn each_runtime_has_its_window(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        ("claude-code", 90, Status::Offline, Some("restart")),
        ("hermes", 180, Status::Offline, Some("restart")),
        ("external", 300, Status::AwaitingAgent, None)
    )]
    of: (&str, u64, Status, Option<&str>),
) {
    let (runtime, window, to, owed) = of;
    let fleet = fleet(backend).await;
    let all = both(&fleet, runtime).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, window * SECOND - 1).await;
    assert_eq!(watch.tick("silence").await, left(2, "held"));
    pass(&fleet, 1).await;
    fleet.db.sql("UPDATE workspaces SET silence_at = 0").await;
    assert_eq!(watch.tick("silence").await, flipped(2));
    for (made, from) in all.iter().zip([Status::Online, Status::Degraded]) {
        let after = seen(&fleet, &made.id).await;
        assert_eq!((after.row.workspace.status, after.row.version), (to, 2));
        let event = after.events.last().expect("an event");
        let reason = event.reason.as_ref().map(|reason| reason.code.as_str());
        assert_eq!((event.from, event.cause.as_str(), reason), (Some(from), "silence", Some("went-silent")));
        assert_eq!(
            after.owed.iter().map(|effect| effect.kind.as_str()).collect::<Vec<_>>(),
            Vec::from_iter(owed)
        );
        assert_eq!(beat(&fleet, made).await, Status::Online, "and back");
    }
}

/// Grace begins with the latest of the last heartbeat, the status, and what the host trusts.
#[rstest]
#[tokio::test]
async fn silence_counts_from_the_latest_sign(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        // Heard, long in its status.
        ("status_since = status_since - 3600000", 0),
        // Never heard of, and just come into its status.
        ("last_heartbeat_at = NULL", 0),
        // Heard of before it came into its status.
        ("last_heartbeat_at = last_heartbeat_at - 3600000", 0),
        // Neither, but nobody listened until now.
        ("last_heartbeat_at = NULL, status_since = 0", BEGINNING)
    )]
    so: (&str, u64),
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Online).await;
    set(&fleet, &made.id, so.0).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    fleet.db.sql(&format!("UPDATE fleet SET trusted_from = {}", so.1)).await;
    assert_eq!(watch.tick("silence").await, nothing());
    pass(&fleet, 90 * SECOND - 1).await;
    assert_eq!(watch.tick("silence").await, left(1, "held"));
    pass(&fleet, 15 * SECOND).await;
    assert_eq!(watch.tick("silence").await, flipped(1));
    assert_eq!(status(&fleet, &made).await, Status::Offline);
}

/// Whatever comes between the sweep's taking and its write wins.
#[rstest]
#[tokio::test]
async fn a_row_that_spoke_or_moved_on_is_not_silent(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        Rival::Heartbeat,
        Rival::Claim,
        Rival::Hold,
        Rival::Replace,
        Rival::Move(Status::Paused),
        Rival::Distrust,
        Rival::Sleep(5 * SECOND + 1)
    )]
    rival: Rival,
) {
    let fleet = fleet(backend).await;
    let all = both(&fleet, "claude-code").await;
    pass(&fleet, 10 * MINUTE).await;
    let (path, before) = outrun(&fleet, &all, rival);
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.tick("silence").await, left(2, "outran"));
    before.holds(&fleet, &all).await;
}

/// What was judged is written within five seconds of the database's, to the millisecond.
#[rstest]
#[tokio::test]
async fn a_judgement_keeps_for_five_seconds(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Online).await;
    pass(&fleet, 10 * MINUTE).await;
    let (path, _) = outrun(&fleet, &[made], Rival::Sleep(5 * SECOND));
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.tick("silence").await, flipped(1));
}

/// Of rows that speak, none is ever looked at, and one that stops is flipped
/// within its window and one tick.
#[rstest]
#[tokio::test]
async fn the_one_that_stops_is_found_within_a_window_and_a_tick(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let speaks = boxed(&fleet, "claude-code", Status::Online).await;
    let stops = boxed(&fleet, "claude-code", Status::Online).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    for after in [15 * SECOND - 10, 15 * SECOND, 15 * SECOND, 15 * SECOND, 15 * SECOND, 15 * SECOND] {
        pass(&fleet, after).await;
        beat(&fleet, &speaks).await;
        let tally = watch.tick("silence").await;
        assert!(tally.looked <= 1, "{tally:?}");
    }
    assert_eq!(status(&fleet, &stops).await, Status::Online, "10 ms of its window are left");
    // A tick may come a little early.
    pass(&fleet, 15 * SECOND - 5).await;
    assert_eq!(watch.tick("silence").await, flipped(1));
    assert_eq!(status(&fleet, &stops).await, Status::Offline);
    assert_eq!(status(&fleet, &speaks).await, Status::Online);
}
