//! Commands on a tree by two hosts at once, and then one pause and one resume of
//! all of it: what was awake is awake, what was asleep is asleep.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::{RED, Scene, forced};

/// The place of each one's parent.
const PARENTS: [Option<usize>; 9] =
    [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(1), Some(0), Some(7)];
const COMMANDS: [&str; 5] = ["pause", "resume", "hibernate", "wake", "restart"];
const ROUNDS: usize = 5;
const AT_ONCE: usize = 6;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

async fn statuses(scene: &Scene, ids: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for id in ids {
        all.push(scene.row(id).await["status"].as_str().expect("a status").to_owned());
    }
    all
}

/// Waits until nothing is under way anywhere, and lets speak what runs.
async fn settle(scene: &Scene, ids: &[String]) {
    let open = "SELECT COUNT(*) FROM claims WHERE state = 'open'";
    scene.until("no claim is open", async || scene.db.number(open).await == 0).await;
    for id in ids {
        scene.settled(id).await;
        if !scene.plane.running(id).is_empty() {
            let token = scene.running(id).await.token;
            assert_eq!(scene.host().beat(id, &token).await.ok()["workspace_status"], "online");
        }
    }
}

/// Those that something above puts to sleep as well.
fn below_paused(statuses: &[String]) -> BTreeSet<usize> {
    let mut below = BTreeSet::new();
    for (n, parent) in PARENTS.iter().enumerate() {
        if parent.is_some_and(|parent| statuses[parent] == "paused" || below.contains(&parent)) {
            below.insert(n);
        }
    }
    below
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_over_a_tree(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(1, 2, 3)] seed: u64,
) {
    let scene = Scene::of(backend, 2).await;
    let mut ids: Vec<String> = Vec::new();
    for parent in PARENTS {
        let body = json!({ "name": "w", "provider": RED, "parent_id": parent.map(|parent| &ids[parent]) });
        ids.push(scene.workspace_with(body).await.id);
    }
    let mut dice = Dice(seed);
    let mut answers = BTreeMap::<u16, usize>::new();
    for _ in 0..ROUNDS {
        let asked = (0..AT_ONCE).map(|n| {
            let (host, id) = (&scene.hosts[n % 2], &ids[dice.below(ids.len())]);
            let path = format!("/workspaces/{id}/{}", COMMANDS[dice.below(COMMANDS.len())]);
            async move { host.admin(Method::POST, &path, forced()).await }
        });
        for answer in futures::future::join_all(asked).await {
            let status = answer.status.as_u16();
            assert!([202, 409, 503].contains(&status), "{answer:?}");
            assert!(status != 503 || answer.problem().1 == "OUTRUN", "{answer:?}");
            *answers.entry(status).or_default() += 1;
        }
    }
    assert!(answers.contains_key(&202), "{answers:?}");
    settle(&scene, &ids).await;

    let carry = async |command: &str| {
        let claim: Value = scene.carried_out(&ids[0], command, forced()).await;
        assert_eq!(claim["state"], "committed", "{claim:#}");
        settle(&scene, &ids).await;
    };
    match scene.row(&ids[0]).await["status"].as_str() {
        Some("paused") => carry("resume").await,
        Some("hibernated") => carry("wake").await,
        _ => {}
    }
    let before = statuses(&scene, &ids).await;
    carry("pause").await;
    for (id, was) in ids.iter().zip(&before) {
        assert!(scene.plane.running(id).is_empty(), "{was} before, and runs below a paused one");
        let is = scene.row(id).await["status"].clone();
        assert_eq!(is, if was == "hibernated" { "hibernated" } else { "paused" });
    }
    carry("resume").await;
    let (after, aside) = (statuses(&scene, &ids).await, below_paused(&before));
    for (n, (was, is)) in before.iter().zip(&after).enumerate().filter(|(n, _)| !aside.contains(n)) {
        let asleep = was == "paused" || was == "hibernated";
        assert_eq!(is, if asleep { was } else { "online" }, "{n}: {before:?} {after:?}");
    }
    for id in &ids {
        assert_eq!(scene.plane.journal.most_running_at_once(id), 1);
    }
}
