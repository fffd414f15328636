//! The workspace as Cargo sees it, and Cargo as a child process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Where things are.
pub struct Workspace {
    /// The repository's root.
    pub root: PathBuf,
    /// Cargo's target directory, wherever it was put.
    pub target: PathBuf,
    /// The members.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
pub struct Package {
    pub name: String,
    /// The folder of its manifest.
    pub dir: PathBuf,
}

impl Workspace {
    /// Asks `cargo metadata`.
    pub fn load() -> Result<Self> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(program());
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(home);
        let said = process::run_quiet(&mut command)?;
        let metadata: serde_json::Value =
            serde_json::from_str(&said).context("`cargo metadata` is not JSON")?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let packages = metadata["packages"].as_array().into_iter().flatten().filter_map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"])?);
            Some(Package { name: text(&package["name"])?, dir: manifest.parent()?.to_owned() })
        });
        Ok(Self {
            root: text(&metadata["workspace_root"]).context("no workspace_root in `cargo metadata`")?.into(),
            target: text(&metadata["target_directory"])
                .context("no target_directory in `cargo metadata`")?
                .into(),
            packages: packages.collect(),
        })
    }

    /// `cargo VERB` on every member but the bench, which is for release mode.
    /// Whatever builds in dev mode asks for the same members: asked for apart
    /// they would differ in features, and dependencies would be built twice.
    pub fn members(&self, verb: &str) -> Command {
        let mut command = self.cargo();
        command.args([verb, "--workspace", "--exclude", "sprag-bench"]);
        command
    }

    /// `cargo` at the root, as from a shell: what the `cargo run` that started
    /// us says of *this* package would make build scripts that watch such
    /// variables (ring's) run again, and half of the dependencies with them.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(program());
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
            if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// The Cargo that runs us, or the one on `PATH`.
fn program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
