//! `cargo xtask ci`: what must hold before a merge, the quick checks first.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::{process, test, tidy};

pub fn run(workspace: &Workspace, args: &test::Args) -> Result<ExitCode> {
    process::run_ok(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    let tidy = tidy::run(&workspace.root)?;
    if tidy != ExitCode::SUCCESS {
        return Ok(tidy);
    }
    let mut clippy = workspace.cargo();
    process::run_ok(clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    test::run(workspace, args)
}
