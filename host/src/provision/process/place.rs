//! The directory of one box, and what can be told from it. A box runs while
//! somebody holds its lock: its supervisor and its agent do, from before the
//! agent starts until both are gone.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde::{Deserialize, Serialize};

use super::files;
use crate::provision::Fence;

/// How long a lock may be held by a supervisor that has not started anything yet.
const UNDECIDED: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(5);

/// One run of a box; written before its agent is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The start that this is.
    pub fence: Fence,
    pub key: String,
    /// The supervisor, and the process group that it and the agent are in.
    pub pid: i32,
    /// When that process began, as the kernel counts: a number that was given
    /// away again belongs to a stranger. None: this system does not tell.
    pub began: Option<u64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
}

/// The directory of one box.
#[derive(Clone, Debug)]
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    /// `name` is the file name of the instance.
    pub fn of(workspace: &Path, name: &str) -> Self {
        Self { dir: workspace.join("boxes").join(name) }
    }

    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    pub fn control(&self) -> PathBuf {
        self.dir.join("control.json")
    }

    pub fn plugins(&self) -> PathBuf {
        self.dir.join("plugins.json")
    }

    pub fn run_file(&self) -> PathBuf {
        self.dir.join("run.json")
    }

    pub fn exit_file(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// The run that was begun last.
    pub fn run(&self) -> io::Result<Option<Run>> {
        files::read(&self.run_file())
    }

    /// Whether the lock is held. A shared lock asks, so that those who ask don't see each other.
    pub fn is_held(&self) -> io::Result<bool> {
        let lock = match File::open(self.lock()) {
            Ok(lock) => lock,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Whether the box runs, and not merely its lock is held: a supervisor that
    /// came too late holds it for as long as it takes to notice. Blocks.
    pub fn runs(&self) -> io::Result<bool> {
        let began = Instant::now();
        while self.is_held()? {
            let alive = self.run()?.is_some_and(|run| run.is_alive());
            if alive || began.elapsed() > UNDECIDED {
                return Ok(true);
            }
            std::thread::sleep(NAP);
        }
        Ok(false)
    }
}

impl Run {
    fn group(&self) -> Option<Pid> {
        Pid::from_raw(self.pid).filter(|pid| {
            let now = began(pid.as_raw_pid());
            now.is_none() || self.began.is_none() || now == self.began
        })
    }

    fn is_alive(&self) -> bool {
        self.group().is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    /// Sends a signal to all of the box; one that is gone needs none.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        match kill_process_group(group, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// When a process began, in the kernel's ticks since the machine did: field 22
/// of `/proc/PID/stat` (proc_pid_stat(5)). The name, field 2, may hold blanks
/// and parentheses, so the count begins behind its last one.
pub fn began(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}
