//! `sprag effects …`: what is owed, and what was given up on.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::client::{Host, Listed};
use super::text::{ending, field};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List effects, newest first
    List {
        /// due, done, parked or dropped
        #[arg(long)]
        state: Option<String>,
        /// Of this workspace
        #[arg(long)]
        workspace: Option<String>,
        #[command(flatten)]
        listed: Listed,
    },
    /// Deliver a parked effect again
    Retry {
        id: String,
        #[command(flatten)]
        host: Host,
    },
    /// Give an effect up for good
    Drop {
        id: String,
        #[command(flatten)]
        host: Host,
    },
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::List { state, workspace, listed } => {
            let wanted: Vec<_> = [("state", state), ("workspace_id", workspace)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                .collect();
            listed.print("effects", &wanted, line).await
        }
        Verb::Retry { id, host } => {
            let effect = host.call(Method::POST, &format!("effects/{id}/retry"), |r| r).await?;
            super::print(&line(&effect))
        }
        Verb::Drop { id, host } => {
            let effect = host.call(Method::DELETE, &format!("effects/{id}"), |r| r).await?;
            super::print(&line(&effect))
        }
    }
}

fn line(effect: &Value) -> String {
    let text = |key: &str| field(effect, key);
    let error = ending(effect["last_error"].as_str());
    format!(
        "{}  {}  {:<8} {:<18} {}  {} deliveries{error}\n",
        text("id"),
        text("created_at"),
        text("state"),
        text("kind"),
        text("workspace_id"),
        text("attempts")
    )
}
