//! `sweep`: one tick of the silence loop over a million live rows, beside the
//! same over ten thousand. In each, as many rows are due as one tick takes.
//!
//! A tick is what a host runs: rows are taken, each is judged by the shipped
//! policies, the brake is asked, and every one of them goes offline, with its
//! event, its decision and the restart that it owes. Beside it stands what the
//! taking alone costs. The two fleets take turns, with rows of their own in each
//! round, and the brake's share is all of them: it never holds.

mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sprag::advance::Advance;
use sprag::claims::{Claims, ClaimsConfig};
use sprag::effects::{Effects, EffectsConfig};
use sprag::loops::{BrakeConfig, Loops, LoopsConfig, Parts, Tally};
use sprag::metrics::Metrics;
use sprag::policy::{Limits, Sandbox, SandboxConfig};
use sprag::provision::{Dispatcher, ProvisioningConfig};
use sprag::revisions::{FROM_DIR, Revisions, read_dir};
use sprag::store::{Store, Sweep};

use crate::heartbeat::{Backend, Database};
use crate::{Kept, median, required, verdict};
use fleet::{Fleet, Turn};

/// The most that a tick over the larger fleet may take, as a multiple of the smaller one's.
const BOUND: f64 = 2.0;

/// Rows that are due in a round: as many as a tick takes.
const DUE: usize = 200;

/// Rounds before those that count.
const WARM: usize = 1;

/// No host is distrusted here, however long its fleet takes to be made.
const HOUR_MS: u64 = 3_600_000;

#[derive(clap::Args)]
pub struct Args {
    /// Live rows of the larger fleet
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Live rows of the smaller one
    #[arg(long, default_value_t = 10_000)]
    few: usize,
    /// Rounds that count
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only one backend
    #[arg(long, value_enum)]
    only: Option<Backend>,
}

impl Default for Args {
    fn default() -> Self {
        Self { rows: 1_000_000, few: 10_000, rounds: 15, only: None }
    }
}

/// Milliseconds of each round.
#[derive(Default)]
struct Times {
    tick: Vec<f64>,
    take: Vec<f64>,
}

pub fn run(args: &Args) -> Result<Kept> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let backends = [Backend::Sqlite, Backend::Postgres];
    let mut kept = true;
    for backend in backends.into_iter().filter(|b| args.only.is_none_or(|only| only == *b)) {
        kept &= runtime.block_on(on(backend, args))?;
    }
    Ok(kept)
}

async fn on(backend: Backend, args: &Args) -> Result<Kept> {
    let sandbox = Sandbox::new(SandboxConfig {
        limits: Limits::default(),
        compiler: required("SPRAG_TEST_BIN")?.into(),
        cache_dir: None,
    })?;
    let name = match backend {
        Backend::Sqlite => "SQLite",
        Backend::Postgres => "Postgres",
    };
    println!("sweep on {name}: a tick of silence that takes {DUE} rows, {} rounds", args.rounds);
    let sizes = [args.few, args.rows];
    let mut hosts = Vec::new();
    for rows in sizes {
        let begun = Instant::now();
        let host = Host::start(backend, &sandbox, rows, args.rounds + WARM).await?;
        println!("{rows:>9} rows made in {:.1} s", begun.elapsed().as_secs_f64());
        hosts.push(host);
    }
    let mut times = [Times::default(), Times::default()];
    for round in 0..args.rounds + WARM {
        for (host, times) in hosts.iter().zip(&mut times) {
            let (tick, take) = (host.tick(round).await?, host.take(round).await?);
            if round >= WARM {
                times.tick.push(tick);
                times.take.push(take);
            }
        }
    }
    for host in hosts {
        host.end(DUE * (args.rounds + WARM)).await?;
    }
    Ok(report(sizes, &times))
}

/// A host that nobody talks to, and whose loops tick when they are told to.
struct Host {
    store: Store,
    loops: Loops,
    fleet: Fleet,
    /// Of SQLite; removed with all that is in it.
    _scratch: tempfile::TempDir,
}

impl Host {
    async fn start(backend: Backend, sandbox: &Sandbox, rows: usize, rounds: usize) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let database = match backend {
            Backend::Sqlite => Database::sqlite(scratch.path()),
            Backend::Postgres => Database::postgres(&required("SPRAG_TEST_POSTGRES_URL")?).await?,
        };
        let store = Store::connect(&database.url).await?;
        store.migrate().await?;
        let fleet = Fleet::make(&database.url, rows, 2 * DUE * rounds).await?;
        let metrics = Arc::new(Metrics::default());
        let revisions = Revisions::new(store.clone(), sandbox.clone(), metrics.clone());
        let shipped = read_dir(Path::new(&required("SPRAG_TEST_POLICY_DIR")?), &Limits::default()).await?;
        revisions.activate(FROM_DIR, shipped).await?;
        let loops =
            loops(&store, Advance::new(store.clone(), revisions.active(), metrics.clone(), 1_000), metrics);
        // Whoever lives is counted by the brake, and this host is trusted.
        tick(&loops, "pulse").await?;
        tick(&loops, "census").await?;
        Ok(Self { store, loops, fleet, _scratch: scratch })
    }

    /// One whole tick, in milliseconds.
    async fn tick(&self, round: usize) -> Result<f64> {
        let ids = self.fleet.turn(Turn::Ticked, round, DUE);
        self.fleet.make_due(&ids).await?;
        let begun = Instant::now();
        let tally = tick(&self.loops, "silence").await?;
        let took = millis(begun);
        let due = u64::try_from(DUE)?;
        ensure!(
            (tally.looked, tally.flipped) == (due, due) && tally.skipped.is_empty(),
            "a tick came to {tally:?}, and not to {due} rows that went offline"
        );
        Ok(took)
    }

    /// The taking alone, in milliseconds: as the tick begins.
    async fn take(&self, round: usize) -> Result<f64> {
        let ids = self.fleet.turn(Turn::Taken, round, DUE);
        self.fleet.make_due(&ids).await?;
        let config = LoopsConfig::default();
        let (after, again) = (config.silent_after_ms, config.silence_ms);
        let begun = Instant::now();
        let heard = self.store.rearm(Sweep::Silence, after, again, config.rows).await?;
        let taken = self.store.take_due(Sweep::Silence, after, again, config.rows).await?;
        let took = millis(begun);
        ensure!(
            heard == 0 && taken.due.len() == DUE && taken.unreadable.is_empty(),
            "{heard} rows were heard of and {} taken, and not {DUE}",
            taken.due.len()
        );
        self.fleet.hear(&ids).await?;
        Ok(took)
    }

    /// Checks that so many are offline, and leaves nothing.
    async fn end(self, offline: usize) -> Result<()> {
        let found = self.fleet.count_offline().await?;
        ensure!(found == i64::try_from(offline)?, "{found} rows are offline, and not {offline}");
        self.store.close().await;
        self.fleet.drop_database().await
    }
}

/// The loops of a host with the default settings, whose brake holds nothing.
fn loops(store: &Store, advance: Advance, metrics: Arc<Metrics>) -> Loops {
    let dispatcher = Arc::new(Dispatcher::new(BTreeMap::new(), ProvisioningConfig::default()));
    let nowhere = "http://127.0.0.1:1".to_owned();
    let claims = Claims::new(
        store.clone(),
        advance.clone(),
        dispatcher.clone(),
        metrics.clone(),
        ClaimsConfig::default(),
        nowhere,
    );
    let effects = Effects::new(
        store.clone(),
        dispatcher.clone(),
        claims.clone(),
        None,
        metrics.clone(),
        EffectsConfig::default(),
    );
    let parts = Parts {
        store: store.clone(),
        advance,
        claims,
        effects,
        dispatcher,
        metrics,
        name: "bench".to_owned(),
    };
    let brake = BrakeConfig {
        share: 1.0,
        stall_ms: HOUR_MS,
        slow_ms: HOUR_MS,
        jump_ms: HOUR_MS,
        lost_ms: HOUR_MS,
        forget_ms: HOUR_MS,
        ..BrakeConfig::default()
    };
    Loops::new(&parts, &LoopsConfig { rows: DUE as u32, ..LoopsConfig::default() }, &brake)
}

async fn tick(loops: &Loops, name: &str) -> Result<Tally> {
    let ticked = loops.tick(name).await.with_context(|| format!("no loop {name}"))?;
    ticked.map_err(|error| anyhow::anyhow!("{name}: {error}"))
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn report(sizes: [usize; 2], times: &[Times; 2]) -> Kept {
    println!("{:<16} {:>12} {:>8} {:>8} {:>18}", "", "tick ms", "min", "max", "taking alone ms");
    for (rows, times) in sizes.iter().zip(times) {
        let least = times.tick.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.tick.iter().copied().fold(0.0, f64::max);
        println!(
            "{:<16} {:>12.1} {least:>8.1} {most:>8.1} {:>18.2}",
            format!("{rows} rows"),
            median(&times.tick),
            median(&times.take)
        );
    }
    let [few, many] = times;
    let ratios = |of: fn(&Times) -> &[f64]| -> Vec<f64> {
        of(many).iter().zip(of(few)).map(|(many, few)| many / few).collect()
    };
    let (ticks, takes) = (ratios(|times| &times.tick), ratios(|times| &times.take));
    let ratio = median(&ticks);
    let kept = ratio < BOUND;
    let each: Vec<_> = ticks.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!("taking alone: {:.2} times as long", median(&takes));
    println!("{}: {ratio:.2} times as long, less than {BOUND:.1} ({})\n", verdict(kept), each.join(" "));
    kept
}
