//! The host under load, as a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sprag::config::Config;

use crate::{Kept, required};

/// Where the handler that does nothing listens.
pub const NOOP: &str = "/bench/no-op";

/// How long the host may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    state_dir: std::path::PathBuf,
}

/// Runs a host with the default configuration and one more route, until SIGTERM.
pub fn run(args: &Args) -> Result<Kept> {
    let config = Config {
        listen: args.listen,
        database_url: required("SPRAG_DATABASE_URL")?,
        policy_dir: Some(required("SPRAG_TEST_POLICY_DIR")?.into()),
        state_dir: Some(args.state_dir.clone()),
        ..Config::default()
    };
    let also = Router::new().route(NOOP, post(noop));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(sprag::cli::serve::host(config, Some("an-admin-token-of-nobody".to_owned()), also))?;
    Ok(true)
}

/// A heartbeat as it is sent.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
struct Said {
    workspace_id: String,
    error_rate: f64,
    sample_error: String,
    active_tasks: u32,
    uptime_seconds: u64,
    current_task: String,
    runtime_state: String,
    mcp_server_present: bool,
    model_present: bool,
    loaded_mcp_tools: Vec<String>,
}

/// A heartbeat's answer, as long as a real one.
#[derive(Serialize)]
struct Heard {
    status: &'static str,
    workspace_status: &'static str,
    decision_id: String,
}

/// The heartbeat's JSON in, the heartbeat's JSON out, nothing done.
async fn noop(Json(said): Json<Said>) -> Json<Heard> {
    Json(Heard { status: "ok", workspace_status: "online", decision_id: said.workspace_id })
}

/// The process, killed when dropped.
pub struct Host {
    pub address: SocketAddr,
    child: Child,
}

impl Host {
    /// Starts it on a free port and waits until it is ready.
    pub fn start(database_url: &str, state_dir: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["host", "--listen", &address.to_string(), "--state-dir"])
            .arg(state_dir)
            .env("SPRAG_DATABASE_URL", database_url)
            .process_group(0)
            .spawn()
            .context("starting the host")?;
        let mut host = Self { address, child };
        host.wait_until_ready()?;
        Ok(host)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("the host ended: {status}");
            }
            if is_ready(self.address) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the host is not ready after {PATIENCE:?}")
    }

    /// What the kernel says of the process: resident now, and at most.
    pub fn memory(&self) -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mib = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
            Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
        };
        Ok(format!("{} MiB resident, {} MiB at most", mib("VmRSS")?, mib("VmHWM")?))
    }

    /// SIGTERM, and a clean end.
    pub fn stop(&mut self) -> Result<()> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(told.success(), "could not signal the host");
        let until = Instant::now() + PATIENCE;
        let ended = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => bail!("the host does not stop"),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        ensure!(ExitStatus::success(&ended), "the host failed: {ended}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
