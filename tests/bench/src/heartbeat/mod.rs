//! `heartbeat`: heartbeats over HTTP to 100,000 registered workspaces, beside a
//! handler of the same server that does nothing.
//!
//! The host is a process of its own, so that its memory is its own: what
//! `sprag serve` runs, with the shipped policies, the default configuration and
//! one more route. That route reads the same JSON into the same fields and
//! answers as long a JSON; both get the same requests from the same keep-alive
//! connections, in turns. Afterwards every answered heartbeat must be in the
//! database.

mod fill;
pub mod host;
mod load;

pub use fill::Database;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Kept, median, required, verdict};
use fill::Fleet;
use host::Host;
use load::{Load, Tally};

/// The least share of the no-op handler's requests per second.
const BOUND: f64 = 0.35;

/// How long each phase runs before it is counted.
const WARM: Duration = Duration::from_millis(500);

const HEARTBEAT: &str = "/registry/heartbeat";

#[derive(clap::Args)]
pub struct Args {
    /// Registered workspaces
    #[arg(long, default_value_t = 100_000)]
    workspaces: usize,
    /// Keep-alive connections
    #[arg(long, default_value_t = 2048)]
    connections: usize,
    /// Rounds of both phases
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds that are counted of each phase
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only one backend
    #[arg(long, value_enum)]
    only: Option<Backend>,
}

impl Default for Args {
    fn default() -> Self {
        Self { workspaces: 100_000, connections: 2048, rounds: 9, seconds: 3, only: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// What the rounds on one backend came to.
#[derive(Default)]
struct Rounds {
    noop: Vec<Tally>,
    heartbeat: Vec<Tally>,
}

pub fn run(args: &Args) -> Result<Kept> {
    let backends = [Backend::Sqlite, Backend::Postgres];
    let mut kept = true;
    for backend in backends.into_iter().filter(|b| args.only.is_none_or(|only| only == *b)) {
        kept &= on(backend, args)?;
    }
    Ok(kept)
}

fn on(backend: Backend, args: &Args) -> Result<Kept> {
    let scratch = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (name, database) = match backend {
        Backend::Sqlite => ("SQLite", Database::sqlite(scratch.path())),
        Backend::Postgres => {
            let cluster = required("SPRAG_TEST_POSTGRES_URL")?;
            ("Postgres", runtime.block_on(Database::postgres(&cluster))?)
        }
    };
    let fleet = runtime.block_on(database.fill(args.workspaces))?;
    let mut host = Host::start(&database.url, scratch.path())?;
    let since = runtime.block_on(database.now())?;
    let rounds = measure(host.address, &fleet, args)?;
    let memory = host.memory()?;
    host.stop()?;

    let answered: Vec<usize> = rounds.heartbeat.iter().flat_map(|tally| tally.answered.clone()).collect();
    let stored = runtime.block_on(database.check(&fleet, &answered, since))?;
    println!("heartbeat on {name}: {} workspaces, {} connections", args.workspaces, args.connections);
    let kept = report(&rounds);
    println!("host's memory: {memory}; {stored} workspaces' answered heartbeats found in the database\n");
    Ok(kept)
}

fn measure(host: SocketAddr, fleet: &Fleet, args: &Args) -> Result<Rounds> {
    let noop = Load::new(host, fleet, host::NOOP, args.connections);
    let heartbeat = Load::new(host, fleet, HEARTBEAT, args.connections);
    let counted = Duration::from_secs(args.seconds);
    let mut rounds = Rounds::default();
    for _ in 0..args.rounds {
        rounds.noop.push(noop.run(WARM, counted)?);
        rounds.heartbeat.push(heartbeat.run(WARM, counted)?);
    }
    ensure!(rounds.heartbeat.iter().all(|tally| !tally.answered.is_empty()), "no heartbeat was answered");
    Ok(rounds)
}

fn report(rounds: &Rounds) -> Kept {
    println!("{:<12} {:>12} {:>10} {:>10} {:>10}", "", "requests/s", "p50 ms", "p99 ms", "busy µs");
    for (name, tallies) in [("no-op", &rounds.noop), ("heartbeat", &rounds.heartbeat)] {
        let of = |value: fn(&Tally) -> f64| median(&tallies.iter().map(value).collect::<Vec<_>>());
        let (p50, p99) = (of(|tally| tally.latency_ms(0.5)), of(|tally| tally.latency_ms(0.99)));
        println!(
            "{name:<12} {:>12.0} {p50:>10.2} {p99:>10.2} {:>10.1}",
            of(Tally::per_second),
            of(Tally::busy_micros)
        );
    }
    let pairs = rounds.heartbeat.iter().zip(&rounds.noop);
    let ratios: Vec<_> = pairs.map(|(ours, noop)| ours.per_second() / noop.per_second()).collect();
    let ratio = median(&ratios);
    let kept = ratio >= BOUND;
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    println!("{}: {ratio:.3} of the no-op handler, at least {BOUND} ({})", verdict(kept), each.join(" "));
    kept
}
