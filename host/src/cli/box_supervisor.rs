//! `sprag box-supervisor DIR`: between the host and one agent. Not for people:
//! what it shall do comes on its standard input.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::provision::process::supervise;

#[derive(clap::Args)]
pub struct Args {
    /// The box's directory
    dir: PathBuf,
}

/// One thread: there is such a process beside every agent.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(&args.dir)).with_context(|| format!("running {}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
