//! What a later version wrote is left to hosts of that version: shown, counted,
//! and in nobody's way.

use reqwest::Method;
use rstest::rstest;
use sprag::store::Backend;

use super::{RED, Scene};
use crate::support::host::ADMIN;

/// An open claim of a host that is gone, all at once.
async fn claim(scene: &Scene, id: &str, kind: &str, steps: &[(&str, &str)]) {
    let mut sql = format!(
        "BEGIN;
        INSERT INTO claims (id, workspace_id, kind, actor, prior_status, old_provider, old_instance_id,
            new_provider, state, epoch, owner, lease_until, created_at)
        SELECT 'later', id, '{kind}', 'operator', status, provider, instance_id, provider, 'open',
            claim_epoch + 1, 'gone', 1, 1 FROM workspaces WHERE id = '{id}';
        UPDATE workspaces SET claim_id = 'later', claim_epoch = claim_epoch + 1 WHERE id = '{id}';"
    );
    for (number, (step, state)) in steps.iter().enumerate() {
        sql += &format!(
            "INSERT INTO claim_steps (claim_id, number, step, state, epoch, seq, begun_at)
            VALUES ('later', {number}, '{step}', '{state}', 1, {number}, 1);"
        );
    }
    scene.db.sql(&format!("{sql} COMMIT")).await;
}

#[rstest]
#[case::a_kind("relocate", &[])]
#[case::no_kind_of_a_claim("remove", &[])]
#[case::a_step("restart", &[("drain", "done")])]
#[case::a_step_between("restart", &[("stop_old", "begun"), ("drain", "done"), ("start_new", "done")])]
#[case::a_state("restart", &[("stop_old", "handed_over")])]
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_later_version_is_left_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] kind: &str,
    #[case] steps: &[(&str, &str)],
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    claim(&scene, &one.id, kind, steps).await;
    for _ in 0..3 {
        scene.host().loops.tick("claims").await.expect("such a loop").expect("a tick");
    }
    // What it took over by mistake would be carried out by now, or soon.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let shown = scene.host().get("/claims/later").await.ok();
    assert_eq!((&shown["state"], &shown["takeovers"]), (&"open".into(), &0.into()), "{shown:#}");
    assert_eq!(shown["kind"], kind);
    for ((_, state), line) in steps.iter().zip(shown["steps"].as_array().expect("steps")) {
        let shown = if line["state"] == "unknown" { &line["detail"] } else { &line["state"] };
        assert_eq!(shown, state, "its own word: {line:#}");
    }
    let listed = scene.host().get(&format!("/workspaces/{}/claims", one.id)).await.ok();
    assert_eq!(listed[0]["id"], "later");
    let metrics = scene.host().get("/metrics").await.body.to_string();
    assert!(metrics.contains("sprag_claims_unknown 1"), "{metrics}");
    assert_eq!(scene.plane.running(&one.id).len(), 1, "its box is as it was");

    let path = format!("/workspaces/{}", one.id);
    scene.host().call(Method::DELETE, &path, Some(ADMIN), None).await.ok();
    assert_eq!(scene.host().get("/claims/later").await.ok()["state"], "superseded");
    scene.until("its box is stopped", async || scene.plane.running(&one.id).is_empty()).await;
}

/// An ended claim may have ended in a way that only a later version knows.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_a_later_version_is_shown(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    claim(&scene, &one.id, "restart", &[]).await;
    let set = "UPDATE claims SET state = 'handed_over' WHERE id = 'later'";
    scene.db.sql(&format!("{set}; UPDATE workspaces SET claim_id = NULL")).await;
    let shown = scene.host().get("/claims/later").await.ok();
    assert_eq!((&shown["state"], &shown["reason"]["detail"]), (&"unknown".into(), &"handed_over".into()));
    let listed = scene.host().get(&format!("/workspaces/{}/claims", one.id)).await.ok();
    assert_eq!(listed[0]["state"], "unknown");
}

/// An effect of a kind that this version does not know is not parked, and does not
/// keep back what comes after it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_of_a_later_version_is_left_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    let owe = |id: &str, kind: &str, body: &str| {
        format!(
            "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
            VALUES ('{id}', '{}', '{kind}', '{body}', 'due', 1, 1);",
            one.id
        )
    };
    let notice = r#"{"action": {"notify": "x"}}"#;
    let owed = [owe("later", "relocate", "{}"), owe("broken", "notify", "{"), owe("known", "notify", notice)];
    scene.db.sql(&owed[0]).await;
    scene.db.sql(&owed[2]).await;
    let state = async |id: &str| {
        let effects = scene.host().get(&format!("/effects?workspace_id={}", one.id)).await.ok();
        let of = effects.as_array().expect("effects").iter().find(|e| e["id"] == id).expect("the effect");
        of["state"].as_str().expect("a state").to_owned()
    };
    scene.until("the known one is delivered", async || state("known").await == "done").await;
    assert_eq!(state("later").await, "due");
    let attempts = "SELECT CAST(attempts AS BIGINT) FROM outbox WHERE id = 'later'";
    assert_eq!(scene.db.number(attempts).await, 0);
    // A stop is never given up, also where a later version says differently what is to be stopped.
    scene.db.sql(&owe("stop", "stop", r#"{"boxes": ["red/none"]}"#)).await;
    let tried = "SELECT CAST(attempts AS BIGINT) FROM outbox WHERE id = 'stop'";
    scene.until("it was tried again", async || scene.db.number(tried).await > 2).await;
    assert_eq!(state("stop").await, "due");
    // One that can't be read stands in the way of none.
    scene.db.sql(&owed[1]).await;
    scene.db.sql(&owe("last", "stop", r#"{"provider": "red", "instance_id": "none"}"#)).await;
    let done = "SELECT COUNT(*) FROM outbox WHERE id = 'last' AND state = 'done'";
    scene.until("the last one is delivered", async || scene.db.number(done).await == 1).await;
}
