//! `cargo xtask VERB`: everything that a developer or CI does to this
//! repository beyond what Cargo does by itself. A file per verb.
//!
//! Only Cargo and rustup are assumed; what else a verb needs (a WebAssembly
//! target, a Postgres) it finds or gets, and where it can't, it fails and says
//! why. Nothing is skipped.

mod bench;
mod cargo;
mod ci;
mod demo;
mod policies;
mod postgres;
mod process;
mod test;
mod tidy;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cargo::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the shipped policies into target/policies/
    Policies,
    /// Run every test: unit, golden, guests, both databases
    Test(test::Args),
    /// What must hold before a merge: fmt, clippy, tidy, test
    Ci(test::Args),
    /// Check the house rules
    Tidy,
    /// Keep a throw-away Postgres up until Ctrl-C, and print its URL
    Postgres(postgres::Args),
    /// Measure, in release mode, against the alternatives
    Bench(bench::Args),
    /// Run a host on SQLite with a handful of agents in boxes of their own
    Demo(demo::Args),
    /// Type the commands of the README's "Five minutes" beside a demo
    Readme,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            if process::interrupted() {
                return ExitCode::from(130);
            }
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    process::forward_signals()?;
    let workspace = Workspace::load()?;
    match cli.verb {
        Verb::Policies => policies::run(&workspace),
        Verb::Test(args) => test::run(&workspace, &args),
        Verb::Ci(args) => ci::run(&workspace, &args),
        Verb::Tidy => tidy::run(&workspace.root),
        Verb::Postgres(args) => postgres::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::Readme => demo::readme::run(&workspace),
    }
}
