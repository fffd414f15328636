//! Case 5, the premature obituary: a box that takes long is given up, and is
//! alive all the same once it speaks.

use std::slice::from_ref;

use rstest::rstest;
use sprag::machine::Status;
use sprag::store::Backend;

use super::race::{Rival, outrun};
use super::{MINUTE, SECOND, Watch, beat, boxed, fleet, flipped, left, nothing, pass, seen, set, status};

/// Ten minutes; `hermes` thirty.
#[rstest]
#[tokio::test]
async fn a_box_that_boots_for_too_long_is_given_up_and_alive_when_it_speaks(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(("claude-code", 10), ("hermes", 30), ("external", 10))] of: (&str, u64),
) {
    let (runtime, limit) = of;
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, runtime, Status::Provisioning).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    assert_eq!(watch.tick("provisioning").await, nothing());
    pass(&fleet, (limit - 1) * MINUTE).await;
    assert_eq!(watch.tick("provisioning").await, left(1, "held"));
    pass(&fleet, MINUTE - 1).await;
    assert_eq!(watch.tick("provisioning").await, left(1, "held"), "a millisecond is left");
    pass(&fleet, 1).await;
    // A tick of the other hosts would be as good.
    set(&fleet, &made.id, "provisioning_at = 0").await;
    assert_eq!(watch.tick("provisioning").await, flipped(1));
    assert_eq!(status(&fleet, &made).await, Status::Failed);
    let event = fleet.events(&made.id).await.pop().expect("an event");
    let reason = event.reason.as_ref().map(|reason| reason.code.as_str());
    assert_eq!((event.cause.as_str(), reason), ("provisioning_for", Some("provisioning-timed-out")));
    assert_eq!(seen(&fleet, &made.id).await.owed, [], "it is given the time to boot");
    pass(&fleet, 2 * MINUTE).await;
    assert_eq!(watch.tick("provisioning").await, nothing());
    assert_eq!(watch.tick("down").await.flipped, 0);
    assert_eq!(seen(&fleet, &made.id).await.owed, []);
    assert_eq!(beat(&fleet, &made).await, Status::Online, "a live heartbeat is the authority");
    pass(&fleet, MINUTE).await;
    assert_eq!(watch.tick("provisioning").await, nothing());
    assert_eq!(status(&fleet, &made).await, Status::Online);
}

/// The heartbeat that comes after a removal brings nothing back.
#[rstest]
#[tokio::test]
async fn what_was_removed_meanwhile_stays_removed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Provisioning, Status::Online)] from: Status,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", from).await;
    pass(&fleet, 12 * MINUTE).await;
    let (path, before) = outrun(&fleet, from_ref(&made), Rival::Remove);
    let watch = Watch::over(&fleet, path).await;
    let name = if from == Status::Online { "silence" } else { "provisioning" };
    assert_eq!(watch.tick(name).await, left(1, "outran"));
    before.holds(&fleet, from_ref(&made)).await;
    pass(&fleet, MINUTE).await;
    assert_eq!(watch.tick(name).await, nothing());
    assert_eq!(status(&fleet, &made).await, Status::Removed);
}

/// Whatever comes between the sweep's judgement and its write wins.
#[rstest]
#[tokio::test]
async fn a_row_that_moved_on_is_not_given_up(
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
    let made = boxed(&fleet, "claude-code", Status::Provisioning).await;
    pass(&fleet, 10 * MINUTE).await;
    let (path, before) = outrun(&fleet, from_ref(&made), rival);
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.tick("provisioning").await, left(1, "outran"));
    before.holds(&fleet, from_ref(&made)).await;
    if rival == Rival::Heartbeat {
        assert_eq!(status(&fleet, &made).await, Status::Online);
    }
}

/// While a claim is open, no loop looks at the row.
#[rstest]
#[tokio::test]
async fn every_loop_leaves_a_claimed_row_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        ("silence", Status::Online),
        ("instances", Status::Online),
        ("idle", Status::Online),
        ("provisioning", Status::Provisioning)
    )]
    swept: (&str, Status),
) {
    let (name, status) = swept;
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", status).await;
    set(&fleet, &made.id, "hibernation_idle_minutes = 5, claim_id = 'c'").await;
    pass(&fleet, 60 * MINUTE).await;
    let before = seen(&fleet, &made.id).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    assert_eq!(watch.tick(name).await, nothing());
    assert_eq!(seen(&fleet, &made.id).await, before);
    assert!(watch.provider.asked().is_empty());
    set(&fleet, &made.id, "claim_id = NULL").await;
    let after = if name == "idle" { watch.idle(&fleet).await } else { watch.tick(name).await };
    assert_eq!(after, flipped(1), "once it is over, it is a row like any other");
}
