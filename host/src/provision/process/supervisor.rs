//! The small process between the host and an agent (`sprag box-supervisor DIR`).
//! It outlives the host that started it, holds the box's lock and passes it on
//! to the agent, and writes down how the agent ended. It restarts nothing: that
//! is the registry's to decide.
//!
//! What it shall do comes on its standard input, so that the agent's token is
//! neither on disk nor in anybody's arguments. What became of it is one line on
//! its standard output.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpgrp, getpid, kill_process_group, setsid};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::files;
use super::journal::Journal;
use super::place::{Exit, Place, Run, began};
use crate::clock;
use crate::provision::Fence;

/// The hidden verb of the `sprag` binary.
pub const VERB: &str = "box-supervisor";

/// How long those who only ask may keep us from the lock.
const PATIENCE: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(5);

/// Bytes of a job.
const MOST: u64 = 1 << 20;

/// What a supervisor is told. It holds a token: it is not to be shown.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub fence: Fence,
    pub key: String,
    pub program: String,
    pub args: Vec<String>,
    /// All of the agent's environment.
    pub env: BTreeMap<String, String>,
}

/// What a supervisor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Started,
    /// This very start has been carried out before.
    Already,
    /// Somebody else has the box's lock.
    Held,
    /// A newer call was accepted; nothing was started.
    Overtaken {
        accepted: Fence,
    },
    /// Nothing was started, and won't be.
    Failed {
        why: String,
    },
}

/// Runs one box from its start to its end. `dir` is the box's directory.
///
/// # Errors
/// What kept it from deciding; nothing was started then.
pub async fn supervise(dir: &Path) -> io::Result<()> {
    // A process group of its own, which is the box; and no terminal's signals.
    let _ = setsid();
    if getpgrp() != getpid() {
        return say(&Word::Failed { why: "no process group of its own".to_owned() });
    }
    let mut text = Vec::new();
    io::stdin().lock().take(MOST).read_to_end(&mut text)?;
    let job: Job = serde_json::from_slice(&text)?;
    let place = Place { dir: dir.to_owned() };
    let Some(lock) = lock(&place)? else { return say(&Word::Held) };
    match begin(&place, &job, &lock).await? {
        Ok(agent) => {
            say(&Word::Started)?;
            see_through(&place, agent).await
        }
        Err(word) => say(&word),
    }
}

/// Starts the agent, unless there is a reason not to.
///
/// The lock comes first, then the look at the journal: whoever accepts a newer
/// fence and then looks at the lock either was seen by us, or sees us.
async fn begin(place: &Place, job: &Job, lock: &File) -> io::Result<Result<Child, Word>> {
    let workspace = place.dir.ancestors().nth(2).ok_or(io::ErrorKind::InvalidInput)?;
    let newest = Journal::in_dir(workspace).newest()?;
    match newest {
        Some(newest) if newest.fence == job.fence && newest.key == job.key => {}
        Some(newest) => return Ok(Err(Word::Overtaken { accepted: newest.fence })),
        None => return Ok(Err(Word::Failed { why: "this start was never accepted".to_owned() })),
    }
    if place.run()?.is_some_and(|run| run.key == job.key) {
        return Ok(Err(Word::Already));
    }
    // What ends the agent must not end us: somebody has to say how it ended.
    // A caught signal is an ordinary one again in the agent; an ignored one would not be.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    files::remove(&place.exit_file())?;
    let pid = getpid().as_raw_pid();
    // Before the agent is there, so that it can be stopped from its first moment.
    files::write(&place.run_file(), &Run { fence: job.fence, key: job.key.clone(), pid, began: began(pid) })?;
    fcntl_setfd(lock, FdFlags::empty())?;
    let spawned = command(place, job).and_then(|mut command| command.spawn());
    match spawned {
        Ok(agent) => Ok(Ok(agent)),
        Err(e) => {
            files::remove(&place.run_file())?;
            Ok(Err(Word::Failed { why: format!("{}: {e}", job.program) }))
        }
    }
}

fn command(place: &Place, job: &Job) -> io::Result<Command> {
    let log = OpenOptions::new().create(true).append(true).open(place.log())?;
    let mut command = Command::new(&job.program);
    command
        .args(&job.args)
        .env_clear()
        .envs(&job.env)
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// Waits for the agent's end and writes it down; what the agent leaves behind goes with it.
async fn see_through(place: &Place, mut agent: Child) -> io::Result<()> {
    let status = agent.wait().await?;
    files::write(&place.exit_file(), &exit(status))?;
    // That is us as well, and the lock is free with the last of us.
    kill_process_group(getpid(), Signal::KILL)?;
    Ok(())
}

fn exit(status: ExitStatus) -> Exit {
    Exit { code: status.code(), signal: status.signal(), at: clock::now() }
}

fn lock(place: &Place) -> io::Result<Option<File>> {
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(place.lock())?;
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(NAP),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// A host that went away hears nothing; that changes nothing.
fn say(word: &Word) -> io::Result<()> {
    let line = serde_json::to_string(word)?;
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    Ok(())
}
