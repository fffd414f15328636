//! The demo's host: a folder made anew, a configuration in it, a process.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::demo::boxes::{Boxes, PROVIDERS};
use crate::demo::client::Client;
use crate::process;

/// How long the host may take until it is ready: its policies are compiled first.
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How long the killed agents of a demo before this one may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// What the demo sets otherwise than `policies/policies.toml`: module, setting and
/// value. Its agents heartbeat every second, and nobody watches for long.
const SETTINGS: [(&str, &str, &str); 6] = [
    ("silence", "window", r#""5s""#),
    // Its provider does not lag: who died a second after its last heartbeat is gone.
    ("instances", "grace", r#""1s""#),
    ("instances", "heard-within", r#""1s""#),
    ("restart-recovery", "heard-within", r#""1s""#),
    ("restart-cooldown", "base", r#""3s""#),
    ("restart-cooldown", "factor", "1.0"),
];

/// How the host looks after a handful of agents, and how many may go down at once.
const LOOPS: &str = include_str!("loops.toml");

/// Where the demo takes place.
pub struct Stage {
    pub home: PathBuf,
    pub token: String,
    /// Held as long as this demo runs: another one would empty its folder.
    _lock: File,
}

impl Stage {
    pub fn new(target: &Path) -> Result<Self> {
        fs::create_dir_all(target)?;
        let lock = File::create(target.join(".demo-lock")).context("cannot make the demo's lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another demo runs in {}", target.display()),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the demo"),
        }
        let home = target.join("demo");
        let left = Boxes::in_dir(&home);
        if left.kill() > 0 && !left.wait_until_gone(GONE) {
            bail!("agents of an earlier demo can't be ended; see {}", home.display());
        }
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot empty {}", home.display()))?;
        }
        fs::create_dir_all(home.join("agents"))
            .with_context(|| format!("cannot create {}", home.display()))?;
        let token = process::random_hex(32)?;
        let place = home.join("admin-token");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
        file.write_all(token.as_bytes())?;
        Ok(Self { home, token, _lock: lock })
    }

    /// Puts the policies, as they were built, into a directory of the demo's own.
    pub fn policies(&self, built: &Path) -> Result<PathBuf> {
        let place = self.home.join("policies");
        fs::create_dir_all(&place).context("cannot make the demo's policy directory")?;
        for entry in fs::read_dir(built)? {
            let (from, to) = (entry?.path(), &place);
            let Some(name) = from.file_name() else { continue };
            if name == "policies.toml" {
                fs::write(to.join(name), with_settings(&fs::read_to_string(&from)?)?)?;
            } else {
                fs::copy(&from, to.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
            }
        }
        Ok(place)
    }

    /// Writes the configuration and starts a host with it.
    pub fn start_host(
        &self,
        program: &Path,
        listen: SocketAddr,
        policies: &Path,
        boxes: &Boxes,
    ) -> Result<Host> {
        let config = self.home.join("sprag.toml");
        fs::write(&config, self.configuration(listen, policies, boxes)?)
            .context("cannot write the host's configuration")?;
        let log = self.home.join("host.log");
        let out = File::create(&log).context("cannot create the host's log")?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--config"])
            .arg(config)
            .env("SPRAG_ADMIN_TOKEN", &self.token)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        // A shell that is set up for another host must not change this one.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SPRAG_") && name != "SPRAG_LOG" && name != "SPRAG_ADMIN_TOKEN" {
                command.env_remove(&*name);
            }
        }
        Ok(Host { child: process::spawn(&mut command)?, log })
    }

    fn configuration(&self, listen: SocketAddr, policies: &Path, boxes: &Boxes) -> Result<String> {
        let database = format!("sqlite:{}", self.home.join("sprag.db").display());
        let mut text = format!(
            "listen = {}\ndatabase_url = {}\npolicy_dir = {}\n\n[effects]\ntick_ms = 200\n{LOOPS}",
            quoted(&listen.to_string())?,
            quoted(&database)?,
            quoted(&policies.display().to_string())?,
        );
        for name in PROVIDERS {
            let dir = quoted(&boxes.of_provider(name).display().to_string())?;
            text += &format!(
                "\n[providers.{name}]\ntype = \"process\"\ndir = {dir}\nenv = {{ SPRAG_HEARTBEAT_MS = \"1000\" }}\n"
            );
        }
        Ok(text)
    }
}

/// The listing with [`SETTINGS`] in the place of what it says of them.
fn with_settings(listing: &str) -> Result<String> {
    let (mut module, mut set) = ("", 0);
    let mut lines = Vec::new();
    for line in listing.lines() {
        let (key, value) = line.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
        if key == "module" {
            module = value.trim_matches('"');
        }
        let ours = SETTINGS.iter().find(|(of, name, _)| (*of, *name) == (module, key));
        set += usize::from(ours.is_some());
        lines.push(ours.map_or(line.to_owned(), |(_, name, value)| format!("{name} = {value}")));
    }
    if set != SETTINGS.len() {
        bail!("policies.toml does not name each setting that the demo changes: {SETTINGS:?}");
    }
    Ok(lines.join("\n") + "\n")
}

/// A string as TOML has it, which is as JSON has it.
fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).context("no text")
}

/// The running host; stopped on drop.
pub struct Host {
    child: Child,
    log: PathBuf,
}

impl Host {
    pub fn wait_until_ready(&mut self, client: &Client) -> Result<()> {
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
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the host ended ({status}):\n{}", self.said()),
            None => Ok(()),
        }
    }

    pub fn stop(mut self) -> Result<()> {
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
