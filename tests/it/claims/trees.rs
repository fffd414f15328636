//! A pause takes along what is awake, at any depth, and its resume wakes that and
//! nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::{RED, Scene, forced};
use crate::support::control_plane::{Verb, What, Where};

const SLOW: Duration = Duration::from_millis(500);

/// Workspaces by name.
struct Tree<'a> {
    scene: &'a Scene,
    ids: BTreeMap<&'static str, String>,
}

impl<'a> Tree<'a> {
    /// Each below another, all of them awake.
    async fn grow(scene: &'a Scene, all: &[(&'static str, &'static str)]) -> Self {
        let mut tree = Self { scene, ids: BTreeMap::new() };
        for (name, above) in all {
            let body = json!({ "name": name, "provider": RED, "parent_id": tree.ids.get(above) });
            tree.ids.insert(name, scene.workspace_with(body).await.id);
        }
        tree
    }

    fn id(&self, name: &str) -> &str {
        &self.ids[name]
    }

    /// Carried out, and whatever follows from it; what runs then, speaks.
    async fn command(&self, name: &str, command: &str) -> Value {
        let claim = self.scene.carried_out(self.id(name), command, forced()).await;
        assert_eq!(claim["state"], "committed", "{command} {name}: {claim:#}");
        self.speak().await;
        claim
    }

    async fn speak(&self) {
        for id in self.ids.values() {
            self.scene.settled(id).await;
            if !self.scene.plane.running(id).is_empty() {
                let token = self.scene.running(id).await.token;
                assert_eq!(self.scene.host().beat(id, &token).await.ok()["workspace_status"], "online");
            }
        }
    }

    async fn move_below(&self, name: &str, above: Option<&str>) {
        let body = json!({ "parent_id": above.map(|above| self.id(above)) });
        let path = format!("/workspaces/{}", self.id(name));
        self.scene.host().admin(Method::PATCH, &path, body).await.ok();
    }

    async fn statuses(&self) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::new();
        for (name, id) in &self.ids {
            let status = self.scene.row(id).await["status"].as_str().expect("a status").to_owned();
            assert_eq!(status == "online", !self.scene.plane.running(id).is_empty(), "{name} is {status}");
            all.insert(*name, status);
        }
        all
    }

    /// These are so, and every other is as it was.
    async fn are(&self, before: &BTreeMap<&'static str, String>, status: &str, names: &[&'static str]) {
        let mut expected = before.clone();
        for name in names {
            expected.insert(name, status.to_owned());
        }
        assert_eq!(self.statuses().await, expected);
    }
}

const DEEP: [(&str, &str); 10] = [
    ("root", ""),
    ("a", "root"),
    ("a-slept", "a"),
    ("a-deep", "a-slept"),
    ("a-deeper", "a-deep"),
    ("a-deepest", "a-deeper"),
    ("b-slept", "root"),
    ("c-paused", "root"),
    ("c-below", "c-paused"),
    ("other", ""),
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_wakes_what_its_pause_put_to_sleep(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(false, true)] moved: bool,
) {
    let scene = Scene::new(backend).await;
    let tree = Tree::grow(&scene, &DEEP).await;
    for (name, command) in [("a-slept", "hibernate"), ("a-deeper", "hibernate"), ("b-slept", "hibernate")] {
        tree.command(name, command).await;
    }
    tree.command("c-paused", "pause").await;
    let before = tree.statuses().await;
    assert_eq!(before["c-below"], "paused", "it goes with what is above it");

    tree.command("root", "pause").await;
    tree.are(&before, "paused", &["root", "a", "a-deep", "a-deepest"]).await;
    let refused = scene.command(tree.id("b-slept"), "wake", json!({})).await;
    assert_eq!(refused.problem(), (409, "ANCESTOR_PAUSED"), "it sleeps on");
    if moved {
        tree.move_below("a-deep", None).await;
        tree.move_below("a-deepest", Some("other")).await;
        tree.move_below("a-slept", Some("other")).await;
    }
    let resumed = tree.command("root", "resume").await;
    let steps = resumed["steps"].as_array().expect("steps");
    let along = steps.iter().find(|step| step["step"] == "resume_children").expect("that step");
    assert_eq!(along["detail"], "1 taken along", "each takes its own: {resumed:#}");
    tree.are(&before, "", &[]).await;

    // What an operator put to sleep, and what that took along, he wakes.
    tree.command("c-paused", "resume").await;
    tree.are(&before, "online", &["c-paused", "c-below"]).await;
    tree.command("a-slept", "wake").await;
    tree.are(&before, "online", &["c-paused", "c-below", "a-slept"]).await;
    for id in tree.ids.values() {
        assert_eq!(scene.plane.journal.most_running_at_once(id), 1);
    }
}

/// Again and again, with somebody put to sleep in between: each time what that pause took along.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_before_the_last_one_is_over(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let scene = Scene::new(backend).await;
    let tree = Tree::grow(&scene, &[("root", ""), ("a", "root"), ("b", "root"), ("elsewhere", "")]).await;
    tree.command("root", "pause").await;
    tree.command("root", "resume").await;
    tree.command("a", "pause").await;
    let before = tree.statuses().await;
    tree.command("root", "pause").await;
    tree.are(&before, "paused", &["root", "b"]).await;
    tree.command("root", "resume").await;
    tree.are(&before, "", &[]).await;

    // Taken along by one, and below another by now: the other's pause and resume are not its own.
    tree.command("a", "resume").await;
    tree.command("root", "pause").await;
    tree.move_below("a", Some("elsewhere")).await;
    let before = tree.statuses().await;
    tree.command("elsewhere", "pause").await;
    tree.are(&before, "paused", &["elsewhere"]).await;
    tree.command("elsewhere", "resume").await;
    tree.are(&before, "", &[]).await;
    tree.command("root", "resume").await;
    tree.are(&before, "online", &["root", "a", "b"]).await;
}

/// One that is going to sleep when the pause comes is waited for and left asleep; what is below it is not.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_falls_asleep_meanwhile_stays_so(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(("hibernate", "hibernated"), ("pause", "paused"))] by_itself: (&str, &str),
) {
    let (command, status) = by_itself;
    let scene = Scene::new(backend).await;
    let tree = Tree::grow(&scene, &[("root", ""), ("a", "root"), ("below", "a"), ("deep", "below")]).await;
    scene.plane.faults.next(1, Where::workspace(tree.id("a")).only(Verb::Stop), What::Before(SLOW));
    let asleep = scene.command(tree.id("a"), command, forced()).await.ok();
    tree.command("root", "pause").await;
    assert_eq!(scene.ended(asleep["id"].as_str().expect("an id")).await["state"], "committed");
    let statuses = tree.statuses().await;
    assert_eq!((statuses["a"].as_str(), statuses["below"].as_str()), (status, "paused"));
    assert_eq!(statuses["deep"], "paused");
    tree.command("root", "resume").await;
    let statuses = tree.statuses().await;
    let below = if command == "hibernate" { "online" } else { "paused" };
    assert_eq!((statuses["a"].as_str(), statuses["below"].as_str()), (status, below));
    assert_eq!((statuses["root"].as_str(), statuses["deep"].as_str()), ("online", below));
}

/// A claim's id is made by the clock of a host, which may be ahead: it is no order.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn claims_are_in_the_order_in_which_they_were_opened(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let tree = Tree::grow(&scene, &[("root", ""), ("a", "root")]).await;
    let (id, ahead) = (tree.id("a"), "ffffffff-0000-7000-8000-000000000001");
    // A restart that is owed is a claim of the effect's id.
    let owe = format!(
        "UPDATE workspaces SET active_tasks = 0;
        INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
        VALUES ('{ahead}', '{id}', 'restart', '{{\"action\":\"restart\"}}', 'due', 0, 0)"
    );
    scene.db.sql(&owe).await;
    scene
        .until("it is restarted", async || scene.host().get(&format!("/claims/{ahead}")).await.status == 200)
        .await;
    tree.speak().await;
    tree.command("root", "pause").await;
    tree.command("root", "resume").await;
    assert_eq!(scene.row(id).await["status"], "online", "its last claim was the pause's");

    let mut path = format!("/workspaces/{id}/claims?limit=1");
    let mut kinds = Vec::new();
    while !path.is_empty() {
        let page = scene.host().get(&path).await;
        path = page.header("link").split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        kinds.extend(page.ok().as_array().expect("a page").iter().map(|claim| claim["kind"].clone()));
    }
    assert_eq!(kinds, ["resume", "pause", "restart", "create"]);
    let nobody = scene.host().get(&format!("/workspaces/{id}/claims?before={}", tree.id("root"))).await;
    assert_eq!(nobody.problem(), (400, "BAD_CURSOR"));
}
