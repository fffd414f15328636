//! Commands on a workspace whose agent has not spoken yet: a boot that is stuck
//! is what an operator restarts.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use sprag::store::Backend;

use super::{BLUE, RED, Scene, sent_with};
use crate::support::control_plane::{Verb, What, Where};

/// Again and again, without a word of any agent: one box at a time, and only the last one has a say.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_is_begun_anew(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let id = scene.boot(RED).await;
    let mut last = scene.running(&id).await;
    for (command, provider) in [("restart", RED), ("switch-provider", BLUE), ("restart", BLUE)] {
        let before = scene.row(&id).await;
        let claim = scene.carried_out(&id, command, sent_with(command)).await;
        assert_eq!((&claim["state"], &claim["prior_status"]), (&json!("committed"), &json!("provisioning")));
        scene.settled(&id).await;
        let row = scene.row(&id).await;
        assert_eq!((&row["status"], &row["provider"]), (&json!("provisioning"), &json!(provider)), "{row:#}");
        let [since, version] = ["status_since", "version"].map(|key| (row[key].clone(), before[key].clone()));
        assert!(since.0.as_str() > since.1.as_str(), "the boot counts anew: {row:#}");
        assert_eq!(version.0.as_i64(), version.1.as_i64().map(|n| n + 1));
        assert_eq!(scene.host().beat(&id, &last.token).await.problem().0, 401, "that box is gone");
        last = scene.running(&id).await;
    }
    assert_eq!(scene.plane.journal.most_running_at_once(&id), 1);
    assert_eq!(scene.host().beat(&id, &last.token).await.ok()["workspace_status"], "online");
}

/// A claim that is still open is waited for, as ever.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_a_claim_holds_is_left(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    scene.plane.faults.next(1, Where::verb(Verb::Start), What::Before(Duration::from_secs(2)));
    let made = json!({ "name": "w", "provider": RED });
    let made = scene.host().admin(reqwest::Method::POST, "/workspaces", made).await.ok();
    let id = made["id"].as_str().expect("an id");
    for command in ["restart", "switch-provider"] {
        let refused = scene.command(id, command, sent_with(command)).await;
        assert_eq!(refused.problem(), (409, "CLAIM_OPEN"), "{refused:?}");
    }
    assert_eq!(scene.ended(made["claim_id"].as_str().expect("a claim")).await["state"], "committed");
    scene.settled(id).await;
}

/// Who races the first word of the agent either finds the row before it or after it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_is_begun_anew_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::of(backend, 2).await;
    let id = scene.boot(RED).await;
    let first = scene.running(&id).await;
    let path = format!("/workspaces/{id}/restart");
    let commands = (0..6).map(|n| {
        let host = &scene.hosts[n % 2];
        let path = path.clone();
        async move { host.admin(reqwest::Method::POST, &path, super::forced()).await }
    });
    let (answers, heard) =
        tokio::join!(futures::future::join_all(commands), scene.host().beat(&id, &first.token));
    assert!([200, 401].contains(&heard.status.as_u16()), "{heard:?}");
    let won = answers.iter().filter(|answer| answer.status == 202).count();
    // One at a time: whoever came when it had ended, began it once more.
    assert!(won >= 1, "{answers:?}");
    for lost in answers.iter().filter(|answer| answer.status != 202) {
        assert_eq!(lost.problem(), (409, "CLAIM_OPEN"), "{lost:?}");
    }
    scene.until("no claim is open", async || scene.row(&id).await["claim_id"].is_null()).await;
    scene.settled(&id).await;
    assert_eq!(scene.plane.journal.most_running_at_once(&id), 1);
}
