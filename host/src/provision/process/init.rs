//! The first process of a box (`sprag box-init DIR`), as init is the first one of
//! a machine: the agent's parent, the leader of its process group, and whoever
//! adopts what the agent's children leave behind. However they part with their
//! parents, sessions and standard streams, they stay below it. When the agent has
//! ended, or the supervisor, it ends everything that is left, and itself.
//!
//! It holds the box's lock (its standard output) beside the supervisor, so that
//! the end of either leaves the other time to clear up. Nothing below it has it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getpgrp, getpid, set_child_subreaper, setsid};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::files;
use super::place::{Exit, Place, Run, TOKEN};
use super::proc::{self, Children, Proc};
use super::supervisor::{Job, MOST, Word};
use crate::clock;

/// The hidden verb of the `sprag` binary.
pub const VERB: &str = "box-init";

/// What a box's init hears of.
struct Heard {
    child: Signals,
    terminate: Signals,
    /// Caught, or they would end it before the agent's end is written down. A caught
    /// signal is an ordinary one again in the agent; an ignored one would not be.
    _others: [Signals; 2],
}

/// Runs one box's agent from its start to the end of all that it started.
///
/// # Errors
/// What kept it from starting anything.
pub async fn init(dir: &Path) -> io::Result<()> {
    let place = Place { dir: dir.to_owned() };
    // The supervisor's end of this is closed when the supervisor is gone, however it went.
    let mut link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = String::new();
    io::Read::take(BufReader::new(&link), MOST).read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    let heard = Heard {
        child: signal(SignalKind::child())?,
        terminate: signal(SignalKind::terminate())?,
        _others: [signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?],
    };
    let (word, agent) = match begin(&place, &job)? {
        Ok(agent) => (Word::Started, Some(agent)),
        Err(why) => (Word::Failed { why }, None),
    };
    writeln!(link, "{}", serde_json::to_string(&word)?)?;
    match agent {
        Some(agent) => see_through(&place, agent, heard, link).await,
        None => Ok(()),
    }
}

/// Starts the agent, or says why that can't be done.
fn begin(place: &Place, job: &Job) -> io::Result<Result<Pid, String>> {
    // A process group of its own, which is the box's; and no terminal's signals.
    let _ = setsid();
    if getpgrp() != getpid() {
        return Ok(Err("no process group of its own".to_owned()));
    }
    set_child_subreaper(Some(getpid()))?;
    let pid = getpid().as_raw_pid();
    let began = Proc::of(pid).map(|own| own.began);
    files::remove(&place.exit_file())?;
    // Before the agent is there, so that it can be stopped from its first moment.
    let (key, registry_id) = (job.key.clone(), job.registry_id.clone());
    files::write(&place.run_file(), &Run { fence: job.fence, key, registry_id, pid, began })?;
    // After it, so that whoever finds this run clears the token away.
    if let Some(token) = job.env.get(TOKEN) {
        files::write_secret(&place.token_file(), token)?;
    }
    match spawn(place, job) {
        Ok(agent) => Ok(Ok(Pid::from_child(&agent))),
        Err(e) => {
            files::forget_secret(&place.token_file())?;
            files::remove(&place.run_file())?;
            Ok(Err(format!("{}: {e}", job.program)))
        }
    }
}

fn spawn(place: &Place, job: &Job) -> io::Result<Child> {
    let log = files::log(&place.log())?;
    let mut command = Command::new(&job.program);
    command
        .args(&job.args)
        .env_clear()
        .envs(&job.env)
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn()
}

/// Until the agent or the supervisor has ended; then nothing of the box is left.
async fn see_through(place: &Place, agent: Pid, mut heard: Heard, link: UnixStream) -> io::Result<()> {
    link.set_nonblocking(true)?;
    let mut link = tokio::net::UnixStream::from_std(link)?;
    let mut children = Children::watching(agent);
    loop {
        children.reap();
        if children.ended.is_some() {
            break;
        }
        tokio::select! {
            _ = heard.child.recv() => {}
            _ = heard.terminate.recv() => pass_on(Signal::TERM),
            _ = link.read_u8() => break,
        }
    }
    children.end();
    // Last: a box whose end is written down has nothing left.
    place.end(&Exit::of(children.ended, clock::now()))
}

/// Who sent us a signal sent it to the whole group; the others below us are told by us.
fn pass_on(signal: Signal) {
    let group = getpgrp().as_raw_pid();
    for other in proc::below(getpid()).into_iter().filter(|proc| proc.group != group) {
        let _ = other.signal(signal);
    }
}
