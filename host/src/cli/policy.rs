//! `sprag policy …`: look into a module; ask a running host for its revisions,
//! give it a new one, go back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Host, Refused};
use super::text::{cell, field};
use crate::config::Config;
use crate::errors;
use crate::facts::ModuleLimits;
use crate::policy::Limits;
use crate::revisions::{Wanted, limits_beside, read_dir, read_file};

/// Bytes of one module that are read to be uploaded.
const UPLOAD_BYTES: u64 = 256 << 20;

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
        /// The host's state directory: what it has compiled is not compiled again
        #[arg(long, env = "SPRAG_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Upload modules and make them the active revision, in this order
    Activate {
        /// Modules, or one directory (its policies.toml counts)
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Go on although policies that are active now would no longer be asked
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        host: Host,
    },
    /// List the revisions, newest first
    Revisions {
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
        limit: usize,
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
        Verb::Inspect { file, config, state_dir } => {
            inspect(file, config.as_deref(), state_dir.as_deref()).await
        }
        Verb::Activate { paths, replace, host } => activate(paths, *replace, host).await,
        Verb::Revisions { limit, host } => {
            let all = host.call(Method::GET, "policies/revisions", |r| r).await?;
            let lines: Vec<_> =
                all.as_array().into_iter().flatten().take(*limit).map(revision_line).collect();
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

async fn inspect(file: &Path, config: Option<&Path>, state_dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::of_verb(config, None, state_dir)?;
    let sandbox = super::sandbox(config.limits.clone(), config.compiled_before(state_dir))?;
    let own = limits_beside(file).await?;
    let refusing = || format!("refusing {}", file.display());
    let limits = sandbox.limits().of_module(&own).with_context(refusing)?;
    let bytes = read_file(file, &limits).await.with_context(refusing)?;
    // What a module says is shown as a cell, in an error too.
    let loaded = sandbox.load_with(bytes, &own).await;
    let module = loaded.map_err(|error| anyhow!(cell(&errors::chain(&error)))).with_context(refusing)?;
    let (hooks, manifest) = (module.hooks(), module.manifest());
    let about = json!({ "digest": module.digest(), "hooks": hooks, "limits": own, "manifest": manifest });
    super::print_json(&about)
}

async fn activate(paths: &[PathBuf], replace: bool, host: &Host) -> anyhow::Result<ExitCode> {
    // The host judges by its own limits, which are not known here.
    let most = ModuleLimits { module_bytes: Some(UPLOAD_BYTES), ..ModuleLimits::all(u64::MAX) };
    let theirs = Limits { max: most, ..Limits::default() };
    let theirs = Limits { module_bytes: theirs.most().module_bytes, ..theirs };
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
                    limits: Default::default(),
                });
            }
            wanted
        }
    };
    let mut modules = Vec::with_capacity(wanted.len());
    let mut names = BTreeSet::new();
    for one in wanted {
        let bytes = one.bytes.clone();
        let info = host
            .call(Method::POST, "policies/modules", |r| r.body(bytes))
            .await
            .with_context(|| format!("uploading {}", one.label))?;
        names.extend(info["name"].as_str().map(str::to_owned));
        let Wanted { label, settings, limits, .. } = one;
        modules
            .push(json!({ "digest": info["digest"], "file": label, "settings": settings, "limits": limits }));
    }
    let dropped = dropped(host, &names).await?;
    if !dropped.is_empty() {
        let what = format!("no longer asked would be: {}", dropped.join(", "));
        if !replace && !agreed(&what)? {
            bail!("{what}; nothing was activated. Give all that shall decide, or say --replace");
        }
        super::say(&format!("dropping {}", dropped.join(", ")));
    }
    let body = json!({ "modules": modules });
    let row = host.call(Method::POST, "policies/revisions", |r| r.json(&body)).await?;
    super::print(&revision_line(&row))
}

/// The policies that decide now and would not any more.
async fn dropped(host: &Host, names: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let active = match host.call(Method::GET, "policies", |r| r).await {
        Ok(active) => active,
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.code.as_deref() == Some("NO_ACTIVE_REVISION") => return Ok(Vec::new()),
            _ => return Err(error.context("asking what is active")),
        },
    };
    let modules = active["modules"].as_array().into_iter().flatten();
    let gone = modules.filter(|m| m["name"].as_str().is_some_and(|name| !names.contains(name)));
    Ok(gone.map(|m| format!("{}@{}", field(m, "name"), field(m, "version"))).collect())
}

/// Asks a person; where there is none, nobody agrees.
fn agreed(what: &str) -> anyhow::Result<bool> {
    use std::io::{IsTerminal as _, stderr, stdin};
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("{what}\nActivate all the same? [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn revision_line(row: &Value) -> String {
    let mark = if row["active"] == true { "*" } else { " " };
    let modules = row["modules"].as_array().into_iter().flatten();
    let names: Vec<_> = modules
        .map(|m| {
            let digest = field(m, "digest");
            let short = digest.get(..19).unwrap_or(&digest);
            format!("{}@{} ({short})", field(m, "name"), field(m, "version"))
        })
        .collect();
    let text = |key: &str| field(row, key);
    let number = row["number"].as_i64().unwrap_or_default();
    format!("{mark} {number:>4}  {}  {:<8}  {}\n", text("created_at"), text("source"), names.join(", "))
}
