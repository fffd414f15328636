//! Case 3: the claim that isn't yours.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BLUE, PATIENCE, RED, Running, Scene, forced, to};
use crate::support::control_plane::{Outcome, Verb, What, Where};
use crate::support::host::ADMIN;

const SLOW: Duration = Duration::from_millis(400);

/// The calls that did something, as `VERB PROVIDER`.
fn done(scene: &Scene, id: &str) -> Vec<String> {
    let calls = scene.plane.journal.calls(id);
    // The loops ask as well, which changes nothing.
    let asides = [Verb::Fence, Verb::Deliver, Verb::Status];
    let done = calls.iter().filter(|call| call.outcome == Outcome::Done && !asides.contains(&call.verb));
    done.map(|call| format!("{:?} {} {}", call.verb, call.provider, call.instance)).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_has_done_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 2).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::verb(Verb::Stop), What::Before(SLOW));
    let path = format!("/workspaces/{}/switch-provider", old.id);
    let asked = (0..8).map(|n| {
        let host = &scene.hosts[n % 2];
        let path = path.clone();
        async move { host.admin(Method::POST, &path, to(BLUE)).await }
    });
    let mut answers = futures::future::join_all(asked).await;
    answers.sort_by_key(|answer| answer.status);
    let won = answers.remove(0);
    assert_eq!(won.status, 202, "{won:?}");
    for lost in &answers {
        assert_eq!(lost.problem(), (409, "ALREADY_SWITCHING"), "{lost:?}");
    }
    let claim = scene.ended(won.body["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    let new = claim["new_instance_id"].as_str().expect("an instance");
    let expected = [
        format!("Start red {}", old.at.instance),
        format!("Stop red {}", old.at.instance),
        format!("Start blue {new}"),
    ];
    assert_eq!(done(&scene, &old.id), expected);
    assert_eq!(scene.plane.journal.most_running_at_once(&old.id), 1);
    scene.settled(&old.id).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_changes_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::workspace(&old.id), What::Before(SLOW));
    let mut wire = tokio::net::TcpStream::connect(scene.host().address()).await.expect("the host");
    let body = to(BLUE).to_string();
    let request = format!(
        "POST /workspaces/{}/switch-provider HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ADMIN}\r\n\
         prefer: wait=10\r\ncontent-length: {}\r\n\r\n{body}",
        old.id,
        body.len()
    );
    wire.write_all(request.as_bytes()).await.expect("sending");
    scene.until("the claim is open", async || !scene.row(&old.id).await["claim_id"].is_null()).await;
    let mut nothing = [0; 1];
    let waiting = tokio::time::timeout(Duration::from_millis(20), wire.read(&mut nothing)).await;
    assert!(waiting.is_err(), "the answer is held");
    drop(wire);
    scene.settled(&old.id).await;
    let row = scene.row(&old.id).await;
    assert_eq!((&row["provider"], &row["status"]), (&json!(BLUE), &json!("provisioning")), "{row:#}");
}

/// The winner fails to start the new box; whoever lost has nothing to do with how it ends.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_closes_a_claim(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::of(backend, 2).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(BLUE).only(Verb::Start), What::Before(SLOW));
    let won = scene.command(&old.id, "switch-provider", to(BLUE)).await.ok();
    let lost = scene.hosts[1].admin(Method::POST, &format!("/workspaces/{}/restart", old.id), forced()).await;
    assert_eq!(lost.problem(), (409, "CLAIM_OPEN"));
    assert_eq!(scene.row(&old.id).await["claim_id"], won["id"], "the winner's claim stands");
    assert_eq!(scene.row(&old.id).await["status"], "provisioning");
    let claim = scene.ended(won["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    scene.settled(&old.id).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_stop_is_told_and_owed_and_the_claim_goes_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(RED).only(Verb::Stop), What::Fail);
    let claim = scene.carried_out(&old.id, "switch-provider", to(BLUE)).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    let stop = claim["steps"].as_array().expect("steps").iter().find(|s| s["step"] == "stop_old");
    assert_eq!(stop.expect("a stop")["state"], "exhausted");
    let events = scene.host().get(&format!("/events/{}", old.id)).await.ok();
    let left = events.as_array().expect("events").iter().find(|e| e["type"] == "BOX_MAY_BE_LEFT");
    let detail = left.expect("an audit event")["reason"]["detail"].as_str().expect("words").to_owned();
    assert!(detail.contains(&old.at.instance) && detail.contains(RED), "{detail}");
    assert_eq!(scene.plane.running(&old.id).len(), 2, "the old box is left");
    scene.plane.faults.clear();
    scene.settled(&old.id).await;
    assert_eq!(scene.running(&old.id).await.at.provider, BLUE);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_refused_and_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    let before = scene.row(&old.id).await["version"].clone();
    for body in [json!({}), json!({ "provider": "green" })] {
        let refused = scene.command(&old.id, "switch-provider", body).await;
        assert_eq!(refused.problem(), (400, "INVALID_FIELD"));
        assert_eq!(refused.body["field"], "provider");
        let expected = refused.body["expected"].as_str().expect("words");
        assert!(expected.contains("blue, red"), "{expected}");
    }
    let same = scene.command(&old.id, "switch-provider", to(RED)).await;
    assert_eq!((same.status.as_u16(), &same.body["code"]), (200, &json!("SAME_PROVIDER")), "{same:?}");

    let external = json!({ "name": "laptop", "runtime": "external" });
    let (external, token) = scene.host().create(external).await;
    scene.host().beat(&external, &token).await.ok();
    let refused = scene.command(&external, "switch-provider", to(BLUE)).await;
    assert_eq!(refused.problem(), (409, "DENIED_BY_POLICY"));
    assert_eq!(refused.body["reason"], "runtime-external");

    let busy = scene.command(&old.id, "switch-provider", json!({ "provider": BLUE })).await;
    assert_eq!(busy.body["reason"], "active-tasks", "the agent said that it has a task: {busy:?}");

    let keeps = json!({ "name": "disk", "provider": RED, "persistent_volume": true });
    let keeps = scene.workspace_with(keeps).await;
    let refused = scene.command(&keeps.id, "switch-provider", to(BLUE)).await;
    assert_eq!(refused.problem(), (409, "CONFIRM_DATA_LOSS"));
    let confirmed = json!({ "provider": BLUE, "force": true, "confirm_data_loss": true });
    assert_eq!(scene.carried_out(&keeps.id, "switch-provider", confirmed).await["state"], "committed");

    assert_eq!(scene.row(&old.id).await["version"], before, "nothing of all this touched it");
    let mut calls = scene.plane.journal.calls(&old.id);
    // When it came online its plugins were delivered; and the loops ask about its box.
    calls.retain(|call| ![Verb::Deliver, Verb::Status].contains(&call.verb));
    assert_eq!(calls.len(), 1, "only its first start: {calls:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_ancestor_blocks_what_would_start_a_box(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let parent = scene.workspace(RED).await;
    let child = scene.workspace_with(json!({ "name": "c", "provider": RED, "parent_id": parent.id })).await;
    let grand = scene.workspace_with(json!({ "name": "g", "provider": BLUE, "parent_id": child.id })).await;
    let alone = scene.workspace_with(json!({ "name": "a", "provider": RED, "parent_id": parent.id })).await;
    scene.carried_out(&alone.id, "pause", json!({})).await;
    let paused = scene.carried_out(&parent.id, "pause", json!({})).await;
    assert_eq!(paused["state"], "committed", "{paused:#}");
    for id in [&parent.id, &child.id, &grand.id] {
        scene.until("all are paused", async || scene.row(id).await["status"] == "paused").await;
        scene.settled(id).await;
        assert!(scene.plane.running(id).is_empty());
    }
    let refused = scene.command(&child.id, "resume", json!({})).await;
    assert_eq!(refused.problem(), (409, "ANCESTOR_PAUSED"));

    scene.carried_out(&parent.id, "resume", json!({})).await;
    for id in [&parent.id, &child.id, &grand.id] {
        scene.until("all are back", async || scene.row(id).await["status"] == "provisioning").await;
        scene.settled(id).await;
        assert_eq!(scene.plane.running(id).len(), 1);
    }
    // It was paused by itself, and nobody took it along.
    assert_eq!(scene.row(&alone.id).await["status"], "paused");
    let claims = scene.host().get(&format!("/workspaces/{}/claims", grand.id)).await.ok();
    assert!(claims[0]["parent_claim_id"].is_string(), "each has a claim of its own: {claims:#}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_wins_over_an_open_claim(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::of(backend, 2).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(BLUE).only(Verb::Start), What::After(SLOW));
    let opened = scene.command(&old.id, "switch-provider", to(BLUE)).await.ok();
    scene
        .until("the new box runs", async || {
            scene.plane.running(&old.id).iter().any(|one| one.provider == BLUE)
        })
        .await;
    let path = format!("/workspaces/{}", old.id);
    let removed = scene.hosts[1].call(Method::DELETE, &path, Some(ADMIN), None).await;
    assert_eq!(removed.ok()["status"], "removed");
    let claim = scene.ended(opened["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "superseded");
    scene.until("no box is left", async || scene.plane.running(&old.id).is_empty()).await;
    scene.settled(&old.id).await;
    let row = scene.row(&old.id).await;
    assert_eq!((&row["status"], &row["instance_id"]), (&json!("removed"), &Value::Null), "{row:#}");
}

/// Case 6: the old box speaks while the claim is open, and after it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_old_box_has_no_say(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    // What an operator handed out goes with the box that it was for.
    let handed = scene.command(&old.id, "token", json!({})).await.ok();
    let old = Running { token: handed["auth_token"].as_str().expect("a token").to_owned(), ..old };
    scene.plane.faults.always(Where::provider(RED).only(Verb::Stop), What::Before(SLOW));
    let opened = scene.command(&old.id, "switch-provider", to(BLUE)).await.ok();
    let before = scene.row(&old.id).await;
    assert_eq!(before["status"], "provisioning");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let heard = scene.host().beat(&old.id, &old.token).await.ok();
    assert_eq!(heard["workspace_status"], "provisioning", "stored, and no more");
    let after = scene.row(&old.id).await;
    assert!(after["last_heartbeat_at"].as_str() > before["last_heartbeat_at"].as_str(), "{after:#}");
    assert_eq!(after["version"], before["version"]);
    let claim = scene.ended(opened["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "committed");
    assert_eq!(
        scene.row(&old.id).await["status"],
        "provisioning",
        "what the old box said counts for nothing"
    );
    assert_eq!(scene.host().beat(&old.id, &old.token).await.problem().0, 401);
    let new = scene.running(&old.id).await;
    assert_eq!(scene.host().beat(&old.id, &new.token).await.ok()["workspace_status"], "online");
}

/// Nobody waits for the next heartbeat of a box that spoke before its claim ended.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_new_box_said_is_judged_when_the_claim_commits(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("heartbeat", "register")] call: &str,
) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(BLUE).only(Verb::Start), What::After(SLOW));
    let opened = scene.command(&old.id, "switch-provider", to(BLUE)).await.ok();
    scene
        .until("the new box runs", async || {
            scene.plane.running(&old.id).iter().any(|one| one.provider == BLUE)
        })
        .await;
    let new = scene.running(&old.id).await;
    let mut said = crate::support::host::healthy(&old.id);
    said["id"] = json!(old.id);
    said["url"] = json!("http://the-new-box");
    let heard = scene.host().agent(&format!("/registry/{call}"), Some(&new.token), said).await.ok();
    assert_eq!(heard["workspace_status"], "provisioning");
    scene.ended(opened["id"].as_str().expect("an id")).await;
    scene.until("it is online", async || scene.row(&old.id).await["status"] == "online").await;
    if call == "register" {
        assert_eq!(scene.row(&old.id).await["url"], "http://the-new-box");
    }
    assert!(PATIENCE > SLOW);
}

/// The word of a box that the claim has stopped again brings nobody online.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_box_said_that_is_no_more_counts_for_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::verb(Verb::Start), What::Lose);
    scene.plane.faults.always(Where::verb(Verb::Fence), What::Fail);
    scene.plane.faults.always(Where::verb(Verb::Stop), What::Before(SLOW));
    let opened = scene.command(&old.id, "restart", forced()).await.ok();
    scene
        .until("the new box runs", async || {
            scene.plane.running(&old.id).iter().any(|one| one.instance != old.at.instance)
        })
        .await;
    let new = scene.running(&old.id).await;
    assert_eq!(
        scene.host().beat(&old.id, &new.token).await.ok()["workspace_status"],
        "provisioning",
        "the claim is open"
    );
    let claim = scene.ended(opened["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "failed", "{claim:#}");
    scene.plane.faults.clear();
    scene.settled(&old.id).await;
    tokio::time::sleep(SLOW).await;
    assert_eq!(scene.row(&old.id).await["status"], "failed");
}
