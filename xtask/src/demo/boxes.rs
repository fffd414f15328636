//! The boxes of the demo's two providers, as they lie on disk: where an agent's
//! control file is, which of them run, and how the last of them is ended.
//!
//! Boxes outlive the host on purpose, so the demo has to end them: by removing
//! their workspaces while the host runs, and whatever is left by its process group.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// The names of the demo's providers.
pub const PROVIDERS: [&str; 2] = ["local", "other"];

const NAP: Duration = Duration::from_millis(50);

/// Everything below the demo's folder that is about boxes. Dropping it kills those that run.
pub struct Boxes {
    home: PathBuf,
}

impl Boxes {
    pub fn in_dir(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// A provider's directory.
    pub fn of_provider(&self, provider: &str) -> PathBuf {
        self.home.join("boxes").join(provider)
    }

    /// The directory of the box that a workspace has now, if it has one.
    pub fn of(&self, workspace: &Value) -> Option<PathBuf> {
        let text = |key: &str| workspace[key].as_str();
        let place = self.of_provider(text("provider")?).join(text("id")?);
        Some(place.join("boxes").join(text("instance_id")?)).filter(|dir| dir.is_dir())
    }

    /// Keeps `agents/NAME` a link to that directory, so that a person finds it.
    pub fn link(&self, workspace: &Value) -> Result<()> {
        let (Some(dir), Some(name)) = (self.of(workspace), workspace["name"].as_str()) else { return Ok(()) };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Ok(());
        }
        let link = self.home.join("agents").join(name);
        if fs::read_link(&link).is_ok_and(|old| old == dir) {
            return Ok(());
        }
        let new = self.home.join("agents").join(".new");
        let _ = fs::remove_file(&new);
        symlink(&dir, &new).and_then(|()| fs::rename(&new, &link)).context("cannot link to a box")
    }

    /// Waits until none runs; false where the patience is over first.
    pub fn wait_until_gone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.running().is_empty() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(NAP);
        }
        true
    }

    /// Kills those that run; how many.
    pub fn kill(&self) -> usize {
        let running = self.running();
        for group in running.iter().filter_map(|dir| group_of(dir)) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        running.len()
    }

    /// The directories of those that run: a box holds its lock.
    fn running(&self) -> Vec<PathBuf> {
        let workspaces = PROVIDERS.iter().flat_map(|provider| entries(&self.of_provider(provider)));
        let boxes = workspaces.flat_map(|workspace| entries(&workspace.join("boxes")));
        boxes.filter(|dir| is_held(&dir.join("lock"))).collect()
    }
}

impl Drop for Boxes {
    fn drop(&mut self) {
        match self.kill() {
            0 => {}
            n => eprintln!("xtask: {n} agents were still there and have been killed"),
        }
    }
}

/// Replaces an agent's control file.
pub fn tell(dir: &Path, control: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{control}")?;
    file.persist(dir.join("control.json")).map(drop).context("cannot write a control file")
}

/// The process group of a box that runs.
pub fn group_of(dir: &Path) -> Option<Pid> {
    let run: Value = serde_json::from_slice(&fs::read(dir.join("run.json")).ok()?).ok()?;
    let group = i32::try_from(run["pid"].as_i64()?).ok()?;
    // While its lock is held the group is still that run's.
    is_held(&dir.join("lock")).then(|| Pid::from_raw(group))
}

/// Kills all of a group.
pub fn kill(group: Pid) -> Result<()> {
    killpg(group, Signal::SIGKILL).with_context(|| format!("cannot kill {group}"))
}

fn is_held(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
