//! Processes as `/proc` shows them: what is below one of them, which were given
//! a variable, and how all of them are ended.
//!
//! A process is known by its number and when it began: a number that was given
//! away again belongs to a stranger, and no signal of ours reaches that one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open, pidfd_send_signal,
    wait,
};

/// Walks that look for more to freeze before what is frozen is killed.
const FREEZES: usize = 32;

/// The longest pause between two looks at what won't go.
const MOST_NAP: Duration = Duration::from_millis(250);

/// One line of `/proc/PID/stat` (proc_pid_stat(5)), as far as we need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proc {
    pub pid: Pid,
    parent: i32,
    pub group: i32,
    /// In the kernel's ticks since the machine began.
    pub began: u64,
    /// It has ended, and nobody has asked how.
    ended: bool,
}

impl Proc {
    /// None: there is no such process, or this system does not tell.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, field 2, may hold blanks and parentheses: the count begins behind its last one.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field)?.parse().ok();
        Some(Self {
            pid: Pid::from_raw(pid)?,
            parent: number(1)?,
            group: number(2)?,
            began: fields.get(19)?.parse().ok()?,
            ended: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Sends a signal to this process and to no other that has its number by now.
    /// One that is gone needs none.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let still = || Proc::of(self.pid.as_raw_pid()).is_some_and(|now| now.began == self.began);
        let sent = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(_) if !still() => return Ok(()),
            Ok(handle) => pidfd_send_signal(handle, signal),
            Err(Errno::SRCH) => return Ok(()),
            // An old kernel: as good as it gets.
            Err(_) if still() => kill_process(self.pid, signal),
            Err(_) => return Ok(()),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn all() -> Vec<Proc> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Proc::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// What is below a process and has not ended, those nearest to it first.
pub fn below(top: Pid) -> Vec<Proc> {
    let mut by_parent: HashMap<i32, Vec<Proc>> = HashMap::new();
    for proc in all() {
        by_parent.entry(proc.parent).or_default().push(proc);
    }
    let mut found = by_parent.remove(&top.as_raw_pid()).unwrap_or_default();
    let mut next = 0;
    while let Some(proc) = found.get(next) {
        let children = by_parent.remove(&proc.pid.as_raw_pid());
        found.extend(children.unwrap_or_default());
        next += 1;
    }
    found.retain(|proc| !proc.ended);
    found
}

/// The processes that began with this variable in their environment, and have not
/// ended. Those of other users can't be seen.
pub fn given(variable: &str, value: &str) -> Vec<Proc> {
    let wanted = format!("{variable}={value}");
    let has = |proc: &Proc| {
        let environment = fs::read(format!("/proc/{}/environ", proc.pid.as_raw_pid())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
    };
    all().into_iter().filter(|proc| !proc.ended && has(proc)).collect()
}

/// Kills what `look` finds, in a way that nothing outruns: whatever forks is
/// stopped first, until a look finds nothing new.
pub fn kill_all(look: impl Fn() -> Vec<Proc>) {
    let mut frozen: Vec<Proc> = Vec::new();
    for _ in 0..FREEZES {
        let new: Vec<_> = look().into_iter().filter(|proc| !frozen.contains(proc)).collect();
        if new.is_empty() {
            break;
        }
        for proc in &new {
            let _ = proc.signal(Signal::STOP);
        }
        frozen.extend(new);
    }
    for proc in frozen {
        let _ = proc.signal(Signal::KILL);
    }
}

/// The children of this process, one of which is watched. Those that lost their
/// parents are among them, where this process adopts them.
pub struct Children {
    watched: Pid,
    /// How the watched one ended.
    pub ended: Option<WaitStatus>,
}

impl Children {
    pub fn watching(watched: Pid) -> Self {
        Self { watched, ended: None }
    }

    /// Buries every child that has ended; false: there is no child any more.
    pub fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.watched => self.ended = Some(status),
                Ok(Some(_)) => {}
                Ok(None) | Err(Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Ends everything that is below this process, and returns when nothing is
    /// left: what can't be killed is waited for. Blocks.
    pub fn end(&mut self) {
        let mut nap = Duration::from_millis(1);
        while self.reap() {
            kill_all(|| below(getpid()));
            std::thread::sleep(nap);
            nap = (nap * 2).min(MOST_NAP);
        }
    }
}
