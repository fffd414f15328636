//! `cargo xtask policies`: every crate under `policies/` but the SDK, as a
//! module in `target/policies/`, with `policies.toml` beside them; and in
//! `target/guests/` the one that fails, for tests.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cargo::Workspace;
use crate::{process, wasm};

pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let place = build(workspace)?;
    println!("policies are in {}", place.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the policies and returns the folder that holds them.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let home = workspace.root.join("policies");
    let crates: Vec<_> =
        workspace.packages.iter().filter(|p| p.dir.starts_with(&home) && !p.dir.ends_with("sdk")).collect();
    if crates.is_empty() {
        bail!("no crate under {}", home.display());
    }
    let mut command = wasm::build(workspace)?;
    for package in &crates {
        command.args(["--package", &package.name]);
    }
    let (sdk, guest) = ("sprag-policy", "panics");
    process::run_ok(command.args(["--lib", "--package", sdk, "--example", guest]))?;

    let built = workspace.target.join(wasm::TARGET).join(wasm::PROFILE);
    let mut files: Vec<_> = crates
        .iter()
        .map(|package| {
            (module_name(&package.name), built.join(format!("{}.wasm", package.name.replace('-', "_"))))
        })
        .collect();
    let order = home.join("policies.toml");
    if order.is_file() {
        files.push(("policies.toml".to_owned(), order));
    }
    let place = workspace.target.join("policies");
    wasm::publish(&place, &files)?;
    let guest = format!("{guest}.wasm");
    let from = built.join("examples").join(&guest);
    wasm::publish(&workspace.target.join("guests"), &[(guest, from)])?;
    Ok(place)
}

/// `sprag-platform-gate` ships as `platform-gate.wasm`.
fn module_name(package: &str) -> String {
    format!("{}.wasm", package.strip_prefix("sprag-").unwrap_or(package).replace('_', "-"))
}
