//! `cargo xtask bench`: the ratios of `sprag-bench`, in release mode, on a
//! Postgres that waits for the disk.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::postgres::{Cluster, Durability, Source};
use crate::{policies, process};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    postgres: Source,
    /// What to measure
    #[arg(value_enum)]
    what: Option<What>,
    /// Other arguments of sprag-bench
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// One decision in a new sandbox, beside native Rust, Rego, CEL and Cedar
    Decide,
    /// Heartbeats over HTTP, beside a handler that does nothing
    Heartbeat,
    /// A tick of the silence loop over a million rows, beside ten thousand
    Sweep,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policies = policies::build(workspace)?;
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "sprag", "--package", "sprag-bench", "--bins"]);
    process::run_ok(&mut build)?;

    let built = workspace.target.join("release");
    let mut bench = std::process::Command::new(built.join("sprag-bench"));
    bench
        .current_dir(&workspace.root)
        .env("SPRAG_TEST_BIN", built.join("sprag"))
        .env("SPRAG_TEST_POLICY_DIR", policies);
    if let Some(what) = args.what {
        bench.arg(match what {
            What::Decide => "decide",
            What::Heartbeat => "heartbeat",
            What::Sweep => "sweep",
        });
    }
    bench.args(&args.rest);

    // A decision needs no database.
    let cluster = match args.what {
        Some(What::Decide) => None,
        _ => Some(Cluster::start(workspace, &args.postgres, Durability::On)?),
    };
    if let Some(cluster) = &cluster {
        bench.env("SPRAG_TEST_POSTGRES_URL", cluster.url());
    }
    let status = process::run(&mut bench)?;
    Ok(process::exit_code(status))
}
