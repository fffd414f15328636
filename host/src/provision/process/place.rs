//! The directory of one box, and what can be told from it. A box runs while
//! somebody holds its lock: its supervisor and its init do, from before the agent
//! starts until nothing of the box is left. What the agent starts never has it, so
//! what lives and what can be stopped are one.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group, test_kill_process_group};
use serde::{Deserialize, Serialize};

use super::files;
use super::proc::{self, Proc};
use crate::clock;
use crate::provision::Fence;

/// The variable by which a process is known as a box's: its value is the path of
/// that box's control file, which is no other box's.
pub const MARK: &str = "SPRAG_CONTROL_FILE";

/// The variable that holds the agent's token.
pub const TOKEN: &str = "SPRAG_TOKEN";

/// How long leftovers may take to be gone after SIGKILL.
const SWEEP_PATIENCE: Duration = Duration::from_secs(1);

/// How long a lock may be held by a supervisor that has not started anything yet.
const UNDECIDED: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(5);

/// One run of a box; written before its agent is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The start that this is.
    pub fence: Fence,
    pub key: String,
    /// Whose box it is. None: it was started by a version that did not say.
    #[serde(default)]
    pub registry_id: Option<String>,
    /// The box's init, and the process group that it and the agent are in.
    pub pid: i32,
    /// When that process began, as the kernel counts: a number that was given
    /// away again belongs to a stranger. None: this system does not tell.
    pub began: Option<u64>,
}

/// How a run ended: its agent, or where nobody saw that, its init. Written when
/// nothing of the box is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
}

/// The run that a stop could not end in time.
#[derive(Debug, Serialize, Deserialize)]
pub struct GivenUp {
    pub key: String,
}

impl Exit {
    /// None: nobody saw how.
    pub fn of(status: Option<WaitStatus>, at: u64) -> Self {
        Self {
            code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            at,
        }
    }
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

    /// The agent's token, where agents of the field look for it; there while the box runs.
    pub fn token_file(&self) -> PathBuf {
        self.dir.join(".auth_token")
    }

    /// There where a stop gave up.
    pub fn given_up_file(&self) -> PathBuf {
        self.dir.join("given-up.json")
    }

    /// The run that was begun last.
    pub fn run(&self) -> io::Result<Option<Run>> {
        files::read(&self.run_file())
    }

    /// Writes down that nothing of the box is left, its token included.
    pub fn end(&self, exit: &Exit) -> io::Result<()> {
        let forgotten = files::forget_secret(&self.token_file());
        files::write(&self.exit_file(), exit)?;
        forgotten
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

    /// Whether a stop has killed this run, and not all of it went. What was killed does
    /// nothing more, whenever it goes: it stands in nobody's way.
    pub fn is_given_up(&self) -> io::Result<bool> {
        let given_up: Option<GivenUp> = files::read(&self.given_up_file())?;
        let Some(given_up) = given_up else { return Ok(false) };
        Ok(self.run()?.is_some_and(|run| run.key == given_up.key))
    }

    /// Ends what is left of a box whose supervisor and init were killed at once, so
    /// that nobody could end it; false: somebody holds its lock. Blocks.
    ///
    /// # Errors
    /// Something is left that can't be killed.
    pub fn sweep(&self) -> io::Result<bool> {
        let orderly = || Ok::<_, io::Error>(self.run()?.is_none() || self.exit_file().exists());
        if orderly()? {
            return Ok(!self.is_held()?);
        }
        // With the lock, or what a new supervisor starts would be taken for a leftover.
        let lock = files::lock(&self.lock())?;
        match lock.try_lock() {
            Ok(()) if orderly()? => return Ok(true),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let control = self.control().display().to_string();
        let look = || proc::given(MARK, &control);
        let began = Instant::now();
        let mut swept = false;
        while let left = look()
            && !left.is_empty()
        {
            swept = true;
            if began.elapsed() > SWEEP_PATIENCE {
                let numbers: Vec<_> = left.iter().map(|proc| proc.pid.to_string()).collect();
                let left = numbers.join(", ");
                return Err(io::Error::other(format!("left of an ended box, and not to be killed: {left}")));
            }
            proc::kill_all(look);
            std::thread::sleep(NAP);
        }
        if swept {
            tracing::warn!(dir = %self.dir.display(), "killed what was left of a box without a supervisor");
        }
        self.end(&Exit::of(None, clock::now()))?;
        Ok(true)
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
            let now = Proc::of(pid.as_raw_pid()).map(|proc| proc.began);
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
