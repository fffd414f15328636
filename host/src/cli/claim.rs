//! `sprag claim …`: what became of a command, step by step.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::client::{Host, Listed};
use super::text::{cell, ending, field};

/// Seconds that one question waits for news.
const PATIENCE: u32 = 1;

/// What every verb here is about, said once.
const ABOUT: &str = "\
A claim is how one command is carried out. It ends `committed`, or \
`rolled_back` (all is as before), `failed` (all can't be as before: the \
workspace is failed and can be restarted) or `superseded` (the workspace was removed).

A step is a line: when it was begun, its name, how it stands, its fence \
(EPOCH.SEQ; another epoch is another host's turn), and the box or the reason.";

#[derive(clap::Args)]
#[command(after_help = ABOUT)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show a claim and its steps so far
    Show {
        /// The claim's id, as the command printed it
        id: String,
        /// Show each step as it is over, until the claim has ended; exit code 1 if it did not commit
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        host: Host,
    },
    /// List a workspace's claims, newest first
    List {
        /// The workspace's id
        workspace: String,
        #[command(flatten)]
        listed: Listed,
    },
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Show { id, wait: true, host } => Ok(exit_code(&follow(id, host).await?)),
        Verb::Show { id, wait: false, host } => {
            let claim = host.call(Method::GET, &format!("claims/{id}"), |r| r).await?;
            let steps = claim["steps"].as_array().into_iter().flatten();
            let steps: Vec<_> = steps.map(step_line).collect();
            super::print(&format!("{}{}", claim_line(&claim), steps.concat()))
        }
        Verb::List { workspace, listed } => {
            listed.print(&format!("workspaces/{workspace}/claims"), &[], claim_line).await
        }
    }
}

/// Prints each step once it is over, and then how the claim ended; the claim as it then is.
pub(super) async fn follow(id: &str, host: &Host) -> anyhow::Result<Value> {
    let mut shown = BTreeSet::new();
    loop {
        let claim = host
            .call(Method::GET, &format!("claims/{id}"), |r| r.header("prefer", format!("wait={PATIENCE}")))
            .await?;
        let over = claim["state"] != "open";
        for (number, step) in claim["steps"].as_array().into_iter().flatten().enumerate() {
            if step["state"] != "begun" && shown.insert(number) {
                super::print(&step_line(step))?;
            }
        }
        if over {
            super::print(&claim_line(&claim))?;
            return Ok(claim);
        }
    }
}

/// A claim that did not commit is exit code 1.
pub(super) fn exit_code(ended: &Value) -> ExitCode {
    if ended["state"] == "committed" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn claim_line(claim: &Value) -> String {
    let text = |key: &str| field(claim, key);
    let because = claim["reason"]["detail"].as_str().or(claim["reason"]["code"].as_str());
    let because = ending(because);
    format!(
        "{}  {}  {:<15} {:<11} {}{because}\n",
        text("id"),
        text("created_at"),
        text("kind"),
        text("state"),
        text("actor")
    )
}

fn step_line(step: &Value) -> String {
    let text = |key: &str| field(step, key);
    let detail = cell(step["detail"].as_str().unwrap_or_default());
    format!(
        "  {}  {:<16} {:<9} {:>6}  {detail}\n",
        text("begun_at"),
        text("step"),
        text("state"),
        text("fence")
    )
}
