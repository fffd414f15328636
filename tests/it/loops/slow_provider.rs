//! A provider that answers in eight seconds, and a thousand rows; a
//! fiftieth of every time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rstest::rstest;
use sprag::loops::{BrakeConfig, LoopsConfig, Tally};
use sprag::provision::BoxState;
use sprag::store::{Backend, BrakeState};

use super::provider::{Provider, Says};
use super::{PROVIDER, Watch, fleet, patient};
use crate::support::fleet::Fleet;
use crate::support::sandbox::shipped;

const SCALE: u64 = 50;
const ANSWER: Duration = Duration::from_millis(8_000 / SCALE);
const CYCLE: Duration = Duration::from_millis(45_000 / SCALE);
const QUESTION: Duration = Duration::from_millis(10_000 / SCALE);
/// Nobody is asked about a second time meanwhile.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a busy machine may take beside.
const ALLOWANCE: Duration = Duration::from_millis(600);

/// Several hosts over one database, in real time, and one provider.
struct Slow {
    hosts: Vec<Watch>,
    provider: Arc<Provider>,
    fleet: Fleet,
}

impl Slow {
    async fn new(backend: Backend, hosts: usize, rows: u32, at_once: usize) -> Self {
        let fleet = Fleet::new(backend, shipped().await).await;
        crowd(&fleet, rows).await;
        let provider = Arc::new(Provider::default());
        provider.says(Says::Is(BoxState::Running));
        provider.takes(ANSWER);
        let config = LoopsConfig {
            instances_ms: millis(INTERVAL),
            instances_cycle_ms: millis(CYCLE),
            instances_question_ms: millis(QUESTION),
            instances_at_once: at_once,
            ..LoopsConfig::default()
        };
        let host = |n| {
            let (path, name) = (fleet.advance.clone(), format!("host-{n}"));
            Watch::with(&fleet, path, provider.clone(), &name, config.clone(), patient())
        };
        let hosts: Vec<_> = (0..hosts).map(host).collect();
        for host in &hosts {
            host.trusted(&fleet).await;
        }
        Self { hosts, provider, fleet }
    }

    /// One cycle of every host at once; no question of it comes after its end.
    async fn cycle(&self) -> Vec<Tally> {
        let begun = Instant::now();
        let before = self.provider.asked().len();
        let tallies = join_all(self.hosts.iter().map(|host| host.tick("instances"))).await;
        let took = begun.elapsed();
        assert!(took < CYCLE + QUESTION + ALLOWANCE, "a cycle took {took:?}");
        for question in &self.provider.asked()[before..] {
            let after = question.at - begun;
            assert!(after < CYCLE + ALLOWANCE, "a question after {after:?}");
        }
        tallies
    }

    /// How often each row was asked about.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for question in self.provider.asked() {
            *counts.entry(question.workspace).or_default() += 1;
        }
        counts
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).expect("it fits")
}

/// So many online rows with a box each.
async fn crowd(fleet: &Fleet, rows: u32) {
    let rows = format!(
        "INSERT INTO workspaces (id, name, kind, runtime, provider, instance_id, labels, persistent_volume,
            created_at, status, status_since, version)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
        SELECT 'w' || n, 'w', 'workspace', 'claude-code', '{PROVIDER}', 'box', '{{}}', FALSE, 0, 'online', 0, 1
        FROM n"
    );
    fleet.db.sql(&rows).await;
}

/// All are asked about in as many cycles as it must take, and nobody twice, however many hosts there are.
#[rstest]
#[case(Backend::Sqlite, 1, 5)]
#[case(Backend::Postgres, 1, 5)]
#[case(Backend::Postgres, 3, 2)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rows_take_five_cycles(
    #[case] backend: Backend,
    #[case] hosts: usize,
    #[case] cycles: usize,
) {
    let slow = Slow::new(backend, hosts, 1_000, 40).await;
    for cycle in 1..=cycles {
        let tallies = slow.cycle().await;
        let looked = tallies.iter().map(|tally| tally.looked).sum::<u64>();
        let left = 1_000_u64.saturating_sub(200 * (hosts * cycle) as u64);
        assert_eq!(looked, 1_000.min(200 * (hosts * cycle) as u64) - 200 * (hosts * (cycle - 1)) as u64);
        let deferred: Vec<_> = tallies.iter().map(|tally| tally.deferred).collect();
        assert!(
            deferred.iter().all(|deferred| *deferred >= left),
            "{deferred:?} are left for the next, of {left}"
        );
        assert_eq!(deferred.iter().min(), Some(&left), "whoever ends last knows what is left");
    }
    let counts = slow.counts();
    assert_eq!(counts.len(), 1_000, "rows were asked about");
    assert!(counts.values().all(|count| *count == 1), "nobody twice: {counts:?}");
}

/// What a cycle does not come to is left to the next, which begins with it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deferred_comes_first_in_the_next_cycle(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let slow = Slow::new(backend, 1, 200, 10).await;
    let deferred = slow.cycle().await[0].deferred;
    let first: BTreeSet<_> = slow.counts().into_keys().collect();
    assert!((10..=60).contains(&first.len()), "{} at ten at once", first.len());
    assert_eq!(deferred, 200 - first.len() as u64);
    // As if a minute had passed: all of them are due.
    slow.fleet.db.sql("UPDATE workspaces SET probe_at = probe_at - 60000 WHERE probe_at > 0").await;
    slow.cycle().await;
    let counts = slow.counts();
    assert!(counts.len() > first.len(), "nobody new was asked about");
    assert!(counts.values().all(|count| *count == 1), "others came before them: {counts:?}");
}

/// What waits behind a batch is reckoned like all that the batch was asked
/// about, and not like those of it that are gone.
#[rstest]
#[tokio::test]
async fn a_few_dead_boxes_among_many_do_not_look_like_a_mass_failure(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = fleet(backend).await;
    crowd(&fleet, 300).await;
    let brake = BrakeConfig { number: 10, ..patient() };
    let (path, config) = (fleet.advance.clone(), LoopsConfig::default());
    let watch = Watch::with(&fleet, path, Arc::default(), "host", config, brake);
    watch.trusted(&fleet).await;
    watch.tick("census").await;
    watch.provider.says(Says::Is(BoxState::Running));
    for n in (50..=300).step_by(50) {
        watch.provider.says_of(&format!("w{n}"), Says::Is(BoxState::Stopped));
    }
    let (first, second) = (watch.tick("instances").await, watch.tick("instances").await);
    assert_eq!((first.looked, first.deferred, second.looked, second.deferred), (200, 100, 100, 0));
    assert_eq!(first.flipped + second.flipped, 6, "{first:?} {second:?}");
    let brakes = fleet.store.brake_states().await.expect("reading");
    assert!(brakes.iter().all(|(_, state)| *state == BrakeState::Free), "{brakes:?}");
}
