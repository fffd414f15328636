//! `cargo xtask demo`: a host on SQLite with the shipped policies and two
//! providers of local processes, a handful of agents in boxes of theirs, and an
//! operator, so that statuses and claims come and go before your eyes. Some agents
//! die or fall silent, and the host finds that out and starts them again.
//!
//! | File | Holds |
//! |---|---|
//! | `cast` | who plays, and what is done to each |
//! | `play` | does it, and prints it beside the host's events |
//! | `boxes` | the agents' directories; ends what is left of them |
//! | `host` | the folder, the configuration, the process |
//! | `client` | the little of HTTP that an operator needs |
//! | `guide` | what a person is told: the lines at its start, and a file for their shell |
//! | `readme` | the commands of the README's five minutes, run against it |

mod boxes;
mod cast;
mod client;
mod guide;
mod host;
mod play;
pub mod readme;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cargo::Workspace;
use crate::demo::boxes::Boxes;
use crate::demo::client::Client;
use crate::demo::host::{Host, Stage};
use crate::demo::play::{Heard, Play};
use crate::{policies, process};

#[derive(clap::Args)]
pub struct Args {
    /// Where the host listens; another port of that address where it is taken
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDR")]
    listen: SocketAddr,
}

/// How long the boxes may take to be stopped when their workspaces are removed.
const GONE_PATIENCE: Duration = Duration::from_secs(20);
const NAP: Duration = Duration::from_millis(100);

/// Said before the first build, which is silent for long stretches.
const FIRST_BUILD: &str = "\
The first build compiles the policies, and then the host with wasmtime and some 400 crates:
about 8 minutes on 2 cores, and 4 GB of room in target/. The next one takes seconds.
";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let demo = Demo::start(workspace, args.listen)?;
    guide::print(&demo.stage.home);
    demo.play_until(process::interrupted)?;
    Ok(ExitCode::SUCCESS)
}

/// A host that runs on a stage made anew, and its operator.
struct Demo {
    host: Host,
    operator: Client,
    // Behind the host, and so dropped after it: whatever happens, no agent is left.
    boxes: Boxes,
    stage: Stage,
}

impl Demo {
    /// Builds what it takes, starts the host, and waits until it is ready.
    fn start(workspace: &Workspace, listen: SocketAddr) -> Result<Self> {
        let program = workspace.target.join("debug/sprag");
        if !program.exists() {
            println!("{FIRST_BUILD}");
        }
        let built = policies::build(workspace)?;
        process::run_ok(workspace.members("build").args(["--bin", "sprag"]))?;

        let stage = Stage::new(&workspace.target)?;
        let policies = stage.policies(&built)?;
        let boxes = Boxes::in_dir(&stage.home);
        let listen = free_address(listen)?;
        let host = stage.start_host(&program, listen, &policies, &boxes)?;
        let url = format!("http://{listen}");
        guide::write_env(&stage.home, &url, &program)?;
        let operator = Client::new(&url, &stage.token);
        let mut demo = Self { host, operator, boxes, stage };
        demo.host.wait_until_ready(&demo.operator)?;
        Ok(demo)
    }

    /// Plays, and tells what happens, until `over`; then removes every workspace, so
    /// that its agent is stopped, and stops the host.
    fn play_until(mut self, over: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        let (heard, events) = mpsc::channel();
        let mut play = Play::new(&self.operator, &self.boxes, began, events)?;
        let told = tell_events(self.operator.clone(), began, play.names(), heard);
        while !over() {
            self.host.check()?;
            play.go_on();
            thread::sleep(NAP);
        }
        println!("\nstopping: the workspaces are removed, so that their agents are stopped");
        if let Err(error) = remove_all(&self.operator) {
            eprintln!("xtask: {error:#}");
        } else if !self.boxes.wait_until_gone(GONE_PATIENCE) {
            eprintln!("xtask: not every agent was stopped within {GONE_PATIENCE:?}");
        }
        self.host.stop()?;
        // The stream ends with the host.
        let _ = told.join();
        Ok(())
    }
}

/// In a thread of its own, until the host is gone.
fn tell_events(
    operator: Client,
    began: Instant,
    names: HashMap<String, String>,
    heard: mpsc::Sender<Heard>,
) -> thread::JoinHandle<Result<()>> {
    thread::spawn(move || {
        operator.events(|event| {
            play::tell_event(began, &names, event);
            // Nobody plays any more once it all comes to its end.
            let _ = heard.send(Heard { at: Instant::now(), event: event.clone() });
        })
    })
}

/// Removes every workspace, also those that a person made beside ours.
fn remove_all(operator: &Client) -> Result<()> {
    loop {
        let rows = operator.workspaces()?;
        let mut removed = 0;
        for id in rows.iter().filter_map(|row| row["id"].as_str()) {
            // What lay below another one is gone with it: 410.
            removed += usize::from(operator.delete(&format!("/workspaces/{id}?cascade=true"))?.code == 200);
        }
        if removed == 0 {
            return Ok(());
        }
    }
}

/// The wanted address, or another port of it where it is taken.
fn free_address(wanted: SocketAddr) -> Result<SocketAddr> {
    match TcpListener::bind(wanted) {
        Ok(listener) => Ok(listener.local_addr()?),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let other = TcpListener::bind((wanted.ip(), 0))?.local_addr()?;
            println!("{wanted} is taken; the host listens on {other}");
            Ok(other)
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {wanted}")),
    }
}
