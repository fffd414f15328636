//! `sprag box-supervisor DIR` and `sprag box-init DIR`: between the host and one
//! agent. Not for people: what they shall do comes on their standard input.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::provision::process::{init, supervise};

#[derive(clap::Args)]
pub struct Args {
    /// The box's directory
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    wait_for(args, supervise(&args.dir))
}

pub(super) fn run_init(args: &Args) -> anyhow::Result<ExitCode> {
    wait_for(args, init(&args.dir))
}

/// One thread: there are such processes beside every agent.
fn wait_for(args: &Args, work: impl Future<Output = io::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).with_context(|| format!("running {}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
