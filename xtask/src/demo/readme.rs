//! `cargo xtask readme`: the commands of the README's "Five minutes", as they stand
//! there, typed into one shell beside a demo that runs. What the README promises of
//! them is looked up at the host: an agent that is killed is lost and back, twice.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Demo;
use super::client::Client;
use crate::cargo::Workspace;
use crate::process;

/// The heading of the section.
const SECTION: &str = "## Five minutes";
/// How long one block of commands may take.
const BLOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How long what was promised may take to be on record.
const PROMISE_PATIENCE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(200);
/// Ends each block's output.
const MARK: &str = "@@ the block is over";

pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let blocks = blocks(&fs::read_to_string(workspace.root.join("README.md"))?)?;
    let demo = Demo::start(workspace, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (operator, root) = (demo.operator.clone(), workspace.root.clone());
    let typed = thread::spawn(move || type_all(&blocks, &operator, &root));
    demo.play_until(|| typed.is_finished() || process::interrupted())?;
    let count = typed.join().map_err(|_| anyhow::anyhow!("the README's reader panicked"))??;
    println!("README: {count} blocks of commands run, and what they promise was seen");
    Ok(ExitCode::SUCCESS)
}

/// The section's blocks of shell commands.
fn blocks(readme: &str) -> Result<Vec<String>> {
    let (_, after) = readme.split_once(SECTION).with_context(|| format!("README.md has no {SECTION:?}"))?;
    let section = after.split("\n## ").next().unwrap_or(after);
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<_> = blocks.map(str::to_owned).collect();
    ensure!(blocks.len() >= 4, "README.md has only {} blocks of commands in {SECTION:?}", blocks.len());
    Ok(blocks)
}

fn type_all(blocks: &[String], operator: &Client, root: &Path) -> Result<usize> {
    settled(operator)?;
    let mut shell = Shell::start(root)?;
    for block in blocks {
        let before = downs(operator)?;
        shell.type_block(block)?;
        if let Some(kill) = block.lines().find(|line| line.trim_start().starts_with("kill ")) {
            // Once as the README says, once more at once: neither waits for a brake.
            lost_and_back(operator, before)?;
            let again = downs(operator)?;
            shell.type_block(kill)?;
            lost_and_back(operator, again)?;
        }
    }
    Ok(blocks.len())
}

/// Waits until everybody is there: the demo has only just begun.
fn settled(operator: &Client) -> Result<()> {
    until("the agent that is yours is up", || Ok(operator.workspaces()?.iter().any(is_up)))
}

fn is_up(row: &Value) -> bool {
    row["name"] == "steady-eddie" && row["status"] == "online"
}

/// Waits until the README's agent was found offline, as often as `before` and once more, and is online again.
fn lost_and_back(operator: &Client, before: usize) -> Result<()> {
    until("the killed agent is offline", || Ok(downs(operator)? > before))?;
    until("the killed agent is online again", || Ok(is_up(&eddie(operator)?)))
}

/// The agent that the README plays with.
fn eddie(operator: &Client) -> Result<Value> {
    let rows = operator.workspaces()?;
    rows.into_iter().find(|row| row["name"] == "steady-eddie").context("nobody is named steady-eddie")
}

/// How often it went offline.
fn downs(operator: &Client) -> Result<usize> {
    let id = eddie(operator)?["id"].as_str().unwrap_or_default().to_owned();
    let events = operator.get(&format!("/events/{id}?limit=500"))?.body;
    Ok(events.as_array().into_iter().flatten().filter(|event| event["to"] == "offline").count())
}

fn until(what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let patience = Instant::now() + PROMISE_PATIENCE;
    while !so()? {
        ensure!(Instant::now() < patience, "not within {PROMISE_PATIENCE:?}: {what}");
        thread::sleep(NAP);
    }
    Ok(())
}

/// One shell for all blocks: what one of them sets, the next one has.
struct Shell {
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start(root: &Path) -> Result<Self> {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(root);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPRAG_"))
        {
            command.env_remove(name);
        }
        let mut shell = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdin = shell.stdin.take().context("the shell has no standard input")?;
        let stdout = shell.stdout.take().context("the shell has no standard output")?;
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
            let _ = shell.wait();
        });
        let mut shell = Self { stdin, lines };
        shell.write("exec 2>&1; set -e -o pipefail\n")?;
        Ok(shell)
    }

    /// Any command that fails ends the shell, and that is an error here.
    fn type_block(&mut self, block: &str) -> Result<()> {
        let started = Instant::now();
        self.write(&format!("{block}\necho '{MARK}'\n"))?;
        let mut said = Vec::new();
        loop {
            let patience = BLOCK_PATIENCE.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(patience) {
                Ok(line) if line == MARK => return Ok(()),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not over in {BLOCK_PATIENCE:?}:\n{block}{}", said.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => bail!("a command failed:\n{block}{}", said.join("\n")),
            }
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.stdin.write_all(text.as_bytes()).context("the shell is gone")
    }
}
