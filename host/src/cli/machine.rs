//! `sprag machine`: the table that no policy can change, for people, for
//! diagrams and for programs.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::machine::{EDGES, EdgeRow, Status, Target};

/// How the table is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Table,
    Mermaid,
    Json,
}

#[derive(clap::Args)]
pub struct Args {
    /// For people, for a diagram, or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    super::print(&match args.format {
        Format::Table => table(),
        Format::Mermaid => mermaid(),
        Format::Json => format!("{:#}\n", json()),
    })
}

/// The table as text, a row of [`EDGES`] per line.
pub fn table() -> String {
    let mut rows =
        vec![["CAUSE".to_owned(), "FROM".to_owned(), "TO, IN ORDER".to_owned(), "ONLY".to_owned()]];
    rows.extend(EDGES.iter().map(|row| {
        [row.cause.to_string(), names(row.from), targets(row).join(", "), row.runtimes.as_str().to_owned()]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [cause, from, to, only] in &rows {
        let line = format!("{cause:0$}  {from:1$}  {to:2$}  {only}", widths[0], widths[1], widths[2]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(
        "\nNothing leads out of removed. Staying in a status is no move, but a command may begin it anew.\n",
    );
    text
}

/// The table as a Mermaid state diagram, one arrow per pair of statuses.
pub fn mermaid() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> provisioning: created\n");
    for from in Status::ALL {
        for to in Status::ALL {
            let causes: Vec<_> = EDGES
                .iter()
                .filter(|row| row.from.contains(&from) && leads_to(row, from, to))
                .map(|row| row.cause.as_str())
                .collect();
            if !causes.is_empty() {
                let mut causes = causes;
                causes.dedup();
                let _ = writeln!(text, "    {from} --> {to}: {}", causes.join(", "));
            }
        }
    }
    text.push_str("    removed --> [*]\n");
    text
}

/// The table for programs.
pub fn json() -> Value {
    let rows: Vec<Value> = EDGES
        .iter()
        .map(|row| {
            json!({
                "cause": row.cause,
                "from": row.from,
                "to": targets(row),
                "only": Some(row.runtimes.as_str()).filter(|only| !only.is_empty()),
            })
        })
        .collect();
    json!({ "statuses": Status::ALL, "edges": rows })
}

fn leads_to(row: &EdgeRow, from: Status, to: Status) -> bool {
    match row.to {
        Target::FirstOf(targets) => from != to && targets.contains(&to),
        Target::Anew(target) => to == target,
        // The prior status can be any; of these arrows only the certain one is drawn.
        Target::PriorOrFailed => to == Status::Failed,
    }
}

fn targets(row: &EdgeRow) -> Vec<&'static str> {
    match row.to {
        Target::FirstOf(to) => to.iter().map(|status| status.as_str()).collect(),
        Target::Anew(to) => vec![to.as_str()],
        Target::PriorOrFailed => vec!["(the status before the claim)", Status::Failed.as_str()],
    }
}

fn names(statuses: &[Status]) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" ")
}
