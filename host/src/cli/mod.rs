//! The command line: one file per verb.

pub mod agent;
mod box_supervisor;
pub mod brake;
pub mod claim;
mod client;
pub mod effects;
mod flags;
pub mod instances;
mod log;
pub mod machine;
pub mod migrate;
mod online;
pub mod policy;
pub mod record;
pub mod replay;
pub mod serve;
mod text;
pub mod workspace;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::clock::{self, rfc3339};
use crate::errors;
use crate::policy::{Limits, Sandbox, SandboxConfig};
use crate::store::Sole;

/// A registry of agents: WebAssembly policies decide every change of status,
/// and the host starts and stops the boxes that agents run in.
#[derive(Parser)]
#[command(name = "sprag", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the host
    Serve(Box<serve::Args>),
    /// List, create and command the workspaces of a running host: restart, pause, …
    Workspace(workspace::Args),
    /// See how a command is carried out, step by step
    Claim(claim::Args),
    /// See what is owed; deliver what was parked again, or drop it
    Effects(effects::Args),
    /// See the boxes that run, and those that no workspace names
    Instances(instances::Args),
    /// See whether rows may go down, and let them again
    Brake(brake::Args),
    /// See what the loops of a running host do
    Loops(brake::LoopsArgs),
    /// Bring a database's schema up to date
    Migrate(migrate::Args),
    /// Print every change of status that there is, and what may cause it
    Machine(machine::Args),
    /// Inspect policy modules; list, activate and roll back their revisions
    Policy(policy::Args),
    /// Export recorded decisions as JSON Lines
    Record(record::Args),
    /// Ask recorded decisions again and print what differs
    Replay(replay::Args),
    /// Be a sample agent: register, heartbeat, obey a control file
    Agent(agent::Args),
    /// Compile a component from standard input (the host runs this itself)
    #[command(name = "compile-policy", hide = true)]
    CompilePolicy {
        /// The limits as JSON
        limits: String,
    },
    /// Run one box of the provider `process` (the host runs this itself)
    #[command(name = crate::provision::process::VERB, hide = true)]
    BoxSupervisor(box_supervisor::Args),
    /// Be the first process of such a box (its supervisor runs this)
    #[command(name = crate::provision::process::INIT, hide = true)]
    BoxInit(box_supervisor::Args),
}

/// Parses the arguments and does what they say.
///
/// # Errors
/// What the verb could not do; `main` prints it and exits with 2.
pub fn run() -> anyhow::Result<ExitCode> {
    match flags::parse::<Cli>().verb {
        Verb::CompilePolicy { limits } => {
            let limits: Limits = serde_json::from_str(&limits)?;
            crate::policy::compile_child(&limits).map(|()| ExitCode::SUCCESS)
        }
        Verb::Agent(args) => wait_for(agent::run(&args)),
        Verb::BoxSupervisor(args) => box_supervisor::run(&args),
        Verb::BoxInit(args) => box_supervisor::run_init(&args),
        Verb::Machine(args) => machine::run(&args),
        Verb::Serve(args) => wait_for(serve::run(&args)),
        Verb::Workspace(args) => wait_for(workspace::run(&args)),
        Verb::Claim(args) => wait_for(claim::run(&args)),
        Verb::Effects(args) => wait_for(effects::run(&args)),
        Verb::Instances(args) => wait_for(instances::run(&args)),
        Verb::Brake(args) => wait_for(brake::run(&args)),
        Verb::Loops(args) => wait_for(brake::loops(&args)),
        Verb::Migrate(args) => wait_for(migrate::run(&args)),
        Verb::Policy(args) => wait_for(policy::run(&args)),
        Verb::Record(args) => wait_for(record::run(&args)),
        Verb::Replay(args) => wait_for(replay::run(&args)),
    }
}

fn wait_for(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(verb)
}

/// Writes lines to standard output. What others said in them has gone through
/// [`text::cell`]; what no terminal should get is escaped here once more. A reader
/// that went away ends the process quietly.
fn print(lines: &str) -> anyhow::Result<ExitCode> {
    write(&text::lines(lines))
}

/// [`print`] of JSON, which stays JSON.
fn print_json(value: &Value) -> anyhow::Result<ExitCode> {
    write(&text::json(&format!("{value:#}\n")))
}

fn write(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map(|()| ExitCode::SUCCESS).context("writing to standard output"),
    }
}

/// Writes a line to standard error. One that can't be written is lost, and not a panic.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::lines(line));
}

/// Says what went wrong, with every cause.
pub fn complain(error: &anyhow::Error) {
    say(&format!("error: {}", errors::chain(error.as_ref())));
}

/// A SQLite file, for this process alone; `who` tells others what it does.
fn sole(database_url: &str, who: &str) -> anyhow::Result<Sole> {
    let machine = rustix::system::uname();
    let (id, since) = (std::process::id(), rfc3339(clock::now()));
    let machine = machine.nodename().to_string_lossy();
    Ok(Sole::take(database_url, &format!("{who}, process {id} on {machine}, since {since}"))?)
}

/// This very binary; on Linux also when the file was replaced by a newer one while it runs.
fn this_binary() -> anyhow::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => Ok(running),
        false => std::env::current_exe().context("finding this binary"),
    }
}

/// A sandbox whose compiler is this very binary.
fn sandbox(limits: Limits, cache_dir: Option<PathBuf>) -> anyhow::Result<Sandbox> {
    let compiler = this_binary()?;
    Sandbox::new(SandboxConfig { limits, compiler, cache_dir }).context("making the sandbox")
}
