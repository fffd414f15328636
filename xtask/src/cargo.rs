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
    /// The names of its examples.
    pub examples: Vec<String>,
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
            let examples = package["targets"].as_array()?.iter();
            let examples = examples.filter(|t| t["kind"][0] == "example").filter_map(|t| text(&t["name"]));
            Some(Package {
                name: text(&package["name"])?,
                dir: manifest.parent()?.to_owned(),
                examples: examples.collect(),
            })
        });
        Ok(Self {
            root: text(&metadata["workspace_root"]).context("no workspace_root in `cargo metadata`")?.into(),
            target: text(&metadata["target_directory"])
                .context("no target_directory in `cargo metadata`")?
                .into(),
            packages: packages.collect(),
        })
    }

    /// The member of that name, where there is one.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// `cargo` at the root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(program());
        command.current_dir(&self.root);
        command
    }
}

/// The Cargo that runs us, or the one on `PATH`.
fn program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
