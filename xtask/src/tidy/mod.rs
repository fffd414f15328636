//! `cargo xtask tidy`: the house rules.
use std::path::Path;
use std::process::ExitCode;
pub fn run(_root: &Path) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
