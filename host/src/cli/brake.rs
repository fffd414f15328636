//! `sprag brake …` and `sprag loops`: whether rows may go down, and what the
//! loops of a running host do.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Host;
use super::text::{cell, field as text, value};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    host: Host,
}

#[derive(Subcommand)]
enum Verb {
    /// Let rows go down again, so many a minute
    Release {
        /// fleet, provider:NAME or strays; all that is held where it is left out
        scope: Option<String>,
        #[command(flatten)]
        host: Host,
    },
}

#[derive(clap::Args)]
pub struct LoopsArgs {
    #[command(flatten)]
    host: Host,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let brake = match &args.verb {
        None => args.host.call(Method::GET, "brake", |r| r).await?,
        Some(Verb::Release { scope, host }) => {
            host.call(Method::POST, "brake/release", |r| r.json(&json!({ "scope": scope }))).await?
        }
    };
    super::print(&shown(&brake))
}

pub(super) async fn loops(args: &LoopsArgs) -> anyhow::Result<ExitCode> {
    let loops = args.host.call(Method::GET, "loops", |r| r).await?;
    let lines: Vec<_> = loops.as_array().into_iter().flatten().map(loop_line).collect();
    super::print(&lines.concat())
}

fn shown(brake: &Value) -> String {
    let why = brake["distrust"].as_str().map_or(String::new(), |why| format!(" ({})", cell(why)));
    let mut lines = format!("silence counts from {}{why}\n", text(brake, "trusted_from"));
    for scope in brake["scopes"].as_array().into_iter().flatten() {
        lines += &format!(
            "{:<24} {:<7} since {}  {} live, {} went down of {} that may; {} would\n",
            text(scope, "scope"),
            text(scope, "state"),
            text(scope, "since"),
            text(scope, "live"),
            text(scope, "flips"),
            text(scope, "bound"),
            text(scope, "wanted")
        );
    }
    for host in brake["hosts"].as_array().into_iter().flatten() {
        lines += &format!("host {:<19} seen {}\n", text(host, "name"), text(host, "seen_at"));
    }
    lines
}

fn loop_line(of: &Value) -> String {
    let skipped = of["skipped"].as_object().into_iter().flatten();
    let skipped: Vec<_> = skipped.map(|(why, n)| format!("{} {}", cell(why), value(n))).collect();
    let error = of["last_error"].as_str().map_or(String::new(), |error| format!("  FAILS: {}", cell(error)));
    format!(
        "{:<13} every {:>6} ms  last {} in {} ms  looked {} flipped {} deferred {}  skipped: {}{error}\n",
        text(of, "name"),
        text(of, "every_ms"),
        text(of, "last_tick_at"),
        text(of, "last_took_ms"),
        text(of, "looked"),
        text(of, "flipped"),
        text(of, "deferred"),
        if skipped.is_empty() { "-".to_owned() } else { skipped.join(", ") }
    )
}
