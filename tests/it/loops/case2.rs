//! Case 2, false flip: "not running" was true of something that is no longer
//! the row's instance.

use std::sync::Arc;

use rstest::rstest;
use sprag::advance::Advanced;
use sprag::facts::{Cause, Heartbeat, Readiness};
use sprag::loops::{BrakeConfig, LoopsConfig};
use sprag::machine::Status;
use sprag::provision::BoxState;
use sprag::store::Backend;

use super::provider::Says;
use super::race::{Rival, against, outrun};
use super::{
    MINUTE, SECOND, Watch, both, boxed, fleet, flipped, heard, left, nothing, pass, patient, seen, set,
};
use crate::claims::Scene;
use crate::support::fleet::{Fleet, Made};

/// A row in each status in which a box is asked about, each for a minute.
async fn asked_about(fleet: &Fleet) -> Vec<Made> {
    let mut all = both(fleet, "claude-code").await.to_vec();
    all.push(boxed(fleet, "claude-code", Status::Provisioning).await);
    pass(fleet, MINUTE).await;
    all
}

/// The two ways in which it should flip: an event says why, and recovery's restart is owed.
#[rstest]
#[tokio::test]
async fn a_row_without_its_box_goes_offline(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Online, Status::Degraded)] from: Status,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", from).await;
    pass(&fleet, MINUTE).await;
    let before = seen(&fleet, &made.id).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    assert_eq!(watch.tick("instances").await, flipped(1));
    let after = seen(&fleet, &made.id).await;
    assert_eq!((after.row.workspace.status, after.row.version), (Status::Offline, before.row.version + 1));
    assert_eq!(
        after.row.workspace.instance_id.as_deref(),
        Some("box-1"),
        "whoever restarts it stops that one"
    );
    let event = after.events.last().expect("an event");
    assert_eq!((event.from, event.to), (Some(from), Some(Status::Offline)));
    let reason = event.reason.as_ref().map(|reason| reason.code.as_str());
    assert_eq!((event.cause.as_str(), reason), ("probed", Some("box-not-running")));
    let owed: Vec<_> = after.owed.iter().map(|effect| effect.kind.as_str()).collect();
    assert_eq!(owed, ["restart"]);
}

/// A boot whose box is not running is over: it is known at the next tick, and not when its limit is.
#[rstest]
#[tokio::test]
async fn a_boot_whose_box_ended_has_failed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Provisioning).await;
    let claimed = boxed(&fleet, "claude-code", Status::Provisioning).await;
    set(&fleet, &claimed.id, "claim_id = 'c'").await;
    pass(&fleet, MINUTE).await;
    let before = [seen(&fleet, &made.id).await, seen(&fleet, &claimed.id).await];
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    watch.provider.says(Says::Is(BoxState::Running));
    assert_eq!(watch.tick("instances").await, left(1, "running"));
    pass(&fleet, MINUTE).await;
    watch.provider.says(Says::Is(BoxState::Stopped));
    assert_eq!(watch.tick("instances").await, flipped(1));
    let after = seen(&fleet, &made.id).await;
    let (row, was) = (&after.row, &before[0].row);
    assert_eq!((row.workspace.status, row.version), (Status::Failed, was.version + 1));
    assert_eq!(row.workspace.instance_id, was.workspace.instance_id, "whoever restarts it stops that one");
    let event = after.events.last().expect("an event");
    let reason = event.reason.as_ref().map(|reason| reason.code.as_str());
    assert_eq!((event.cause.as_str(), reason), ("probed", Some("boot-failed")));
    let owed: Vec<_> = after.owed.iter().map(|effect| effect.kind.as_str()).collect();
    assert_eq!(owed, ["restart"]);
    assert_eq!(seen(&fleet, &claimed.id).await, before[1], "its claim's holder knows better");
}

/// What boots is no share of what lives: it is not counted, and held where the brake holds.
#[rstest]
#[tokio::test]
async fn the_brake_holds_boots_and_does_not_count_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let lives = boxed(&fleet, "claude-code", Status::Online).await;
    let mut boots = Vec::new();
    for _ in 0..3 {
        boots.push(boxed(&fleet, "claude-code", Status::Provisioning).await);
    }
    pass(&fleet, MINUTE).await;
    let brake = BrakeConfig { share: 0.0, number: 1, ..patient() };
    let watch =
        Watch::with(&fleet, fleet.advance.clone(), Arc::default(), "host", LoopsConfig::default(), brake);
    watch.trusted(&fleet).await;
    assert_eq!(watch.tick("instances").await, flipped(4), "one lived, and one may go down");
    let wanted = "SELECT MAX(wanted) FROM brakes";
    assert_eq!(fleet.db.number(wanted).await, 1);

    for made in [&lives, &boots[0]] {
        set(&fleet, &made.id, "status = 'provisioning'").await;
    }
    fleet.db.sql("UPDATE brakes SET state = 'held'").await;
    pass(&fleet, MINUTE).await;
    assert_eq!(watch.tick("instances").await, left(2, "braked"));
}

/// The agent of a boot registers while the provider is asked: it lives, whatever is answered.
#[rstest]
#[tokio::test]
async fn a_boot_that_comes_up_while_the_provider_is_asked_is_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Provisioning).await;
    pass(&fleet, MINUTE).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    let other = fleet.clone();
    watch.provider.whilst(move |id| {
        let other = other.clone();
        async move {
            let registered = Cause::Registered(Readiness::default());
            let moved = other.advance.workspace(&id, &registered, None).await.expect("answered");
            assert!(matches!(moved, Advanced::Moved { to: Status::Online, .. }), "{moved:?}");
        }
    });
    assert_eq!(watch.tick("instances").await, left(1, "moved"));
    assert_eq!(fleet.row(&made.id).await.workspace.status, Status::Online);
}

/// A provider that answers from a copy that lags says "stopped" for three minutes, beginning with the
/// start of the box, of an agent that registers and heartbeats every half minute: with what we ship
/// nothing flips and nothing is restarted, however often it is asked.
#[rstest]
#[tokio::test]
async fn an_agent_that_heartbeats_survives_a_provider_that_lags(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] degraded: bool,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Provisioning).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    let error_rate = if degraded { 0.9 } else { 0.0 };
    let mut asked = 0;
    for second in 0..180_u64 {
        pass(&fleet, SECOND).await;
        match second {
            5 => {
                let registered = Cause::Registered(Readiness::default());
                let moved = fleet.advance.workspace(&made.id, &registered, None).await.expect("answered");
                assert!(matches!(moved, Advanced::Moved { to: Status::Online, .. }), "{moved:?}");
            }
            _ if second > 5 && (second - 5).is_multiple_of(30) => {
                heard(&fleet, &made, Heartbeat { error_rate, ..Heartbeat::default() }).await;
            }
            _ => {}
        }
        // As if somebody's loops ticked every second; or the host's own, whatever second they fall into.
        set(&fleet, &made.id, "probe_at = 0").await;
        let tally = watch.tick("instances").await;
        assert_eq!((tally.looked, tally.flipped), (1, 0), "second {second}: {tally:?}");
        asked += 1;
    }
    assert_eq!(watch.provider.asked().len(), asked);
    let after = seen(&fleet, &made.id).await;
    let restarts = after.owed.iter().filter(|effect| effect.kind == "restart").count();
    assert_eq!(restarts, 0);
    let moves = after.events.iter().filter(|event| event.cause == "probed").count();
    let lives = if degraded { Status::Degraded } else { Status::Online };
    assert_eq!((moves, after.row.workspace.status), (0, lives));

    // The answer was not wrong for ever: once the agent is gone too, the next tick finds it.
    pass(&fleet, MINUTE).await;
    assert_eq!(watch.tick("instances").await, flipped(1));
}

/// Raced while the provider is asked: the row is read again, and the tally says why it is left.
#[rstest]
#[tokio::test]
async fn what_changes_while_the_provider_is_asked_is_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        (Rival::Remove, "moved"),
        (Rival::Claim, "claimed"),
        (Rival::Hold, "claimed"),
        (Rival::Clear, "instance-cleared"),
        (Rival::Empty, "instance-cleared"),
        (Rival::Replace, "instance-changed"),
        (Rival::SwitchProvider, "instance-changed"),
        (Rival::Move(Status::Offline), "moved"),
        (Rival::Move(Status::Failed), "moved"),
        (Rival::Move(Status::Paused), "moved"),
        (Rival::Move(Status::Hibernated), "moved"),
        (Rival::Move(Status::AwaitingAgent), "moved"),
        (Rival::Heartbeat, "heard"),
        (Rival::Garble, "not-confirmed")
    )]
    race: (Rival, &'static str),
) {
    let (rival, why) = race;
    let fleet = fleet(backend).await;
    let all = asked_about(&fleet).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    let (act, before) = against(&fleet, &all, rival);
    watch.provider.whilst(act);
    assert_eq!(watch.tick("instances").await, left(3, why));
    rival.undo(&fleet, &all).await;
    before.holds(&fleet, &all).await;
}

/// Raced once it was confirmed: the write is of what was judged, or of nothing.
#[rstest]
#[tokio::test]
async fn what_changes_before_the_write_is_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        Rival::Remove,
        Rival::Claim,
        Rival::Hold,
        Rival::Clear,
        Rival::Empty,
        Rival::Replace,
        Rival::SwitchProvider,
        Rival::Move(Status::Offline),
        Rival::Move(Status::Failed),
        Rival::Move(Status::Paused),
        Rival::Move(Status::Hibernated),
        Rival::Move(Status::AwaitingAgent),
        Rival::Heartbeat,
        Rival::Distrust,
        Rival::Sleep(5_001)
    )]
    rival: Rival,
) {
    let fleet = fleet(backend).await;
    let all = asked_about(&fleet).await;
    let (path, before) = outrun(&fleet, &all, rival);
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.tick("instances").await, left(3, "outran"));
    before.holds(&fleet, &all).await;
}

/// A row that is gone altogether, as after a restore of the database.
#[rstest]
#[tokio::test]
async fn a_row_that_is_gone_is_left(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Online).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    let other = fleet.clone();
    watch.provider.whilst(move |id| {
        let other = other.clone();
        async move {
            let gone =
                ["tokens", "events"].map(|of| format!("DELETE FROM {of} WHERE workspace_id = '{id}';"));
            other.db.sql(&format!("{} DELETE FROM workspaces WHERE id = '{id}'", gone.concat())).await;
        }
    });
    assert_eq!(watch.tick("instances").await, left(1, "gone"));
    assert_eq!(fleet.store.view(&made.id).await.expect("reading"), None);
    assert_eq!(fleet.events(&made.id).await, []);
}

/// An error, a refusal or silence of the provider never flips anything.
#[rstest]
#[tokio::test]
async fn no_answer_is_no_evidence(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        (Says::Is(BoxState::Running), "running"),
        (Says::Nothing, "provider-error"),
        (Says::Refuses, "provider-error"),
        (Says::Late, "provider-slow")
    )]
    answer: (Says, &'static str),
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Online).await;
    let before = seen(&fleet, &made.id).await;
    let hasty = LoopsConfig { instances_question_ms: 100, ..LoopsConfig::default() };
    let watch = Watch::with(&fleet, fleet.advance.clone(), Arc::default(), "host", hasty, patient());
    watch.trusted(&fleet).await;
    watch.provider.says(answer.0);
    assert_eq!(watch.tick("instances").await, left(1, answer.1));
    assert_eq!(watch.provider.asked().len(), 1, "one question a cycle, whatever is answered");
    assert_eq!(seen(&fleet, &made.id).await, before);
}

#[rstest]
#[tokio::test]
async fn nobody_is_asked_at_a_provider_that_is_not_configured(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Online).await;
    set(&fleet, &made.id, "provider = 'elsewhere'").await;
    let before = seen(&fleet, &made.id).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    assert_eq!(watch.tick("instances").await, left(1, "unknown-provider"));
    assert_eq!(seen(&fleet, &made.id).await, before);
}

/// Where there is no box of the platform's, there is no question.
#[rstest]
#[tokio::test]
async fn nobody_asks_about_what_has_no_box(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let boxless = [
        "runtime = 'external'",
        "instance_id = NULL",
        "instance_id = ''",
        "provider = NULL",
        "claim_id = 'c'",
        "status = 'awaiting_agent'",
        "status = 'offline'",
        "status = 'failed'",
        "status = 'paused'",
        "status = 'hibernated'",
        "status = 'removed'",
    ];
    for so in boxless {
        let made = boxed(&fleet, "claude-code", Status::Online).await;
        set(&fleet, &made.id, so).await;
    }
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    assert_eq!(watch.tick("instances").await, nothing());
    let asked = watch.provider.asked();
    assert!(asked.is_empty(), "{asked:?}");
}

/// A row whose box was found running is asked about at the next tick, also where that comes a little early.
#[rstest]
#[tokio::test]
async fn each_box_is_asked_about_at_every_tick(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    boxed(&fleet, "claude-code", Status::Online).await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    watch.provider.says(Says::Is(BoxState::Running));
    assert_eq!(watch.tick("instances").await, left(1, "running"));
    assert_eq!(watch.tick("instances").await, nothing(), "no two hosts look at it at once");
    pass(&fleet, MINUTE - 20).await;
    assert_eq!(watch.tick("instances").await, left(1, "running"));
}

/// End to end: the box ends behind the host's back, and there is a new one, and one only.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_died_is_started_again(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace("red").await;
    scene.settled(&old.id).await;
    scene.plane.end("red", &old.id, &old.at.instance);
    scene
        .until("its box is missed", async || {
            // As if a minute had passed; the host's own first tick may be the one that sees it.
            let passed = "status_since = status_since - 60000, last_heartbeat_at = last_heartbeat_at - 60000";
            scene.db.sql(&format!("UPDATE workspaces SET probe_at = 0, {passed}")).await;
            scene.host().loops.tick("instances").await.expect("the loop").expect("a tick");
            let events = scene.db.store.events(Some(&old.id), None, 100).await.expect("reading events");
            events.iter().any(|event| event.cause == "probed")
        })
        .await;
    scene.until("a new box runs", async || !scene.plane.running(&old.id).is_empty()).await;
    scene.settled(&old.id).await;
    let new = scene.running(&old.id).await;
    assert_ne!(new.at.instance, old.at.instance);
    assert_eq!(scene.host().beat(&old.id, &new.token).await.ok()["workspace_status"], "online");
    assert_eq!(scene.host().beat(&old.id, &old.token).await.status, 401, "the old box has no say");
    let events = scene.db.store.events(Some(&old.id), None, 100).await.expect("reading events");
    let moves: Vec<_> = events.iter().filter_map(|event| Some((event.to?, event.cause.as_str()))).collect();
    let expected = [
        (Status::Online, "heartbeat"),
        (Status::Provisioning, "restart"),
        (Status::Offline, "probed"),
        (Status::Online, "heartbeat"),
    ];
    assert!(moves.starts_with(&expected), "{moves:?}");
    assert_eq!(scene.plane.journal.most_running_at_once(&old.id), 1, "two boxes ran at once");
}

/// End to end: a box that ends before its agent has spoken is known to have failed, and started again.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_crashed_is_started_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let id = scene.boot("red").await;
    let first = scene.running(&id).await;
    scene.plane.end("red", &id, &first.at.instance);
    scene
        .until("its end is noticed", async || {
            // As if it had been booting for a minute; the host's own first tick may be the one that sees it.
            scene.db.sql("UPDATE workspaces SET probe_at = 0, status_since = status_since - 60000").await;
            scene.host().loops.tick("instances").await.expect("the loop").expect("a tick");
            let events = scene.db.store.events(Some(&id), None, 100).await.expect("reading events");
            events.iter().any(|event| event.cause == "probed")
        })
        .await;
    scene.until("a new box runs", async || !scene.plane.running(&id).is_empty()).await;
    scene.settled(&id).await;
    let new = scene.running(&id).await;
    assert_ne!(new.at.instance, first.at.instance);
    assert_eq!(scene.host().beat(&id, &new.token).await.ok()["workspace_status"], "online");
    let events = scene.db.store.events(Some(&id), None, 100).await.expect("reading events");
    let moves: Vec<_> = events.iter().filter_map(|event| Some((event.to?, event.cause.as_str()))).collect();
    let expected =
        [(Status::Online, "heartbeat"), (Status::Provisioning, "restart"), (Status::Failed, "probed")];
    assert!(moves.starts_with(&expected), "{moves:?}");
}
