//! What a workspace's calls came to, on disk: the fence that was accepted last,
//! and the keys that were finished with their answers. The three rules of
//! [`crate::provision`] are here and nowhere else.
//!
//! The file is replaced whole under a file lock, which is held for as long as it
//! takes to read and write it and not while a box is started or stopped: a host
//! that hangs in a call must not keep another one from fencing it off.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files;
use crate::provision::{Call, Fence, ProviderError};

/// Finished keys that are kept. One that was forgotten is older than the
/// accepted fence, so a repeat of it is stale and does nothing either.
const KEPT: usize = 64;

/// How long another host may hold the lock before we give up.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(5);

/// A fence and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub fence: Fence,
    pub key: String,
}

/// How a call ended for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done(Value),
    Refused { code: String, detail: String },
}

/// Whether a call is to be carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It is accepted: go on.
    Go,
    /// It was finished before, like this.
    Replay(Outcome),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    accepted: Option<Accepted>,
    finished: VecDeque<Finished>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    key: String,
    what: String,
    outcome: Outcome,
}

/// The journal of one workspace.
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// The journal in a workspace's directory, which need not exist yet.
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The call that was accepted last. Needs no lock: the file is replaced whole.
    pub fn newest(&self) -> io::Result<Option<Accepted>> {
        Ok(self.read()?.accepted)
    }

    /// Takes the journal for oneself. Blocks.
    ///
    /// # Errors
    /// A directory that can't be used, or another host that holds on to it.
    pub fn open(&self) -> io::Result<Open> {
        files::make_dir(&self.dir)?;
        let lock = files::lock(&self.dir.join("lock"))?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(NAP),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Open { state: self.read()?, file: self.file(), _lock: lock })
    }

    /// What can't be read is an error, not an empty journal: that would accept anything.
    fn read(&self) -> io::Result<State> {
        Ok(files::read(&self.file())?.unwrap_or_default())
    }

    fn file(&self) -> PathBuf {
        self.dir.join("journal.json")
    }
}

/// The journal while nobody else has it.
pub struct Open {
    state: State,
    file: PathBuf,
    _lock: File,
}

impl Open {
    /// The three rules. `what` is the call in words: under another one a key is no repeat.
    ///
    /// # Errors
    /// [`ProviderError::Stale`]; a key that is used twice; a disk that fails.
    pub fn admit(&mut self, call: &Call, what: &str) -> Result<Admission, ProviderError> {
        if let Some(before) = self.state.finished.iter().find(|f| f.key == call.key) {
            if before.what != what {
                let detail = format!("key {:?} was used to {}, not to {what}", call.key, before.what);
                return Err(ProviderError::Refused { code: "key_reused".to_owned(), detail });
            }
            return Ok(Admission::Replay(before.outcome.clone()));
        }
        if let Some(accepted) = &self.state.accepted {
            let repeat = call.fence == accepted.fence && call.key == accepted.key;
            if call.fence <= accepted.fence && !repeat {
                return Err(ProviderError::Stale { accepted: accepted.fence });
            }
        }
        self.state.accepted = Some(Accepted { fence: call.fence, key: call.key.clone() });
        files::write(&self.file, &self.state).map_err(super::unknown)?;
        Ok(Admission::Go)
    }

    /// Keeps what an admitted call came to. The first outcome of a key stays.
    pub fn finish(&mut self, key: &str, what: &str, outcome: Outcome) -> io::Result<()> {
        if self.state.finished.iter().any(|f| f.key == key) {
            return Ok(());
        }
        let finished = Finished { key: key.to_owned(), what: what.to_owned(), outcome };
        self.state.finished.push_back(finished);
        while self.state.finished.len() > KEPT {
            self.state.finished.pop_front();
        }
        files::write(&self.file, &self.state)
    }
}
