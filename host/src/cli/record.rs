//! `sprag record`: recorded decisions as JSON Lines on standard output, the
//! same JSON that `GET /decisions/{id}` shows, oldest first.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;

use super::text;
use crate::store::Store;

/// Decisions read at once.
const PAGE: u32 = 500;

#[derive(clap::Args)]
pub struct Args {
    /// sqlite:PATH or postgres://…
    #[arg(long, env = "SPRAG_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: String,
    /// Begin after the decision of this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Only the decisions on this workspace
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    /// At most so many; without it, all that were kept
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let store = Store::connect_existing(&args.database_url).await.context("opening the database")?;
    let mut after = args.after.clone();
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = store.decisions(after.as_deref(), PAGE).await.context("reading decisions")?;
        let mut lines = String::new();
        for decision in &page {
            if left > 0 && args.workspace.as_ref().is_none_or(|id| *id == decision.question.workspace.id) {
                lines.push_str(&text::json(&serde_json::to_string(decision)?));
                lines.push('\n');
                left -= 1;
            }
        }
        super::write(&lines)?;
        match page.last() {
            Some(last) => after = Some(last.id.clone()),
            None => break,
        }
    }
    std::io::stdout().flush()?;
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
