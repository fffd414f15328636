//! What `cargo xtask bench` runs: three ratios, each with its bound, each
//! measured within one run so that a slow machine is slow for both sides.
//!
//! - `decide`: a decision in a new sandbox, beside the same rule elsewhere
//! - `heartbeat`: heartbeats over HTTP, beside a handler that does nothing
//! - `sweep`: a tick of the silence loop over a million rows, beside ten thousand
//!
//! A bound that is missed is a failed run.

mod decide;
mod heartbeat;
mod sweep;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// µs of one decision
    Decide(decide::Args),
    /// Requests per second
    Heartbeat(heartbeat::Args),
    /// Milliseconds of one tick of the silence loop
    Sweep(sweep::Args),
    /// The host under load, as a process of its own
    #[command(hide = true)]
    Host(heartbeat::host::Args),
}

/// The one of `sprag`: the host under load runs in this binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether every bound was kept.
type Kept = bool;

fn main() -> anyhow::Result<ExitCode> {
    // The host under load compiles policies in a child of its own binary.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == sprag::policy::COMPILE_VERB) {
        return sprag::cli::run();
    }
    let kept = match Cli::parse().what {
        Some(What::Decide(args)) => decide::run(&args)?,
        Some(What::Heartbeat(args)) => heartbeat::run(&args)?,
        Some(What::Sweep(args)) => sweep::run(&args)?,
        Some(What::Host(args)) => heartbeat::host::run(&args)?,
        None => {
            let decided = decide::run(&decide::Args::default())?;
            let beaten = heartbeat::run(&heartbeat::Args::default())?;
            sweep::run(&sweep::Args::default())? && beaten && decided
        }
    };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// PASS or FAIL, for the line that a person looks for.
fn verdict(kept: Kept) -> &'static str {
    if kept { "PASS" } else { "FAIL" }
}

/// A variable that `cargo xtask bench` sets.
fn required(name: &str) -> anyhow::Result<String> {
    std::env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set; run `cargo xtask bench`"))
}

/// The middle one of `values`; NaN where there is none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
