//! The badly behaved modules that the sandbox's tests load: each example of
//! `sprag-guests` as a module in `target/guests/`. Without that package (the
//! tests may write their guests as text) the folder is empty.

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::{process, wasm};

pub const PACKAGE: &str = "sprag-guests";

/// Builds the guests and returns the folder that holds them.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut files = Vec::new();
    if let Some(package) = workspace.package(PACKAGE) {
        process::run_ok(wasm::build(workspace)?.args(["--package", PACKAGE, "--examples"]))?;
        let built = workspace.target.join(wasm::TARGET).join(wasm::PROFILE).join("examples");
        files.extend(
            package.examples.iter().map(|name| (format!("{name}.wasm"), built.join(format!("{name}.wasm")))),
        );
    }
    let place = workspace.target.join("guests");
    wasm::publish(&place, &files)?;
    Ok(place)
}
