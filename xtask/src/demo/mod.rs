//! `cargo xtask demo`: a host on SQLite with the shipped policies, and a handful
//! of simulated agents whose statuses change before your eyes.

mod agents;
mod client;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::cargo::Workspace;
use crate::demo::agents::{Agent, CAST};
use crate::demo::client::Client;
use crate::{policies, process};

#[derive(clap::Args)]
pub struct Args {
    /// Where the host listens; another port of that address where it is taken
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDR")]
    listen: SocketAddr,
}

/// How long the host may take until it is ready: its policies are compiled first.
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policies = policies::build(workspace)?;
    process::run_ok(workspace.members("build").args(["--bin", "sprag"]))?;

    let stage = Stage::new(workspace, args.listen)?;
    let mut host = stage.start_host(&workspace.target.join("debug/sprag"), &policies)?;
    let operator = Client::new(&stage.url(), &stage.token);
    host.wait_until_ready(&operator)?;
    stage.print_guide();

    let began = Instant::now();
    let mut threads = Vec::new();
    for role in &CAST {
        let (id, token) = operator.create(role.name, role.kind)?;
        threads.push(Agent { role, id, client: operator.with_token(&token), began }.play());
    }
    while !process::interrupted() {
        host.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("\nstopping; {} heartbeats were answered", agents::heartbeats());
    for thread in threads {
        if thread.join().is_err() {
            bail!("an agent panicked");
        }
    }
    host.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Where the demo takes place: a folder made anew, an address, a token.
struct Stage {
    home: PathBuf,
    listen: SocketAddr,
    token: String,
}

impl Stage {
    fn new(workspace: &Workspace, wanted: SocketAddr) -> Result<Self> {
        let home = workspace.target.join("demo");
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot empty {}", home.display()))?;
        }
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let token = process::random_hex(32)?;
        let place = home.join("admin-token");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
        file.write_all(token.as_bytes())?;
        Ok(Self { home, listen: free_address(wanted)?, token })
    }

    fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    fn start_host(&self, program: &Path, policies: &Path) -> Result<Host> {
        let log = self.home.join("host.log");
        let out = fs::File::create(&log).context("cannot create the host's log")?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--registration", "open", "--listen", &self.listen.to_string()])
            .arg("--database-url")
            .arg(format!("sqlite:{}", self.home.join("sprag.db").display()))
            .arg("--policy-dir")
            .arg(policies)
            .env("SPRAG_ADMIN_TOKEN", &self.token)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        Ok(Host { child: process::spawn(&mut command)?, log })
    }

    fn print_guide(&self) {
        let (url, home) = (self.url(), shown(&self.home));
        let admin = format!("-H \"authorization: Bearer $(cat {home}/admin-token)\"");
        println!(
            "\nThe host is up: {url} (its log: {home}/host.log)\n\n\
             In another shell:\n  \
             curl {admin} {url}/workspaces\n  \
             curl {admin} {url}/events\n  \
             curl {admin} {url}/decisions/ID      (an ID from the lines below)\n  \
             curl -N {admin} {url}/events/stream\n\n\
             To try next: remove a workspace, and see its agent leave\n  \
             curl -X DELETE {admin} {url}/workspaces/ID\n\
             or change a threshold in policies/ and run `cargo xtask policies`: the host takes it over as it runs.\n\n\
             Ctrl-C ends it all.\n"
        );
    }
}

/// The running host; stopped on drop.
struct Host {
    child: Child,
    log: PathBuf,
}

impl Host {
    fn wait_until_ready(&mut self, client: &Client) -> Result<()> {
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until {
            self.check()?;
            if process::interrupted() {
                bail!("interrupted");
            }
            if client.is_ready() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the host was not ready in {START_PATIENCE:?}:\n{}", self.said())
    }

    /// Fails where the host has ended by itself.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the host ended ({status}):\n{}", self.said()),
            None => Ok(()),
        }
    }

    fn stop(mut self) -> Result<()> {
        let status = process::stop(&mut self.child, Signal::SIGTERM, STOP_PATIENCE)?;
        if !status.success() {
            bail!("the host did not stop well ({status}):\n{}", self.said());
        }
        Ok(())
    }

    fn said(&self) -> String {
        process::tail(&self.log)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = process::stop(&mut self.child, Signal::SIGTERM, STOP_PATIENCE) {
            eprintln!("xtask: the host could not be stopped: {error}");
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

/// Relative to where one stands, when it lies below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
