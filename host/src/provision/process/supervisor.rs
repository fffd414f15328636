//! The small process between the host and a box (`sprag box-supervisor DIR`). It
//! outlives the host that started it, holds the box's lock, and lets go of it
//! when nothing of the box is left. It restarts nothing: that is the registry's
//! to decide.
//!
//! Below it is the box's init (`init`), and below that the agent. The supervisor
//! is not of the box's process group: whatever is killed, one of the two is there
//! to end the rest. What it shall do comes on its standard input, so that the
//! agent's token is in nobody's arguments, nor on disk but in the box. What became of it
//! is one line on its standard output.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid, set_child_subreaper, setsid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::files;
use super::init;
use super::journal::Journal;
use super::place::{Exit, Place};
use super::proc::Children;
use crate::clock;
use crate::provision::Fence;

/// The hidden verb of the `sprag` binary.
pub const VERB: &str = "box-supervisor";

/// How long those who only ask may keep us from the lock.
const PATIENCE: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(5);

/// Bytes of a job.
pub(super) const MOST: u64 = 1 << 20;

/// What a supervisor is told. It holds a token: it is not to be shown.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub fence: Fence,
    pub key: String,
    #[serde(default)]
    pub registry_id: Option<String>,
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
    // No terminal's signals; and what the box's init can't end any more comes to us.
    let _ = setsid();
    set_child_subreaper(Some(getpid()))?;
    let mut text = Vec::new();
    io::stdin().lock().take(MOST).read_to_end(&mut text)?;
    let job: Job = serde_json::from_slice(&text)?;
    let place = Place { dir: dir.to_owned() };
    let Some(lock) = lock(&place)? else { return say(&Word::Held) };
    if let Some(word) = reason_not_to(&place, &job)? {
        return say(&word);
    }
    // Who ends when the others do must outlast what ends them.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    let mut ended = signal(SignalKind::child())?;
    let (own, theirs) = UnixStream::pair()?;
    let init = start_init(&place, &lock, theirs)?;
    let mut children = Children::watching(Pid::from_child(&init));
    match ask(&own, &job)? {
        Some(word) => say(&word)?,
        None => tracing::error!("the box's init ended without a word"),
    }
    // Its end of the link stays open, or the init would take us for gone.
    while children.reap() && children.ended.is_none() {
        ended.recv().await;
    }
    children.end();
    if place.run()?.is_some() && files::read::<Exit>(&place.exit_file())?.is_none() {
        // Its init was killed before it could say how the agent ended: as it did itself.
        place.end(&Exit::of(children.ended, clock::now()))?;
    }
    drop((own, lock));
    Ok(())
}

/// Why the agent is not to be started, if so.
///
/// The lock comes first, then the look at the journal: whoever accepts a newer
/// fence and then looks at the lock either was seen by us, or sees us.
fn reason_not_to(place: &Place, job: &Job) -> io::Result<Option<Word>> {
    let workspace = place.dir.ancestors().nth(2).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(match Journal::in_dir(workspace).newest()? {
        Some(newest) if newest.fence == job.fence && newest.key == job.key => {
            let already = place.run()?.is_some_and(|run| run.key == job.key);
            already.then_some(Word::Already)
        }
        Some(newest) => Some(Word::Overtaken { accepted: newest.fence }),
        None => Some(Word::Failed { why: "this start was never accepted".to_owned() }),
    })
}

/// The lock goes with it as its standard output, which nothing below it has.
fn start_init(place: &Place, lock: &File, link: UnixStream) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(init::VERB)
        .arg(&place.dir)
        .env_clear()
        .stdin(OwnedFd::from(link))
        .stdout(lock.try_clone()?)
        .stderr(Stdio::inherit());
    command.spawn()
}

/// What the init says to the job. None: it ended before it said anything.
fn ask(mut link: &UnixStream, job: &Job) -> io::Result<Option<Word>> {
    // Of an init that is gone already, the missing answer is enough.
    let _ = writeln!(link, "{}", serde_json::to_string(job)?);
    let mut line = String::new();
    let _ = BufReader::new(link).read_line(&mut line);
    Ok(serde_json::from_str(&line).ok())
}

fn lock(place: &Place) -> io::Result<Option<File>> {
    let lock = files::lock(&place.lock())?;
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
