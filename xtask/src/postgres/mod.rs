//! A throw-away Postgres cluster: a new data directory, a port of its own on
//! the loopback, gone when dropped.

mod fetch;
mod find;
mod owner;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cargo::Workspace;
use crate::postgres::owner::Owner;
use crate::process;

pub use find::Source;

const USER: &str = "sprag";
/// Tests run side by side, each with a pool or two.
const MAX_CONNECTIONS: u32 = 400;
/// How long a cluster may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// A port that was free can be taken before Postgres binds it.
const PORT_TRIES: u32 = 5;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy)]
pub enum Durability {
    /// As in production: what the bench measures.
    On,
    /// Quick: what a test loses, it builds again.
    Off,
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Let commits wait for the disk, as in production
    #[arg(long)]
    durable: bool,
}

/// `cargo xtask postgres`: a cluster for tests that are run by hand.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let durability = if args.durable { Durability::On } else { Durability::Off };
    let mut cluster = Cluster::start(workspace, &args.source, durability)?;
    println!("{}", cluster.url());
    while !process::interrupted() {
        if let Some(status) = cluster.server.0.try_wait()? {
            bail!("Postgres ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(ExitCode::SUCCESS)
}

/// A running cluster.
pub struct Cluster {
    url: String,
    // Stopped before its directory goes: fields are dropped in order.
    server: Server,
    _home: TempDir,
}

impl Cluster {
    /// Finds or gets a Postgres, makes a cluster and waits until it answers.
    pub fn start(workspace: &Workspace, source: &Source, durability: Durability) -> Result<Self> {
        let owner = Owner::choose()?;
        let home = owner.home()?;
        let bin = owner.reachable(&find::bin(source, &workspace.target)?, home.path())?;
        let password = process::random_hex(16)?;
        init(&bin, home.path(), &owner, &password)?;

        let log = home.path().join("log");
        for _ in 0..PORT_TRIES {
            let port = free_port()?;
            let mut server = Server::launch(&bin, home.path(), &owner, port, durability)?;
            match server.wait_until_ready(port) {
                Ok(()) => {
                    let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres");
                    return Ok(Self { url, server, _home: home });
                }
                Err(_) if process::tail(&log).contains("Address already in use") => {}
                Err(error) => bail!("Postgres does not start: {error:#}\n{}", process::tail(&log)),
            }
        }
        bail!("no port stayed free for Postgres in {PORT_TRIES} tries:\n{}", process::tail(&log))
    }

    /// A superuser's URL of the database `postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The `postgres` process; a fast shutdown on drop.
struct Server(Child);

impl Server {
    fn launch(bin: &Path, home: &Path, owner: &Owner, port: u16, durability: Durability) -> Result<Self> {
        let log = fs::File::create(home.join("log")).context("cannot create Postgres's log")?;
        let mut command = Command::new(bin.join("postgres"));
        command.arg("-D").arg(home.join("data")).arg("-k").arg(home);
        // Whoever runs it in production gives it more than initdb's 128 MB, which
        // the bench's tables alone outgrow.
        let (fsync, full_pages, buffers) = match durability {
            Durability::On => ("on", "on", "1GB"),
            Durability::Off => ("off", "off", "128MB"),
        };
        for (name, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
            ("max_connections", &MAX_CONNECTIONS.to_string()),
            ("fsync", fsync),
            ("synchronous_commit", fsync),
            ("full_page_writes", full_pages),
            ("shared_buffers", buffers),
            ("logging_collector", "off"),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        owner.own(&mut command, home);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(process::spawn(&mut command)?))
    }

    fn wait_until_ready(&mut self, port: u16) -> Result<()> {
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until && !process::interrupted() {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended: {status}");
            }
            if greets(port) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no answer in {START_PATIENCE:?}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = process::stop(&mut self.0, Signal::SIGINT, STOP_PATIENCE) {
            eprintln!("xtask: Postgres could not be stopped: {error}");
        }
    }
}

fn init(bin: &Path, home: &Path, owner: &Owner, password: &str) -> Result<()> {
    let secret = home.join("password");
    fs::write(&secret, password)?;
    owner.give(&secret)?;
    let mut command = Command::new(bin.join("initdb"));
    command.arg("-D").arg(home.join("data"));
    command.args(["-U", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]);
    command.arg(format!("--pwfile={}", secret.display()));
    owner.own(&mut command, home);
    process::run_quiet(&mut command).context("cannot make a Postgres cluster")?;
    fs::remove_file(secret)?;
    Ok(())
}

/// Whether a server on that port asks for a password: it takes connections by then,
/// where one that is still starting answers with an error.
fn greets(port: u16) -> bool {
    let hello = |stream: &mut TcpStream| -> std::io::Result<u8> {
        let body = format!("user\0{USER}\0database\0postgres\0\0");
        let length = u32::try_from(body.len() + 8).unwrap_or_default();
        let version = 3_u32 << 16;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream
            .write_all(&[&length.to_be_bytes()[..], &version.to_be_bytes()[..], body.as_bytes()].concat())?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(2))
        .and_then(|mut stream| hello(&mut stream))
        .is_ok_and(|kind| kind == b'R')
}

/// A loopback port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}
