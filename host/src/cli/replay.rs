//! `sprag replay`: recorded decisions, asked again of the active or the given
//! modules. Exit 0: all the same; 1: something differs; 2: could not run.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::text::cell;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::policy::Revision;
use crate::replay::{Closeness, ask_again, differences, read_line};
use crate::revisions::{Revisions, load_dir};
use crate::store::Store;

#[derive(clap::Args)]
pub struct Args {
    /// Recordings (JSON Lines); none, or -: standard input
    files: Vec<PathBuf>,
    /// Ask the modules of this directory, with its policies.toml
    #[arg(long, env = "SPRAG_POLICY_DIR", value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// Without --policy-dir: ask the revision that is active in this database
    #[arg(long, env = "SPRAG_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The host's configuration file: its [limits] hold here too
    #[arg(long, env = "SPRAG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The host's state directory: what it has compiled is not compiled again
    #[arg(long, env = "SPRAG_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Compare the words for people as well, not only verdicts and codes
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let revision = revision(args).await?;
    let closeness = if args.strict { Closeness::Exact } else { Closeness::Codes };
    let mut tally = Tally::default();
    if args.files.is_empty() {
        replay(&revision, Path::new("-"), closeness, &mut tally).await?;
    }
    for file in &args.files {
        replay(&revision, file, closeness, &mut tally).await?;
    }
    if tally.cases == 0 {
        bail!("there was no recorded decision to ask again");
    }
    super::say(&format!("{} of {} recorded decisions differ", tally.differing, tally.cases));
    Ok(if tally.differing == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[derive(Default)]
struct Tally {
    cases: usize,
    differing: usize,
}

async fn replay(
    revision: &Revision,
    file: &Path,
    closeness: Closeness,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(
            std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?,
        ))
    };
    for (i, line) in input.lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let then = read_line(i + 1, &line).with_context(|| format!("reading {}", file.display()))?;
        let now = ask_again(revision, &then).await;
        let found = differences(&then, &now, closeness);
        tally.cases += 1;
        tally.differing += usize::from(!found.is_empty());
        for difference in found {
            super::print(&format!("{}\n", cell(&difference.to_string())))?;
        }
    }
    Ok(())
}

#[cfg(test)]
impl Args {
    pub(super) fn policies(&self) -> (Option<&Path>, Option<&str>) {
        (self.policy_dir.as_deref(), self.database_url.as_deref())
    }
}

async fn revision(args: &Args) -> anyhow::Result<Revision> {
    let (url, state_dir) = (args.database_url.as_deref(), args.state_dir.as_deref());
    let config = Config::of_verb(args.config.as_deref(), url, state_dir)?;
    let sandbox = super::sandbox(config.limits.clone(), config.compiled_before(state_dir))?;
    if let Some(dir) = &args.policy_dir {
        return load_dir(&sandbox, dir).await.context("loading the policies");
    }
    let Some(url) = &args.database_url else {
        bail!("say which policies to ask: --policy-dir DIR, or --database-url URL for its active revision");
    };
    let store = Store::connect_existing(url).await.context("opening the database")?;
    let revisions = Revisions::new(store, sandbox, Metrics::default().into());
    revisions.follow().await.context("loading the active revision")?;
    let revision = revisions.active().get();
    if revision.number == 0 {
        bail!("no revision is active in that database");
    }
    Ok(Revision::clone(&revision))
}
