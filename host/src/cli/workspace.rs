//! `sprag workspace …`: what an operator does to a workspace, from the shell.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Host, Listed};
use super::text::{cell, field};
use super::{claim, online};

/// What every verb here is about, said once.
const ABOUT: &str = "\
A workspace is one agent as the registry knows it. Where it names a provider, \
that provider runs its agent in a box, and commands stop and start it.

A command is refused, or opens a claim: the record of how it is carried out, \
whatever becomes of this shell. --wait shows it to its end and, where it starts a box, \
waits for the agent: until it is online, or it is known that it is not, and why. \
--wait=claim ends with the claim, and so does `sprag claim show CLAIM --wait`. Exit \
codes: 0 done (without --wait: begun), 1 it was begun and could not be carried out, or \
its agent did not come online, 2 refused.";

#[derive(clap::Args)]
#[command(after_help = ABOUT)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List workspaces, oldest first: id, status, kind, runtime, provider, name
    List(Listed),
    /// Show a workspace as JSON
    Show {
        /// The workspace's id
        id: String,
        #[command(flatten)]
        host: Host,
    },
    /// Create a workspace; start its first box, or print its agent's token where it has no provider
    Create {
        /// For people; need not be unique
        name: String,
        /// `workspace`, or `platform` for one that manages the others [default: workspace]
        #[arg(long)]
        kind: Option<String>,
        /// What runs the agent: `claude-code`, `hermes`, `external`, … [default: claude-code]
        #[arg(long)]
        runtime: Option<String>,
        /// A provider of the host's configuration, which runs its box
        #[arg(long)]
        provider: Option<String>,
        /// The id of the workspace to put it below
        #[arg(long, value_name = "ID")]
        parent: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Stop the box and start a new one
    Restart(Commanded),
    /// Stop the box until it is resumed, and those of all workspaces below
    Pause(Commanded),
    /// Start a paused workspace's box, and those that were paused along with it
    Resume(Commanded),
    /// Start a hibernated workspace's box
    Wake(Commanded),
    /// Stop the box until it is woken
    Hibernate(Commanded),
    /// Stop the box and start a new one at another provider
    SwitchProvider {
        /// A provider of the host's configuration
        #[arg(long, value_name = "PROVIDER")]
        to: String,
        /// Go on although a persistent volume is left behind
        #[arg(long)]
        confirm_data_loss: bool,
        #[command(flatten)]
        commanded: Commanded,
    },
    /// Remove a workspace; it never comes back
    Remove {
        /// The workspace's id
        id: String,
        /// Remove all below it as well; without, a workspace with others below it is kept
        #[arg(long)]
        cascade: bool,
        #[command(flatten)]
        host: Host,
    },
}

#[derive(clap::Args)]
struct Commanded {
    /// The workspace's id
    id: String,
    /// Go on although the agent has tasks running, or its box's provider is not configured
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    watch: Watch,
}

/// What a command is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    Online,
    Claim,
}

#[derive(clap::Args)]
struct Watch {
    /// Show each step as it is over, until the agent is online; or only until the claim has ended
    #[arg(long, value_name = "UNTIL", num_args = 0..=1, require_equals = true, default_missing_value = "online")]
    wait: Option<Until>,
    /// How many seconds --wait gives an agent whose box was started
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    wait_seconds: u64,
    #[command(flatten)]
    host: Host,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::List(listed) => listed.print("workspaces", &[], line).await,
        Verb::Show { id, host } => {
            let row = host.call(Method::GET, &format!("workspaces/{id}"), |r| r).await?;
            super::print_json(&row)
        }
        Verb::Create { name, kind, runtime, provider, parent, watch } => {
            let body = json!({
                "name": name, "kind": kind, "runtime": runtime, "provider": provider, "parent_id": parent,
            });
            let made = watch.host.call(Method::POST, "workspaces", |r| r.json(&body)).await?;
            super::print_json(&made)?;
            watch.claim(made["claim_id"].as_str()).await
        }
        Verb::Restart(commanded) => commanded.send("restart", json!({})).await,
        Verb::Pause(commanded) => commanded.send("pause", json!({})).await,
        Verb::Resume(commanded) => commanded.send("resume", json!({})).await,
        Verb::Wake(commanded) => commanded.send("wake", json!({})).await,
        Verb::Hibernate(commanded) => commanded.send("hibernate", json!({})).await,
        Verb::SwitchProvider { to, confirm_data_loss, commanded } => {
            let body = json!({ "provider": to, "confirm_data_loss": confirm_data_loss });
            commanded.send("switch-provider", body).await
        }
        Verb::Remove { id, cascade, host } => {
            let query = if *cascade { "?cascade=true" } else { "" };
            let gone = host.call(Method::DELETE, &format!("workspaces/{id}{query}"), |r| r).await?;
            super::print(&format!("{} removed\n", field(&gone, "removed")))
        }
    }
}

#[cfg(test)]
impl Args {
    pub(super) fn host(&self) -> Option<&Host> {
        match &self.verb {
            Verb::List(listed) => Some(listed.host()),
            _ => None,
        }
    }
}

impl Commanded {
    async fn send(&self, command: &str, mut body: Value) -> anyhow::Result<ExitCode> {
        body["force"] = self.force.into();
        let path = format!("workspaces/{}/{command}", self.id);
        let claim = self.watch.host.call(Method::POST, &path, |r| r.json(&body)).await?;
        if let Some(detail) = claim["detail"].as_str() {
            return super::print(&format!("{}\n", cell(detail)));
        }
        super::print(&format!("claim {}\n", field(&claim, "id")))?;
        self.watch.claim(claim["id"].as_str()).await
    }
}

impl Watch {
    async fn claim(&self, id: Option<&str>) -> anyhow::Result<ExitCode> {
        let (Some(id), Some(until)) = (id, self.wait) else { return Ok(ExitCode::SUCCESS) };
        let ended = claim::follow(id, &self.host).await?;
        if until == Until::Claim || ended["state"] != "committed" || !online::is_awaited(&ended) {
            return Ok(claim::exit_code(&ended));
        }
        online::wait(&ended, &self.host, Duration::from_secs(self.wait_seconds)).await
    }
}

fn line(row: &Value) -> String {
    let text = |key: &str| field(row, key);
    format!(
        "{}  {:<14} {:<10} {:<12} {:<10} {}\n",
        text("id"),
        text("status"),
        text("kind"),
        text("runtime"),
        text("provider"),
        text("name")
    )
}
