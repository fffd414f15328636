//! Who may speak for a workspace, and who may hold its claim, at the edges.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::claims::Point;
use sprag::claims::plan::Step;
use sprag::http::Registration;
use sprag::store::Backend;

use super::{BLUE, RED, Scene, config, forced, to, unclaimed};
use crate::support::control_plane::{ControlPlane, Verb, What, Where};
use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost};
use crate::support::process::{ADMIN, Launch, Process};

const SLOW: Duration = Duration::from_millis(500);

/// A host that does not know the provider can't say that nothing runs there.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_the_provider_leaves_the_claim_to_one_that_has_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        Point::Opened,
        Point::Begun(Step::StopOld),
        Point::Finished(Step::StopOld),
        Point::Begun(Step::StartNew),
        Point::Called(Step::StartNew)
    )]
    point: Point,
) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED, BLUE]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let whole = config(&plane, dir.path(), 400, 100);
    let red_only = whole[..whole.find("[providers.blue]").expect("blue is last")].to_owned();
    let die_at = format!("switch_provider:{point}");
    let env = &[("SPRAG_DIE_AT", die_at.as_str())];
    let first = Launch { config: &whole, env, ..Launch::of(&db.url, dir.path()) }.start().await;
    let made = first.admin(Method::POST, "workspaces", Some(json!({ "name": "w", "provider": RED }))).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    unclaimed(&db, &id).await;
    let token = plane.spec(RED, &plane.running(&id)[0].instance).expect("a box").token;
    crate::support::process::beat(&first.client, &first.url, &id, &token, 1, 0.0).await.expect("an answer");
    let url = format!("{}/workspaces/{id}/switch-provider", first.url);
    let _ = first.client.post(url).bearer_auth(ADMIN).json(&to(BLUE)).send().await;
    first.died(&die_at).await;

    let second = Process::start(&db.url, dir.path(), &red_only).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let row = second.admin(Method::GET, &format!("workspaces/{id}"), None).await;
    assert!(row["claim_id"].is_string(), "it was ended by a host that could not know how: {row:#}");
    let untouched = matches!(point, Point::Opened | Point::Begun(Step::StopOld));
    assert_eq!(
        !plane.running(&id).is_empty(),
        untouched || point == Point::Called(Step::StartNew),
        "{row:#}"
    );
    second.kill().await;

    let third = Process::start(&db.url, dir.path(), &whole).await;
    unclaimed(&db, &id).await;
    let row = third.admin(Method::GET, &format!("workspaces/{id}"), None).await;
    let running = plane.running(&id);
    assert_eq!(running.len(), 1, "{row:#}");
    assert_eq!((&row["provider"], &row["instance_id"]), (&json!(BLUE), &json!(running[0].instance)));
    assert_eq!(plane.journal.most_running_at_once(&id), 1);
    third.stop().await;
}

/// The box that is being started gets a token of its own; whoever asks meanwhile gets none.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_first_token_while_a_claim_is_open(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED, BLUE]).await;
    let setup = Setup { providers: plane.clients(), registration: Registration::Open, ..Setup::default() };
    let host = TestHost::start(&db, setup).await;
    let scene = Scene { hosts: vec![host], plane, db };
    let old = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(RED).only(Verb::Stop), What::After(SLOW));
    scene.plane.faults.always(Where::verb(Verb::Start), What::Before(SLOW));
    let opened = scene.command(&old.id, "restart", forced()).await.ok();
    let mut asked = 0;
    while scene.row(&old.id).await["claim_id"].is_string() {
        let body = json!({ "id": old.id, "url": "http://anybody" });
        let answer = scene.host().agent("/registry/register", None, body).await;
        assert_eq!(answer.problem().0, 401, "{answer:?}");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked > 10, "{asked}");
    assert_eq!(scene.ended(opened["id"].as_str().expect("an id")).await["state"], "committed");
    assert_eq!(scene.db.store.tokens(&old.id).await.expect("tokens").len(), 1, "its box's own");
}

/// Somebody's own agent spoke for it; once a box does, that one is silenced.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_no_box_ends_when_a_box_takes_over(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let (id, token) = scene.host().create(json!({ "name": "by hand" })).await;
    assert_eq!(scene.host().beat(&id, &token).await.ok()["workspace_status"], "online");
    let claim = scene.carried_out(&id, "switch-provider", to(BLUE)).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    assert_eq!(scene.host().beat(&id, &token).await.problem().0, 401);
    let new = scene.running(&id).await;
    assert_eq!(scene.host().beat(&id, &new.token).await.ok()["workspace_status"], "online");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_waits_for_a_child_that_is_busy(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let parent = scene.workspace(RED).await;
    let child = scene.workspace_with(json!({ "name": "c", "provider": RED, "parent_id": parent.id })).await;
    scene.plane.faults.next(1, Where::workspace(&child.id).only(Verb::Stop), What::Before(SLOW));
    let busy = scene.command(&child.id, "restart", forced()).await.ok();
    let paused = scene.carried_out(&parent.id, "pause", json!({})).await;
    assert_eq!(paused["state"], "committed", "{paused:#}");
    assert_eq!(scene.ended(busy["id"].as_str().expect("an id")).await["state"], "committed");
    scene.until("the child is paused", async || scene.row(&child.id).await["status"] == "paused").await;
    scene.settled(&child.id).await;
    assert!(scene.plane.running(&child.id).is_empty());

    let below = json!({ "name": "late", "provider": RED, "parent_id": child.id });
    let refused = scene.host().admin(Method::POST, "/workspaces", below).await;
    assert_eq!(refused.problem(), (409, "ANCESTOR_PAUSED"), "no box starts below what is paused");
    let unmanaged: Value = json!({ "name": "late", "parent_id": child.id });
    assert_eq!(scene.host().admin(Method::POST, "/workspaces", unmanaged).await.status, 201);
}
