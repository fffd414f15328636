//! `cargo xtask test`: builds what the tests need, starts a throw-away
//! Postgres, and runs every test of the workspace.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::postgres::{Cluster, Durability, Source};
use crate::{guests, policies, process};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    postgres: Source,
    /// What to run, and other arguments of the test harness
    #[arg(last = true, value_name = "FILTER and harness arguments")]
    harness: Vec<String>,
}

/// Members that are no tests and build for nothing here: the bench is for
/// release mode, guests are for WebAssembly only.
const EXCLUDED: [&str; 2] = ["sprag-bench", guests::PACKAGE];

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policies = policies::build(workspace)?;
    let guests = guests::build(workspace)?;
    // The binary and the tests in one go: asked for apart they would differ in
    // features, and the dependencies would be built twice.
    process::run_ok(selected(workspace, "build").args(["--bin", "sprag", "--tests"]))?;

    let cluster = Cluster::start(workspace, &args.postgres, Durability::Off)?;
    let mut tests = selected(workspace, "test");
    tests
        .arg("--no-fail-fast")
        .env("SPRAG_TEST_POSTGRES_URL", cluster.url())
        .env("SPRAG_TEST_BIN", workspace.target.join("debug/sprag"))
        .env("SPRAG_TEST_POLICY_DIR", policies)
        .env("SPRAG_TEST_GUEST_DIR", guests)
        .arg("--")
        .args(&args.harness);
    let status = process::run(&mut tests)?;
    Ok(process::exit_code(status))
}

fn selected(workspace: &Workspace, verb: &str) -> std::process::Command {
    let mut command = workspace.cargo();
    command.args([verb, "--workspace"]);
    for name in EXCLUDED.into_iter().filter(|name| workspace.package(name).is_some()) {
        command.args(["--exclude", name]);
    }
    command
}
