//! `sprag workspace …` and `sprag claim …` as scripts use them: what they print
//! and how they exit.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::{BLUE, RED, Running, Scene, forced};
use crate::support::cli::{self, Ran};
use crate::support::control_plane::{Verb, What, Where};
use crate::support::host::ADMIN;

fn command(scene: &Scene, args: &[&str]) -> Command {
    cli::command(&scene.host().url, args)
}

async fn sprag(scene: &Scene, args: &[&str]) -> Ran {
    cli::sprag(&scene.host().url, args).await
}

/// Its box says that it is well and has a task.
async fn spoken(scene: &Scene, id: &str) -> Running {
    let running = scene.running(id).await;
    assert_eq!(scene.host().beat(id, &running.token).await.ok()["workspace_status"], "online");
    running
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_the_shell(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let made =
        sprag(&scene, &["workspace", "create", "eddie", "--provider", RED, "--wait=claim"]).await.exits(0);
    let mut first = serde_json::Deserializer::from_str(&made.out).into_iter::<Value>();
    let body = first.next().expect("a body").expect("JSON");
    let id = body["id"].as_str().expect("an id");
    made.shows(&[&["start_new", "done"], &["create", "committed", "operator"]]);
    let one = spoken(&scene, id).await;

    sprag(&scene, &["workspace", "restart", id]).await.refused(&["409", "DENIED_BY_POLICY", "tasks running"]);
    let restarted = sprag(&scene, &["workspace", "restart", id, "--force", "--wait=claim"]).await.exits(0);
    restarted.shows(&[&["claim"], &["stop_old", "done"], &["start_new", "done"], &["restart", "committed"]]);
    assert_ne!(spoken(&scene, id).await.at, one.at);

    let args = ["workspace", "switch-provider", id, "--to", BLUE, "--force", "--wait=claim"];
    let switched = sprag(&scene, &args).await.exits(0);
    switched.shows(&[
        &["stop_old", "done"],
        &["write_provider", "done", BLUE],
        &["start_new", "done"],
        &["switch_provider", "committed"],
    ]);
    assert_eq!(spoken(&scene, id).await.at.provider, BLUE);
    let same = sprag(&scene, &args).await.exits(0);
    assert!(same.out.contains("with this provider already") && !same.out.contains("claim"), "{}", same.out);

    for (verb, status) in
        [("hibernate", "hibernated"), ("wake", "online"), ("pause", "paused"), ("resume", "online")]
    {
        let ran = sprag(&scene, &["workspace", verb, id, "--force", "--wait=claim"]).await.exits(0);
        ran.shows(&[&[verb, "committed"]]);
        if status == "online" {
            spoken(&scene, id).await;
        }
        assert_eq!(scene.row(id).await["status"], status);
    }

    let listed = sprag(&scene, &["workspace", "list"]).await.exits(0);
    listed.shows(&[&[id, "online", "workspace", "claude-code", BLUE, "eddie"]]);
    let shown = sprag(&scene, &["workspace", "show", id]).await.exits(0);
    let shown: Value = serde_json::from_str(&shown.out).expect("JSON");
    assert_eq!((&shown["id"], &shown["provider"]), (&Value::from(id), &Value::from(BLUE)));

    let claims = sprag(&scene, &["claim", "list", id]).await.exits(0);
    assert_eq!(claims.out.lines().count(), 7);
    claims.shows(&[&["resume"], &["pause"], &["wake"], &["hibernate"], &["switch_provider"], &["create"]]);
    let last = claims.out.split_whitespace().next().expect("an id");
    for args in [&["claim", "show", last][..], &["claim", "show", last, "--wait"]] {
        let ran = sprag(&scene, args).await.exits(0);
        ran.shows(&[&["start_new", "done"]]);
        ran.shows(&[&[last, "resume", "committed"]]);
    }

    let below = json!({ "name": "below", "parent_id": id });
    let below = scene.host().admin(Method::POST, "/workspaces", below).await.ok();
    let kept = sprag(&scene, &["workspace", "remove", id]).await;
    kept.refused(&["HAS_DESCENDANTS", "1 workspace", "--cascade"]);
    let removed = sprag(&scene, &["workspace", "remove", id, "--cascade"]).await.exits(0);
    assert_eq!(removed.out, "2 removed\n");
    assert_eq!(scene.row(below["id"].as_str().expect("an id")).await["status"], "removed");
    scene.settled(id).await;
    assert_eq!(scene.row(id).await["status"], "removed");
    sprag(&scene, &["workspace", "restart", id]).await.refused(&["410", "WORKSPACE_REMOVED"]);
}

/// Whoever does not wait is told the claim, and whoever waits how it went.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_commit_is_1(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let full = What::Refuse { status: 422, code: "NO_ROOM" };
    scene.plane.faults.always(Where::verb(Verb::Start), full);
    let made =
        sprag(&scene, &["workspace", "create", "w", "--provider", BLUE, "--wait=claim"]).await.exits(1);
    made.shows(&[&["start_new", "failed", "(NO_ROOM):"], &["create", "failed", "(NO_ROOM):"]]);
    let failed = sprag(&scene, &["workspace", "restart", &one.id, "--force", "--wait=claim"]).await.exits(1);
    failed.shows(&[&["stop_old", "done"], &["start_new", "failed"], &["restart", "failed", "(NO_ROOM):"]]);

    let told = sprag(&scene, &["workspace", "restart", &one.id]).await.exits(0);
    let claim = told.out.strip_prefix("claim ").expect("a claim").trim_end();
    let waited = sprag(&scene, &["claim", "show", claim, "--wait"]).await.exits(1);
    waited.shows(&[&["start_new", "failed"], &[claim, "restart", "rolled_back"]]);
    scene.settled(&one.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_is_shown_when_it_is_over() {
    let scene = Scene::new(Backend::Sqlite).await;
    let one = scene.workspace(RED).await;
    scene.plane.faults.always(Where::provider(BLUE).only(Verb::Start), What::Before(Duration::from_secs(4)));
    let args = ["workspace", "switch-provider", &one.id, "--to", BLUE, "--force", "--wait=claim"];
    let mut watching = command(&scene, &args).stdout(Stdio::piped()).spawn().expect("running sprag");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    while !lines.next_line().await.expect("a line").expect("more").contains("write_provider") {}
    let claim = scene.row(&one.id).await["claim_id"].as_str().expect("it is under way").to_owned();

    let args = ["workspace", "switch-provider", &one.id, "--to", RED];
    sprag(&scene, &args).await.refused(&["409", "ALREADY_SWITCHING", &claim, "nothing was done"]);
    sprag(&scene, &["workspace", "restart", &one.id]).await.refused(&["409", "CLAIM_OPEN", &claim]);
    assert!(watching.wait().await.expect("its end").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_2() {
    let scene = Scene::new(Backend::Sqlite).await;
    let one = scene.workspace(RED).await;
    let args = ["workspace", "switch-provider", &one.id, "--to", "green"];
    sprag(&scene, &args).await.refused(&["400", "INVALID_FIELD", "blue, red"]);
    let args = ["workspace", "create", "w", "--provider", "green"];
    sprag(&scene, &args).await.refused(&["400", "INVALID_FIELD", "blue, red"]);
    sprag(&scene, &["workspace", "wake", &one.id]).await.refused(&["409", "NO_SUCH_EDGE", "online"]);
    sprag(&scene, &["workspace", "show", "nobody"]).await.refused(&["404", "WORKSPACE_NOT_FOUND"]);
    sprag(&scene, &["claim", "show", "none"]).await.refused(&["404", "CLAIM_NOT_FOUND"]);
    sprag(&scene, &["claim", "list", "nobody"]).await.refused(&["404", "WORKSPACE_NOT_FOUND"]);
    let nobody = command(&scene, &["workspace", "list"]).env_remove("SPRAG_ADMIN_TOKEN").output().await;
    let nobody = nobody.expect("running sprag");
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("say who you are"));
    let path = format!("/workspaces/{}", one.id);
    scene.host().call(Method::DELETE, &path, Some(ADMIN), None).await.ok();
    sprag(&scene, &["workspace", "switch-provider", &one.id, "--to", BLUE]).await.refused(&["410"]);
    assert_eq!(scene.command(&one.id, "pause", forced()).await.problem().0, 410);
}

/// It waits for the agent, and says what became of it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_for_the_agent(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let id = one.id.as_str();
    let restart = ["workspace", "restart", id, "--force", "--wait"];
    let speaks = async {
        scene
            .until("the new box runs", async || {
                let row = scene.row(id).await;
                row["claim_id"].is_null() && row["status"] == "provisioning"
            })
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        spoken(&scene, id).await
    };
    let (ran, _) = tokio::join!(sprag(&scene, &restart), speaks);
    ran.exits(0).shows(&[&["restart", "committed"], &[id, "is", "online"]]);

    let ends = async {
        scene.until("it boots", async || scene.row(id).await["status"] == "provisioning").await;
        scene.until("no claim is open", async || scene.row(id).await["claim_id"].is_null()).await;
        let at = scene.running(id).await.at;
        scene.plane.end(&at.provider, id, &at.instance);
        let old = "UPDATE workspaces SET probe_at = 0, status_since = status_since - 60000";
        scene.db.sql(old).await;
        scene.host().loops.tick("instances").await.expect("the loop").expect("a tick");
    };
    let (ran, ()) = tokio::join!(sprag(&scene, &restart), ends);
    ran.exits(1).shows(&[&["restart", "committed"], &[id, "not", "online:", "failed,", "running,"]]);

    scene.until("recovery is through", async || scene.row(id).await["status"] == "provisioning").await;
    scene.until("no claim is open", async || scene.row(id).await["claim_id"].is_null()).await;
    let args = ["workspace", "switch-provider", id, "--to", BLUE, "--force", "--wait", "--wait-seconds", "1"];
    let ran = sprag(&scene, &args).await.exits(1);
    ran.shows(&[&["switch_provider", "committed"], &["not", "online", "after", "1", "nothing", "heard"]]);
    // What starts no box has nobody to wait for.
    sprag(&scene, &["workspace", "pause", id, "--wait"]).await.exits(0).shows(&[&["pause", "committed"]]);
}
