//! Switching to and fro in a storm: many clients, two real hosts on one Postgres
//! that are killed or frozen all the time, and a control plane that is slow, late
//! and loses answers. What it leaves must be true.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sprag::store::{Backend, Claim, EffectState};
use tokio::task::JoinSet;

use super::{BLUE, RED, config, to, unclaimed};
use crate::support::control_plane::{ControlPlane, Verb, What, Where};
use crate::support::db::TestDb;
use crate::support::process::{ADMIN, Process, beat};

const WORKSPACES: usize = 200;
const CLIENTS: u64 = 16;
const HOSTS: usize = 2;

/// How long it blows, unless `SPRAG_STORM_SECONDS` says otherwise.
const STORM: Duration = Duration::from_secs(60);

const LEASE_MS: u64 = 1_000;
const TICK_MS: u64 = 200;

/// The latest that a call is held back; more than a lease.
const LATEST: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_leaves_nothing_stranded() {
    let db = TestDb::new(Backend::Postgres).await;
    let plane = ControlPlane::start(&[RED, BLUE]).await;
    let dirs: Vec<_> = (0..HOSTS).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let mut hosts = Vec::new();
    for dir in &dirs {
        hosts.push(Process::start(&db.url, dir.path(), &config(&plane, dir.path(), LEASE_MS, TICK_MS)).await);
    }
    let mut ids = Vec::new();
    for n in 0..WORKSPACES {
        let body = json!({ "name": format!("w{n}"), "provider": if n % 2 == 0 { RED } else { BLUE } });
        let made = hosts[n % HOSTS].admin(reqwest::Method::POST, "workspaces", Some(body)).await;
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    for id in &ids {
        unclaimed(&db, id).await;
    }
    let seconds = std::env::var("SPRAG_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let storm = Arc::new(Storm {
        urls: Mutex::new(hosts.iter().map(|host| host.url.clone()).collect()),
        ids,
        over: Instant::now() + seconds.map_or(STORM, Duration::from_secs),
        client: crate::support::client_with(|c| c.timeout(Duration::from_secs(5))),
        heard: Mutex::default(),
        db,
        plane,
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let storm = storm.clone();
        clients.spawn(async move { storm.switch(Dice(client)).await });
    }
    let faults = tokio::spawn({
        let storm = storm.clone();
        async move { storm.strike(Dice(1_000)).await }
    });
    let mut killers = JoinSet::new();
    for (n, host) in hosts.into_iter().enumerate() {
        let (storm, dir) = (storm.clone(), dirs[n].path().to_owned());
        killers.spawn(async move { storm.harass(n, host, &dir, Dice(2_000 + n as u64)).await });
    }
    let harassed = killers.join_all().await;
    clients.join_all().await;
    let struck = faults.await.expect("the faults");
    storm.plane.faults.clear();

    let since = Instant::now();
    storm.calm().await;
    let calm = since.elapsed();
    // What is still held back is done by now, or never.
    tokio::time::sleep(LATEST).await;
    storm.is_true().await;
    let [kills, freezes] = [0, 1].map(|n| harassed.iter().map(|(_, times)| times[n]).sum::<u32>());
    println!("{kills} hosts killed, {freezes} frozen, {struck} calls struck, calm after {calm:?}");
    println!("the clients heard {:?}", storm.heard.lock().expect("the answers"));
    let tally = storm.tally().await;
    println!("{tally:#?}");
    assert!(kills > 0 && tally["committed"] > 0 && tally["taken over"] > 0, "no storm at all");
    for (host, _) in harassed {
        host.stop().await;
    }
}

struct Storm {
    /// Where each host is, if it is.
    urls: Mutex<Vec<String>>,
    ids: Vec<String>,
    over: Instant,
    client: reqwest::Client,
    /// How often the clients heard which answer.
    heard: Mutex<BTreeMap<String, u64>>,
    db: TestDb,
    plane: ControlPlane,
}

impl Storm {
    fn blows(&self) -> bool {
        Instant::now() < self.over
    }

    fn url(&self, n: usize) -> String {
        self.urls.lock().expect("the hosts")[n].clone()
    }

    /// One client: any workspace, any host, whatever it hears.
    async fn switch(&self, mut dice: Dice) {
        while self.blows() {
            let id = &self.ids[dice.below(WORKSPACES as u64) as usize];
            let url = self.url(dice.below(HOSTS as u64) as usize);
            let heard = self.turn(&url, id, &mut dice).await.unwrap_or_else(|| "nothing".to_owned());
            if heard == "nothing" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            *self.heard.lock().expect("the answers").entry(heard).or_default() += 1;
        }
    }

    /// The box speaks, so that the workspace is online, and then it is moved.
    async fn turn(&self, url: &str, id: &str, dice: &mut Dice) -> Option<String> {
        let row = self.client.get(format!("{url}/workspaces/{id}")).bearer_auth(ADMIN).send().await.ok()?;
        let row: Value = row.json().await.ok()?;
        self.speak(url, id).await;
        let target = if row["provider"] == RED { BLUE } else { RED };
        let path = format!("{url}/workspaces/{id}/switch-provider");
        let mut request = self.client.post(path).bearer_auth(ADMIN).json(&to(target));
        if dice.below(2) == 0 {
            request = request.header("prefer", "wait=1");
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.ok()?;
        let what = body["code"].as_str().or(body["state"].as_str()).unwrap_or("no code");
        assert!(matches!(status, 200 | 202 | 409 | 503), "{status} {body:#}");
        Some(format!("{status} {what}"))
    }

    async fn speak(&self, url: &str, id: &str) -> Option<(u16, Value)> {
        let running = self.plane.running(id);
        let at = running.first()?;
        let token = self.plane.spec(&at.provider, &at.instance)?.token;
        beat(&self.client, url, id, &token, 1, 0.0).await
    }

    /// Makes some calls slow, late, lost or failed; how many.
    async fn strike(&self, mut dice: Dice) -> u32 {
        let mut struck = 0;
        while self.blows() {
            let verb = [Verb::Start, Verb::Start, Verb::Stop, Verb::Fence][dice.below(4) as usize];
            self.plane.faults.next(1, Where::verb(verb), fault(verb, &mut dice));
            struck += 1;
            tokio::time::sleep(Duration::from_millis(20 + dice.below(100))).await;
        }
        struck
    }

    /// Kills a host and starts it again, or freezes it for longer than a lease,
    /// over and over. The last one is left alone. How many were killed, and frozen.
    async fn harass(&self, n: usize, mut host: Process, dir: &Path, mut dice: Dice) -> (Process, [u32; 2]) {
        let config = config(&self.plane, dir, LEASE_MS, TICK_MS);
        let [mut kills, mut freezes] = [0, 0];
        while self.blows() {
            tokio::time::sleep(Duration::from_millis(100 + dice.below(2_000))).await;
            if dice.below(4) == 0 {
                host.freeze(LATEST).await;
                freezes += 1;
                continue;
            }
            host.kill().await;
            kills += 1;
            tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
            host = Process::start(&self.db.url, dir, &config).await;
            self.urls.lock().expect("the hosts")[n].clone_from(&host.url);
        }
        (host, [kills, freezes])
    }

    /// Waits until nothing is under way and nothing is owed.
    async fn calm(&self) {
        for id in &self.ids {
            unclaimed(&self.db, id).await;
        }
        let until = Instant::now() + super::PATIENCE;
        while self.db.store.effect_counts().await.expect("reading the outbox").0 != 0 {
            assert!(Instant::now() < until, "something is owed still");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A delivery that its provider let down waits for a person; a stop never does.
        let parked = self.db.store.effects(Some(EffectState::Parked), None, None, u32::MAX).await;
        for effect in parked.expect("reading the outbox") {
            assert_eq!(effect.kind, "reconcile_plugins", "{effect:?}");
        }
    }

    /// Each row says what runs, and what runs may speak.
    async fn is_true(&self) {
        let overlaps = self.plane.journal.overlaps();
        let calls = overlaps.first().map(|id| self.plane.journal.calls(id));
        assert!(
            overlaps.is_empty(),
            "two boxes at once of {} workspaces; of one: {calls:#?}",
            overlaps.len()
        );
        for id in &self.ids {
            let row = self.db.store.view(id).await.expect("reading").expect("a row").workspace;
            let running = self.plane.running(id);
            let named = running.first().map(|one| (one.provider.clone(), one.instance.clone()));
            let said = row.provider.clone().zip(row.instance_id.clone());
            let calls = || self.plane.journal.calls(id);
            assert_eq!((said, running.len() <= 1), (named, true), "{row:#?}\n{:#?}", calls());
            if let Some((status, heard)) = self.speak(&self.url(0), id).await {
                assert_eq!((status, &heard["workspace_status"]), (200, &json!("online")), "{row:#?}");
            }
        }
    }

    /// How all claims ended.
    async fn tally(&self) -> BTreeMap<String, u64> {
        let mut tally = BTreeMap::new();
        for key in ["committed", "rolled_back", "failed", "taken over"] {
            tally.insert(key.to_owned(), 0);
        }
        let mut count = |key: String, by: u64| *tally.entry(key).or_default() += by;
        for id in &self.ids {
            let all = self.db.store.claims_of(id, None, u32::MAX).await.expect("reading claims");
            for Claim { state, takeovers, reason, steps, .. } in all {
                count(state.as_str().to_owned(), 1);
                count("taken over".to_owned(), u64::from(takeovers > 0));
                count("takeovers".to_owned(), u64::from(takeovers));
                if let Some(reason) = reason {
                    count(format!("because {}", reason.code), 1);
                }
                for step in steps.iter().filter(|s| s.ended_at.is_some()) {
                    count(format!("steps {} {}", step.step, step.state.as_str()), 1);
                }
            }
        }
        tally
    }
}

fn fault(verb: Verb, dice: &mut Dice) -> What {
    let short = Duration::from_millis(dice.below(800));
    let long = Duration::from_millis(dice.below(LATEST.as_millis() as u64));
    match dice.below(10) {
        // A start that comes after its host's death and its claim's next fence ...
        0..3 if verb == Verb::Start => What::Before(long),
        // ... while whoever fenced has yet to hear of it.
        0..6 if verb == Verb::Fence => What::After(short),
        // A box that can't be stopped is another test's: here two at once are a bug.
        3 if verb == Verb::Start => What::Refuse { status: 422, code: "NO_ROOM" },
        0..3 => What::Before(short),
        3..6 => What::Late { by: long, answer: None },
        6 => What::Late { by: short, answer: Some(500) },
        7 => What::Lose,
        8 => What::HangUp,
        _ => What::FailAccepted,
    }
}

/// Throws that differ from one seed to another.
struct Dice(u64);

impl Dice {
    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        // Splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
