//! Case 2, false flip: "not running" was true of something that is no longer
//! the row's instance.

use std::sync::Arc;

use rstest::rstest;
use sprag::loops::LoopsConfig;
use sprag::machine::Status;
use sprag::provision::BoxState;
use sprag::store::Backend;

use super::provider::Says;
use super::race::{Rival, against, outrun};
use super::{MINUTE, Watch, both, boxed, fleet, flipped, left, nothing, pass, patient, seen, set};
use crate::claims::Scene;

/// The two ways in which it should flip: an event says why, and recovery's restart is owed.
#[rstest]
#[tokio::test]
async fn a_row_without_its_box_goes_offline(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Status::Online, Status::Degraded)] from: Status,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", from).await;
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
    let all = both(&fleet, "claude-code").await;
    let watch = Watch::over(&fleet, fleet.advance.clone()).await;
    let (act, before) = against(&fleet, &all, rival);
    watch.provider.whilst(act);
    assert_eq!(watch.tick("instances").await, left(2, why));
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
    let all = both(&fleet, "claude-code").await;
    let (path, before) = outrun(&fleet, &all, rival);
    let watch = Watch::over(&fleet, path).await;
    assert_eq!(watch.tick("instances").await, left(2, "outran"));
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
        "status = 'provisioning'",
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
            // The host's own first tick may have listed the row before.
            scene.db.sql("UPDATE workspaces SET probe_at = 0").await;
            scene.host().loops.tick("instances").await.expect("the loop").expect("a tick").flipped == 1
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
