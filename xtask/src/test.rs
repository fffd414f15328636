//! `cargo xtask test`: builds what the tests need, starts a throw-away
//! Postgres, and runs every test of the workspace; then, unless a filter was
//! given, the README's commands beside a demo.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::demo::readme;
use crate::postgres::{Cluster, Durability, Source};
use crate::{policies, process};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    postgres: Source,
    /// What to run, and other arguments of the test harness
    #[arg(last = true, value_name = "FILTER and harness arguments")]
    harness: Vec<String>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policies = policies::build(workspace)?;
    process::run_ok(workspace.members("build").args(["--bin", "sprag", "--tests"]))?;

    let cluster = Cluster::start(workspace, &args.postgres, Durability::Off)?;
    let mut tests = workspace.members("test");
    tests
        .arg("--no-fail-fast")
        .env("SPRAG_TEST_POSTGRES_URL", cluster.url())
        .env("SPRAG_TEST_BIN", workspace.target.join("debug/sprag"))
        .env("SPRAG_TEST_POLICY_DIR", policies)
        .arg("--")
        .args(&args.harness);
    // One switch blesses the recorded cases and the snapshots alike.
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        tests.env("INSTA_UPDATE", "always");
    }
    let status = process::run(&mut tests)?;
    if !status.success() || !args.harness.is_empty() {
        return Ok(process::exit_code(status));
    }
    readme::run(workspace)
}
