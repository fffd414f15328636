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

mod boxes;
mod cast;
mod client;
mod host;
mod play;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cargo::Workspace;
use crate::demo::boxes::Boxes;
use crate::demo::client::Client;
use crate::demo::host::Stage;
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

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let built = policies::build(workspace)?;
    process::run_ok(workspace.members("build").args(["--bin", "sprag"]))?;
    let program = workspace.target.join("debug/sprag");

    let stage = Stage::new(&workspace.target)?;
    let policies = stage.policies(&built)?;
    // Before the host, and so dropped after it: whatever happens, no agent is left.
    let boxes = Boxes::in_dir(&stage.home);
    let listen = free_address(args.listen)?;
    let mut host = stage.start_host(&program, listen, &policies, &boxes)?;
    let url = format!("http://{listen}");
    let operator = Client::new(&url, &stage.token);
    host.wait_until_ready(&operator)?;
    print_guide(&url, &stage.home, &program);

    let began = Instant::now();
    let (heard, events) = mpsc::channel();
    let mut play = Play::new(&operator, &boxes, began, events)?;
    let told = tell_events(operator.clone(), began, play.names(), heard);
    while !process::interrupted() {
        host.check()?;
        play.go_on();
        thread::sleep(NAP);
    }
    println!("\nstopping: the workspaces are removed, so that their agents are stopped");
    if let Err(error) = remove_all(&operator) {
        eprintln!("xtask: {error:#}");
    } else if !boxes.wait_until_gone(GONE_PATIENCE) {
        eprintln!("xtask: not every agent was stopped within {GONE_PATIENCE:?}");
    }
    host.stop()?;
    // The stream ends with the host.
    let _ = told.join();
    Ok(ExitCode::SUCCESS)
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
            removed += usize::from(operator.delete(&format!("/workspaces/{id}"))?.code == 200);
        }
        if removed == 0 {
            return Ok(());
        }
    }
}

fn print_guide(url: &str, home: &Path, program: &Path) {
    let (shown, home) = (shown(home), home.display());
    println!(
        "\nThe host is up: {url}  (its log: {shown}/host.log, its configuration: {shown}/sprag.toml)\n\n\
         In another shell:\n  \
         alias sprag={program}\n  \
         export SPRAG_URL={url} SPRAG_ADMIN_TOKEN_FILE={home}/admin-token\n  \
         sprag workspace list\n  \
         sprag workspace restart ID --wait             (stop, start, every step of it)\n  \
         sprag workspace switch-provider ID --to other --wait\n  \
         sprag workspace pause ID --wait; sprag workspace resume ID --wait\n  \
         sprag claim list ID\n  \
         sprag workspace create mine --provider local --wait\n\n  \
         admin() {{ curl -sS -H \"authorization: Bearer $(cat {home}/admin-token)\" \"$@\"; }}\n  \
         admin -N {url}/events/stream\n  \
         admin {url}/decisions/ID      (an ID from the lines below)\n\n\
         What an agent says of itself is its control file. Nobody touches steady-eddie: it is yours.\n  \
         echo '{{\"error_rate\": 0.9}}' > {shown}/agents/steady-eddie/control.json\n  \
         ({shown}/agents/NAME is the box that an agent runs in now; its log is agent.log there)\n\n\
         Or kill it: the demo says with which command, for each box that it gets. Within 2 s the host finds out\n\
         that the box is not running, within 5 s that an agent is silent, and starts it again in a new one.\n\
         (Not twice within 10 s: that is the cooldown of restarts, and it stays offline for a while.)\n\
         Kill five or more at once, and the brake holds the last of them:\n  \
         sprag brake; sprag brake release; sprag loops\n\n\
         Or change a threshold in {shown}/policies/policies.toml: the host takes it over as it runs.\n\
         Ctrl-C ends it all, the agents too. Below, * is what the demo does; the rest is what the host says.\n",
        program = program.display(),
    );
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

/// Relative to where one stands, when it lies below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
