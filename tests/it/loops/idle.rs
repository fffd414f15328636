//! Idle: a claim puts to sleep what had no task for its own limit.

use std::slice::from_ref;
use std::time::Duration;

use rstest::rstest;
use sprag::claims::Commanded;
use sprag::facts::{Command, CommandKind, Heartbeat};
use sprag::machine::Status;
use sprag::store::{Backend, Claim, ClaimState, Patch, Placed};

use super::race::{Rival, outrun};
use super::{MINUTE, Watch, beat, boxed, fleet, flipped, heard, left, nothing, pass, seen, set, status};
use crate::support::db::token_of;
use crate::support::fleet::{Fleet, Made};

/// A workspace of this limit that has just come online and has nothing to do.
async fn awake(fleet: &Fleet, minutes: u32) -> Made {
    let made = boxed(fleet, "claude-code", Status::Provisioning).await;
    limit(fleet, &made, Some(minutes)).await;
    assert_eq!(beat(fleet, &made).await, Status::Online);
    made
}

/// What `PATCH` does.
async fn limit(fleet: &Fleet, made: &Made, minutes: Option<u32>) {
    let patch = Patch { hibernation_idle_minutes: Some(minutes), ..Patch::default() };
    assert_eq!(fleet.store.patch(&made.id, &patch).await.expect("patched"), Placed::Done);
}

fn busy() -> Heartbeat {
    Heartbeat { active_tasks: 1, ..Heartbeat::default() }
}

/// The newest claim on it, once it has ended.
async fn claim(fleet: &Fleet, watch: &Watch, made: &Made) -> Claim {
    let newest = fleet.store.claims_of(&made.id, None, 1).await.expect("reading").remove(0);
    let ended = watch.claims.wait(&newest.id, Duration::from_secs(20)).await.expect("reading");
    ended.expect("a claim")
}

#[rstest]
#[tokio::test]
async fn what_idles_for_its_own_limit_is_put_to_sleep_by_a_claim(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Online, Status::Degraded)] from: Status,
) {
    let fleet = fleet(backend).await;
    let (short, long) = (awake(&fleet, 10).await, awake(&fleet, 30).await);
    set(&fleet, &short.id, &format!("status = '{from}'")).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 10 * MINUTE - 1).await;
    assert_eq!(watch.idle(&fleet).await, nothing());
    pass(&fleet, 1).await;
    // Rows that are not due yet wait for their time.
    set(&fleet, &short.id, "idle_at = 0").await;
    assert_eq!(watch.idle(&fleet).await, flipped(1));
    let claim = claim(&fleet, &watch, &short).await;
    assert_eq!((claim.kind.as_str(), claim.actor.as_str()), ("hibernate", "idle"));
    assert_eq!(claim.state, ClaimState::Committed);
    assert_eq!(
        (status(&fleet, &short).await, status(&fleet, &long).await),
        (Status::Hibernated, Status::Online)
    );
    assert_eq!(watch.provider.stopped(), ["box-1"]);
    let events = fleet.events(&short.id).await;
    let slept = events.iter().find(|event| event.to == Some(Status::Hibernated)).expect("an event");
    let reason = slept.reason.as_ref().map(|reason| reason.code.as_str());
    assert_eq!((slept.cause.as_str(), reason), ("idle_for", Some("idle")));
}

#[rstest]
#[tokio::test]
async fn a_task_begins_the_limit_anew(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 9 * MINUTE).await;
    heard(&fleet, &made, busy()).await;
    beat(&fleet, &made).await;
    pass(&fleet, 10 * MINUTE - 1).await;
    beat(&fleet, &made).await;
    assert_eq!(watch.idle(&fleet).await, nothing());
    pass(&fleet, 1).await;
    assert_eq!(watch.idle(&fleet).await, flipped(1), "heartbeats without a task do not count");
    claim(&fleet, &watch, &made).await;
}

#[rstest]
#[tokio::test]
async fn a_changed_limit_holds_at_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    limit(&fleet, &made, Some(60)).await;
    pass(&fleet, 20 * MINUTE).await;
    assert_eq!(watch.idle(&fleet).await, nothing());
    limit(&fleet, &made, None).await;
    pass(&fleet, 60 * MINUTE).await;
    assert_eq!(watch.idle(&fleet).await, nothing());
    limit(&fleet, &made, Some(90)).await;
    assert_eq!(watch.idle(&fleet).await, nothing(), "it is put off until its limit");
    limit(&fleet, &made, Some(10)).await;
    assert_eq!(watch.idle(&fleet).await, flipped(1));
    claim(&fleet, &watch, &made).await;
}

/// Whatever comes between the sweep's taking and its write wins.
#[rstest]
#[tokio::test]
async fn a_row_that_has_news_is_not_put_to_sleep(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        Rival::Task,
        Rival::Remove,
        Rival::Claim,
        Rival::Hold,
        Rival::Replace,
        Rival::Move(Status::Offline),
        Rival::Sleep(5_001)
    )]
    rival: Rival,
) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    pass(&fleet, 10 * MINUTE).await;
    let (path, before) = outrun(&fleet, from_ref(&made), rival);
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.idle(&fleet).await, left(1, "outran"));
    before.holds(&fleet, from_ref(&made)).await;
    assert_eq!(fleet.store.claims_of(&made.id, None, 1).await.expect("reading"), []);
    assert!(watch.provider.stopped().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_platform_and_a_laptop_stay_awake(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("kind = 'platform'", "runtime = 'external'")] so: &str,
) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    set(&fleet, &made.id, so).await;
    let before = seen(&fleet, &made.id).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 24 * 60 * MINUTE).await;
    assert_eq!(watch.idle(&fleet).await, left(1, "held"));
    let after = seen(&fleet, &made.id).await;
    assert_eq!((after.row.version, after.events), (before.row.version, before.events));
    assert!(watch.provider.stopped().is_empty());
}

/// Woken, it has its whole limit again.
#[rstest]
#[tokio::test]
async fn what_was_woken_is_not_put_to_sleep_at_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 10 * MINUTE).await;
    assert_eq!(watch.idle(&fleet).await, flipped(1));
    claim(&fleet, &watch, &made).await;
    pass(&fleet, 60 * MINUTE).await;
    let wake = Command { command: CommandKind::Wake, ..Command::remove() };
    let woken = watch.claims.command(&made.id, wake).await.expect("answered");
    assert!(matches!(woken, Commanded::Claimed(_)), "{woken:?}");
    assert_eq!(claim(&fleet, &watch, &made).await.state, ClaimState::Committed);
    assert_eq!(watch.idle(&fleet).await, nothing());
    let new = Made { token: token_of(&watch.provider.token()), ..made };
    assert_eq!(beat(&fleet, &new).await, Status::Online);
    assert_eq!(watch.idle(&fleet).await, nothing());
    pass(&fleet, 10 * MINUTE - 1).await;
    assert_eq!(watch.idle(&fleet).await, nothing());
    pass(&fleet, 1).await;
    assert_eq!(watch.idle(&fleet).await, flipped(1));
    claim(&fleet, &watch, &new).await;
}

/// That it has no task is what it said last.
#[rstest]
#[tokio::test]
async fn who_is_not_heard_is_not_put_to_sleep(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 11 * MINUTE).await;
    assert_eq!(watch.tick("idle").await, left(1, "not-heard"));
    assert_eq!(status(&fleet, &made).await, Status::Online);
}

/// Where nothing may go down, nothing is put to sleep.
#[rstest]
#[tokio::test]
async fn the_brake_holds_it_too(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 11 * MINUTE).await;
    fleet.db.sql("INSERT INTO brakes (scope, state, since) VALUES ('fleet', 'held', 0)").await;
    assert_eq!(watch.idle(&fleet).await, left(1, "braked"));
    assert_eq!(status(&fleet, &made).await, Status::Online);
}

/// What can't be stopped is not put to sleep: it would be forgotten that it runs.
#[rstest]
#[tokio::test]
async fn nobody_sleeps_at_a_provider_that_is_not_configured(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let made = awake(&fleet, 10).await;
    set(&fleet, &made.id, "provider = 'elsewhere'").await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    pass(&fleet, 10 * MINUTE).await;
    set(&fleet, &made.id, "idle_at = 0").await;
    set(&fleet, &made.id, "last_heartbeat_at = (SELECT now FROM clock)").await;
    let before = seen(&fleet, &made.id).await;
    assert_eq!(watch.tick("idle").await, left(1, "unknown-provider"));
    assert_eq!(seen(&fleet, &made.id).await, before);
}
