//! What operators see of effects and what they may do about them, over HTTP and
//! from the shell; and who may have which plugin.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;
use tokio::process::Command;

use super::{RED, Stage, TOOLS, one, without_tools};
use crate::support::control_plane::{Verb, What, Where};
use crate::support::host::{ADMIN, Setup};
use crate::support::sprag_bin;

/// A workspace with one parked delivery, and the effect's id.
async fn parked(stage: &Stage) -> (String, String) {
    let boxed = stage.booted("platform").await;
    stage.plane.faults.always(Where::verb(Verb::Deliver), What::Fail);
    assert_eq!(stage.beat(&boxed, &without_tools()).await, "failed");
    stage.delivered().await;
    let path = format!("/effects?state=parked&workspace_id={}", boxed.id);
    let found = stage.host().get(&path).await.ok();
    let [effect] = found.as_array().expect("effects").as_slice() else { panic!("{found:#}") };
    assert_eq!(effect["attempts"], 1);
    assert!(effect["last_error"].as_str().is_some_and(|why| !why.is_empty()), "{effect:#}");
    (boxed.id, effect["id"].as_str().expect("an id").to_owned())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn over_http(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let (workspace, id) = parked(&stage).await;
    let (retry, drop) = (format!("/effects/{id}/retry"), format!("/effects/{id}"));
    let post = async |path: &str| stage.host().call(Method::POST, path, Some(ADMIN), None).await;
    let delete = async |path: &str| stage.host().call(Method::DELETE, path, Some(ADMIN), None).await;

    assert_eq!(post("/effects/no-such/retry").await.problem(), (404, "EFFECT_NOT_FOUND"));
    assert_eq!(delete("/effects/no-such").await.problem(), (404, "EFFECT_NOT_FOUND"));
    let nobody = stage.host().call(Method::POST, &retry, None, None).await;
    assert_eq!(nobody.problem().0, 401);

    stage.plane.faults.clear();
    assert_eq!(post(&retry).await.ok()["state"], "due");
    stage.delivered().await;
    assert_eq!(stage.owed(&workspace).await, one("done"));
    assert_eq!(post(&retry).await.problem(), (409, "NOT_PARKED"));
    assert_eq!(delete(&drop).await.problem(), (409, "EFFECT_ENDED"));
    assert_eq!(stage.done(&workspace), 1);

    for (query, field, code) in [
        ("state=gone", "state", "INVALID_FIELD"),
        ("limit=0", "limit", "INVALID_FIELD"),
        ("before=x", "before", "BAD_CURSOR"),
    ] {
        let refused = stage.host().get(&format!("/effects?{query}")).await;
        assert_eq!(refused.problem(), (400, code), "{query}");
        assert_eq!(refused.body["field"], field, "{refused:?}");
    }
}

/// The provider remembers what it refused; a retry is another request all the same.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_good_can_be_retried(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted("platform").await;
    let refuse = What::Refuse { status: 422, code: "NO_ROOM" };
    stage.plane.faults.always(Where::verb(Verb::Deliver), refuse);
    assert_eq!(stage.beat(&boxed, &without_tools()).await, "failed");
    stage.delivered().await;
    let found = stage.host().get("/effects?state=parked").await.ok();
    stage.plane.faults.clear();
    let path = format!("/effects/{}/retry", found[0]["id"].as_str().expect("an id"));
    stage.host().call(Method::POST, &path, Some(ADMIN), None).await.ok();
    stage.delivered().await;
    assert_eq!(stage.owed(&boxed.id).await, one("done"));
    assert_eq!(stage.plane.plugins(RED, &boxed.instance), Some(vec![TOOLS.to_owned()]));
}

/// A command that takes the box away under a delivery parks nothing: it is for the next box.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_follows_the_workspace_to_its_next_box(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted("platform").await;
    let slow = What::Before(std::time::Duration::from_millis(1_000));
    stage.plane.faults.next(1, Where::verb(Verb::Deliver), slow);
    assert_eq!(stage.beat(&boxed, &without_tools()).await, "failed");
    let taken = async || {
        let due = stage.db.store.effects(None, Some(&boxed.id), None, 1).await.expect("reading");
        due[0].attempts == 1
    };
    super::until("it is under way", taken).await;
    stage
        .host()
        .admin(Method::POST, &format!("/workspaces/{}/restart", boxed.id), json!({ "force": true }))
        .await
        .ok();
    stage.delivered().await;
    super::until("no claim is open", async || stage.row(&boxed.id).await["claim_id"].is_null()).await;
    assert_eq!(stage.owed(&boxed.id).await, one("done"));
    let next = stage.boxed(&boxed.id);
    assert_ne!(next.instance, boxed.instance);
    assert_eq!(stage.plane.plugins(RED, &next.instance), Some(vec![TOOLS.to_owned()]));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_pages(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    stage.db.workspace("w").await;
    for n in 0..5 {
        let insert = format!(
            "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) \
             VALUES ('e{n}', 'w', 'restart', '{{}}', 'dropped', 0, 0)"
        );
        stage.db.sql(&insert).await;
    }
    let (mut path, mut ids) = ("/effects?limit=2&state=dropped".to_owned(), Vec::new());
    while !path.is_empty() {
        let page = stage.host().get(&path).await;
        let link = page.header("link").to_owned();
        let next = link.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
        path = next.to_owned();
        let found = page.ok();
        let found = found.as_array().expect("effects");
        assert!(found.len() <= 2);
        ids.extend(found.iter().map(|e| e["id"].as_str().expect("an id").to_owned()));
    }
    assert_eq!(ids, ["e4", "e3", "e2", "e1", "e0"]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn from_the_shell(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let (workspace, id) = parked(&stage).await;
    let run = async |args: &[&str]| {
        let mut command = Command::new(sprag_bin());
        command.arg("effects").args(args).env("SPRAG_URL", &stage.host().url).env("SPRAG_ADMIN_TOKEN", ADMIN);
        let ran = command.output().await.expect("running sprag");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    let (code, out, _) = run(&["list", "--state", "parked", "--workspace", &workspace]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    for word in [&*id, &*workspace, "parked", "reconcile_plugins", "1 deliveries"] {
        assert!(out.contains(word), "no {word} in {out}");
    }
    // It fails again and is parked again.
    let (code, out, err) = run(&["retry", &id]).await;
    assert!(code == Some(0) && out.contains("due"), "{out}{err}");
    stage.delivered().await;
    assert_eq!(stage.owed(&workspace).await, one("parked"));
    let (code, out, err) = run(&["drop", &id]).await;
    assert!(code == Some(0) && out.contains("dropped"), "{out}{err}");
    let (code, out, err) = run(&["retry", &id]).await;
    assert!(code == Some(2) && out.is_empty() && err.contains("NOT_PARKED"), "{code:?} {out}{err}");
    let (code, _, err) = run(&["drop", "no-such"]).await;
    assert!(code == Some(2) && err.contains("EFFECT_NOT_FOUND"), "{code:?} {err}");
    let (code, out, _) = run(&["list", "--state", "parked"]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_plugin_is_for_platforms_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let with = |setup| Setup { privileged_plugins: vec![TOOLS.to_owned()], ..setup };
    let stage = Stage::with(backend, 1, with).await;
    let (plain, _) = stage.host().create(json!({ "name": "plain", "kind": "workspace" })).await;
    let (platform, _) = stage.host().create(json!({ "name": "platform", "kind": "platform" })).await;
    let both = json!([{ "name": "calendar" }, { "name": TOOLS, "version": "2" }]);
    let refused = stage.declare(&plain, both.clone()).await;
    assert_eq!(refused.problem(), (409, "PRIVILEGED_PLUGIN"));
    let read = async |id: &str| stage.host().get(&format!("/workspaces/{id}/plugins")).await;
    assert_eq!(read(&plain).await.ok(), json!([]), "none of it");
    stage.declare(&plain, json!([{ "name": "calendar" }])).await.ok();
    stage.declare(&platform, both.clone()).await.ok();
    assert_eq!(read(&platform).await.ok(), both);

    // However it came there, it is not delivered.
    let boxed = stage.booted_without(json!({ "name": "w", "kind": "workspace", "provider": RED })).await;
    let smuggled = format!(
        "INSERT INTO declared_plugins (workspace_id, name) VALUES ('{}', '{TOOLS}'); \
         INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at) \
         VALUES ('smuggled', '{}', 'reconcile_plugins', '{{\"action\":\"reconcile_plugins\"}}', 'due', 0, 0)",
        boxed.id, boxed.id
    );
    stage.db.sql(&smuggled).await;
    stage.delivered().await;
    assert_eq!(stage.owed(&boxed.id).await, one("parked"));
    assert_eq!(stage.deliveries(&boxed.id).len(), 0);
}

#[rstest]
#[case::none(Value::Null, "plugins")]
#[case::no_name(json!([{ "name": "" }]), "plugins[0].name")]
#[case::long_name(json!([{ "name": "a" }, { "name": "x".repeat(129) }]), "plugins[1].name")]
#[case::twice(json!([{ "name": "a" }, { "name": "a" }]), "plugins[1].name")]
#[case::long_version(json!([{ "name": "a", "version": "9".repeat(129) }]), "plugins[0].version")]
#[case::too_many(Value::from((0..257).map(|n| json!({ "name": n.to_string() })).collect::<Vec<_>>()), "plugins")]
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_declaration_names_its_field(#[case] plugins: Value, #[case] field: &str) {
    let stage = Stage::new(Backend::Sqlite).await;
    let (id, _) = stage.host().create(json!({ "name": "w" })).await;
    let refused = stage.declare(&id, plugins).await;
    assert_eq!(refused.problem(), (400, "INVALID_FIELD"));
    assert_eq!(refused.body["field"], field, "{refused:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_delivered_to_a_box_that_waits_for_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let boxed = stage.booted_without(json!({ "name": "w", "kind": "platform", "provider": RED })).await;
    // Nothing is declared yet: the window is spent on a delivery of nothing.
    assert_eq!(stage.beat(&boxed, &without_tools()).await, "failed");
    stage.delivered().await;
    assert_eq!(stage.plane.plugins(RED, &boxed.instance), Some(Vec::new()));
    stage.declare(&boxed.id, json!([{ "name": TOOLS }])).await.ok();
    stage.delivered().await;
    assert_eq!(stage.plane.plugins(RED, &boxed.instance), Some(vec![TOOLS.to_owned()]));

    assert_eq!(stage.declare("no-such", json!([])).await.problem().0, 404);
    stage.host().call(Method::DELETE, &format!("/workspaces/{}", boxed.id), Some(ADMIN), None).await.ok();
    assert_eq!(stage.declare(&boxed.id, json!([])).await.problem().0, 410);
}
