//! `sprag instances`: the boxes that there are, and those that no row names.

use std::process::ExitCode;

use serde_json::Value;

use super::client::Listed;
use super::text::{ending, field, value};

/// What the columns are, said once.
const ABOUT: &str = "\
A stray is a box that its provider runs and that no workspace names. Of each: its \
instance, provider and workspace, the registry that started it (own, other, none: it \
does not say), why it is one, when it was found, and when it may be stopped. Only own \
ones are ever stopped.";

#[derive(clap::Args)]
#[command(after_help = ABOUT)]
pub struct Args {
    /// Only those that no workspace names
    #[arg(long)]
    stray: bool,
    #[command(flatten)]
    listed: Listed,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let wanted: &[_] = if args.stray { &[("stray", "true")] } else { &[] };
    args.listed.print("instances", wanted, line).await
}

fn line(instance: &Value) -> String {
    let text = |key: &str| field(instance, key);
    let ids = format!("{}  {:<10} {}", text("instance_id"), text("provider"), text("workspace_id"));
    let found = &instance["found"];
    if found.is_null() {
        return format!("{ids}  {}\n", text("status"));
    }
    let error = ending(found["last_error"].as_str());
    let stops = match &found["stops_at"] {
        Value::Null => "never stopped".to_owned(),
        at => format!("stops {}", value(at)),
    };
    format!(
        "{ids}  STRAY  registry {}  {}  found {}  {stops}{error}\n",
        field(found, "registry"),
        field(found, "reason"),
        field(found, "found_at")
    )
}
