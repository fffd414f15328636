//! `sprag policy …`: look into a module; ask a running host for its revisions,
//! give it a new one, go back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Host;
use crate::config::limits;
use crate::policy::Limits;
use crate::revisions::{Wanted, read_dir, read_file};

/// Bytes of one module that are read to be uploaded.
const UPLOAD_BYTES: usize = 256 << 20;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Load a module as the host would, and print who it says it is
    Inspect {
        /// A core module or a component
        file: PathBuf,
        /// The host's configuration file: its [limits] hold here too
        #[arg(long, env = "SPRAG_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Upload modules and make them the active revision, in this order
    Activate {
        /// Modules, or one directory (its policies.toml counts)
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        host: Host,
    },
    /// List the revisions, newest first
    Revisions {
        #[command(flatten)]
        host: Host,
    },
    /// Go back to the revision that was active before, or to the one named
    Rollback {
        /// The number of the revision to go back to
        #[arg(long, value_name = "NUMBER")]
        to: Option<i64>,
        #[command(flatten)]
        host: Host,
    },
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Inspect { file, config } => inspect(file, config.as_deref()).await,
        Verb::Activate { paths, host } => activate(paths, host).await,
        Verb::Revisions { host } => {
            let all = host.call(Method::GET, "policies/revisions", |r| r).await?;
            let lines: Vec<_> = all.as_array().into_iter().flatten().map(revision_line).collect();
            super::print(&lines.concat())
        }
        Verb::Rollback { to, host } => {
            let path =
                to.map_or("policies/rollback".to_owned(), |n| format!("policies/revisions/{n}/activate"));
            let row = host.call(Method::POST, &path, |r| r).await?;
            super::print(&revision_line(&row))
        }
    }
}

async fn inspect(file: &Path, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let sandbox = super::sandbox(limits(config)?, None)?;
    let refusing = || format!("refusing {}", file.display());
    let bytes = read_file(file, sandbox.limits()).await.with_context(refusing)?;
    let module = sandbox.load(bytes).await.with_context(refusing)?;
    let about = json!({ "digest": module.digest(), "hooks": module.hooks(), "manifest": module.manifest() });
    super::print(&format!("{about:#}\n"))
}

async fn activate(paths: &[PathBuf], host: &Host) -> anyhow::Result<ExitCode> {
    // The host judges by its own limits, which are not known here.
    let theirs = Limits { module_bytes: UPLOAD_BYTES, ..Limits::default() };
    let wanted = match paths {
        [dir] if dir.is_dir() => read_dir(dir, &theirs).await?,
        files => {
            let mut wanted = Vec::with_capacity(files.len());
            for file in files {
                let bytes = read_file(file, &theirs).await?;
                wanted.push(Wanted {
                    label: file.display().to_string(),
                    bytes,
                    settings: Default::default(),
                });
            }
            wanted
        }
    };
    let mut modules = Vec::with_capacity(wanted.len());
    for one in wanted {
        let bytes = one.bytes.clone();
        let info = host
            .call(Method::POST, "policies/modules", |r| r.body(bytes))
            .await
            .with_context(|| format!("uploading {}", one.label))?;
        modules.push(json!({ "digest": info["digest"], "settings": one.settings }));
    }
    let body = json!({ "modules": modules });
    let row = host.call(Method::POST, "policies/revisions", |r| r.json(&body)).await?;
    super::print(&revision_line(&row))
}

fn revision_line(row: &Value) -> String {
    let mark = if row["active"] == true { "*" } else { " " };
    let modules = row["modules"].as_array().into_iter().flatten();
    let names: Vec<_> = modules
        .map(|m| {
            let digest = m["digest"].as_str().unwrap_or_default();
            let short = digest.get(..19).unwrap_or(digest);
            format!(
                "{}@{} ({short})",
                m["name"].as_str().unwrap_or("?"),
                m["version"].as_str().unwrap_or("?")
            )
        })
        .collect();
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let number = row["number"].as_i64().unwrap_or_default();
    format!("{mark} {number:>4}  {}  {:<8}  {}\n", text("created_at"), text("source"), names.join(", "))
}
