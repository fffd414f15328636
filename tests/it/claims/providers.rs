//! Commands that would need a provider which is not configured: refused before
//! anything is claimed, and nothing is done to anybody's box.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::{BLUE, RED, Running, Scene, forced, unclaimed};
use crate::support::control_plane::ControlPlane;
use crate::support::db::TestDb;
use crate::support::host::{Answer, TestHost};
use crate::support::process::{ADMIN, Launch, Process, beat};

/// A host beside the scene's that has but one of its providers.
async fn blue_only(scene: &Scene) -> TestHost {
    let mut setup = scene.setup();
    setup.providers.retain(|name, _| name == BLUE);
    TestHost::start(&scene.db, setup).await
}

async fn command(host: &TestHost, id: &str, command: &str, body: Value) -> Answer {
    host.admin(Method::POST, &format!("/workspaces/{id}/{command}"), body).await
}

fn said(command: &str, force: bool) -> Value {
    match command {
        "switch-provider" => json!({ "provider": BLUE, "force": force }),
        _ => json!({ "force": force }),
    }
}

/// All that a command that was accepted would change.
async fn seen(scene: &Scene, id: &str) -> (Value, Value, Value, usize) {
    let get = async |path: String| scene.host().get(&path).await.ok();
    let claims = get(format!("/workspaces/{id}/claims")).await;
    (scene.row(id).await, claims, get(format!("/events/{id}")).await, scene.plane.running(id).len())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_can_not_be_carried_out_here_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let id = one.id.as_str();
    let blue = blue_only(&scene).await;
    // What brings it into the status; the commands from there; whether force helps.
    let all = [
        ("", &[("restart", false), ("pause", true), ("hibernate", true), ("switch-provider", true)][..]),
        ("hibernate", &[("wake", false)]),
        ("pause", &[("resume", false)]),
    ];
    for (first, commands) in all {
        if !first.is_empty() {
            assert_eq!(scene.carried_out(id, first, forced()).await["state"], "committed");
        }
        let before = seen(&scene, id).await;
        for (name, helps) in commands {
            for force in [false, true] {
                if force && *helps {
                    continue;
                }
                let refused = command(&blue, id, name, said(name, force)).await;
                assert_eq!(refused.problem(), (409, "PROVIDER_NOT_CONFIGURED"), "{name}: {refused:?}");
                assert_eq!(refused.body["workspace_status"], before.0["status"]);
                let detail = refused.body["detail"].as_str().expect("a detail");
                assert!(detail.contains("\"red\"") && detail.contains("configured: blue"), "{detail}");
            }
        }
        assert_eq!(seen(&scene, id).await, before, "after {first:?}");
    }
    assert_eq!(scene.carried_out(id, "resume", json!({})).await["state"], "committed", "here it can");
    scene.settled(id).await;
}

/// Forced, the stop is owed, and whoever has the provider does it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn by_force_the_stop_is_owed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(("pause", "paused"), ("hibernate", "hibernated"), ("switch-provider", "provisioning"))] what: (
        &str,
        &str,
    ),
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let blue = blue_only(&scene).await;
    let accepted = command(&blue, &one.id, what.0, said(what.0, true)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let claim = scene.ended(accepted.body["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    assert_eq!(scene.row(&one.id).await["status"], what.1);
    scene
        .until("its old box is stopped", async || {
            scene.plane.running(&one.id).iter().all(|at| at.instance != one.at.instance)
        })
        .await;
    scene.settled(&one.id).await;
}

/// Without a box nothing has to be stopped, and it can be had elsewhere.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_box_can_be_switched_away(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    scene.carried_out(&one.id, "pause", json!({})).await;
    scene.db.sql("UPDATE workspaces SET status = 'failed'").await;
    let blue = blue_only(&scene).await;
    assert_eq!(command(&blue, &one.id, "restart", forced()).await.problem().1, "PROVIDER_NOT_CONFIGURED");
    let accepted = command(&blue, &one.id, "switch-provider", json!({ "provider": BLUE })).await.ok();
    let claim = scene.ended(accepted["id"].as_str().expect("an id")).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    scene.settled(&one.id).await;
}

/// What is above it is paused all the same, and what is resumed says who was not.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_child_whose_provider_is_elsewhere(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let parent = scene.workspace(BLUE).await;
    let body = |parent: &Running| json!({ "name": "c", "provider": RED, "parent_id": parent.id });
    let child = scene.workspace_with(body(&parent)).await;
    let blue = blue_only(&scene).await;
    let along = |claim: Value, step: &str| {
        assert_eq!(claim["state"], "committed", "{claim:#}");
        let steps = claim["steps"].as_array().expect("steps").clone();
        steps.into_iter().find(|line| line["step"] == step).expect("that step")["detail"].clone()
    };
    let paused = command(&blue, &parent.id, "pause", json!({})).await.ok();
    let paused = scene.ended(paused["id"].as_str().expect("an id")).await;
    assert_eq!(along(paused, "pause_children"), "1 taken along");
    scene.until("the child's box is stopped", async || scene.plane.running(&child.id).is_empty()).await;
    scene.settled(&child.id).await;
    assert_eq!(scene.row(&child.id).await["status"], "paused");
    let resumed = command(&blue, &parent.id, "resume", json!({})).await.ok();
    let resumed = scene.ended(resumed["id"].as_str().expect("an id")).await;
    let said = along(resumed, "resume_children");
    let said = said.as_str().expect("a detail");
    assert!(said.starts_with("0 taken along; left: ") && said.contains("\"red\""), "{said}");
    assert_eq!(scene.row(&child.id).await["status"], "paused");
    assert_eq!(scene.carried_out(&child.id, "resume", json!({})).await["state"], "committed");
}

/// Where no host has the provider any more, a claim that nothing was done of ends as if it had not been.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_nobody_can_carry_on_leaves_the_box(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED, BLUE]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let whole = super::config(&plane, dir.path(), 200, 50);
    let (before, blue) = (whole.find("[providers.red]"), whole.find("[providers.blue]"));
    let (before, blue) = (before.expect("red"), blue.expect("blue, the last"));
    let blue_only =
        format!("{}{}", &whole[..before], &whole[blue..]).replace("[claims]", "[claims]\ntakeovers = 2");
    let die_at = "restart:opened";
    let env: &[(&str, &str)] = &[("SPRAG_DIE_AT", die_at)];
    let first = Launch { config: &whole, env, ..Launch::of(&db.url, dir.path()) }.start().await;
    let made = first.admin(Method::POST, "workspaces", Some(json!({ "name": "w", "provider": RED }))).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    unclaimed(&db, &id).await;
    let at = plane.running(&id).remove(0);
    let token = plane.spec(RED, &at.instance).expect("a box").token;
    beat(&first.client, &first.url, &id, &token, 1, 0.0).await.expect("an answer");
    let url = format!("{}/workspaces/{id}/restart", first.url);
    let _ = first.client.post(url).bearer_auth(ADMIN).json(&forced()).send().await;
    first.died(die_at).await;

    let second = Process::start(&db.url, dir.path(), &blue_only).await;
    unclaimed(&db, &id).await;
    let claims = second.admin(Method::GET, &format!("workspaces/{id}/claims"), None).await;
    assert_eq!((&claims[0]["state"], &claims[0]["kind"]), (&json!("rolled_back"), &json!("restart")));
    let why = claims[0]["reason"]["detail"].as_str().expect("why");
    assert!(why.contains("\"red\"") && why.contains("2 takeovers"), "{why}");
    let row = second.admin(Method::GET, &format!("workspaces/{id}"), None).await;
    assert_eq!((&row["status"], &row["instance_id"]), (&json!("online"), &json!(at.instance)));
    assert_eq!(plane.running(&id).len(), 1);
    let heard = beat(&second.client, &second.url, &id, &token, 1, 0.0).await.expect("an answer");
    assert_eq!(heard.0, 200, "its agent has a say as before");
    second.stop().await;
}
