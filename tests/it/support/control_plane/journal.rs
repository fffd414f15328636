//! What the control plane saw: every call, what became of it, and what ran then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sprag::provision::Fence;

use super::rules::{Incoming, Verb};

/// A box, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoxName {
    pub provider: String,
    pub workspace: String,
    pub instance: String,
}

impl BoxName {
    pub fn new(provider: &str, workspace: &str, instance: &str) -> Self {
        let [provider, workspace, instance] = [provider, workspace, instance].map(str::to_owned);
        Self { provider, workspace, instance }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Its key had been finished; nothing was done.
    Replayed,
    /// Its fence was too old; nothing was done.
    Stale,
    Refused,
    /// Told to fail; nothing was done.
    Failed,
    /// Told to hang up; nothing was done.
    HungUp,
    /// Told to do it later; a second entry says what became of it then.
    HeldBack,
}

/// One call, at the moment when it was settled what becomes of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the control plane began.
    pub at: Duration,
    pub provider: String,
    /// Empty for a list.
    pub workspace: String,
    /// Empty where the call names none.
    pub instance: String,
    pub verb: Verb,
    pub fence: Option<Fence>,
    pub key: String,
    pub outcome: Outcome,
    /// Whether the caller was told.
    pub answered: bool,
    /// The workspace's boxes that ran after it, at all providers.
    pub running: Vec<BoxName>,
}

/// The handle by which a test reads.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Pages>>);

struct Pages {
    began: Instant,
    entries: Vec<Entry>,
    /// The most boxes at once that each workspace ever had.
    most: BTreeMap<String, usize>,
}

impl Journal {
    pub(super) fn new() -> Self {
        let pages = Pages { began: Instant::now(), entries: Vec::new(), most: BTreeMap::new() };
        Self(Arc::new(Mutex::new(pages)))
    }

    /// Every call about a workspace, in the order in which they took effect.
    pub fn calls(&self, workspace: &str) -> Vec<Entry> {
        self.pages().entries.iter().filter(|entry| entry.workspace == workspace).cloned().collect()
    }

    /// Every call there was.
    pub fn all(&self) -> Vec<Entry> {
        self.pages().entries.clone()
    }

    /// The most boxes of a workspace that ever ran at one moment.
    pub fn most_running_at_once(&self, workspace: &str) -> usize {
        self.pages().most.get(workspace).copied().unwrap_or_default()
    }

    /// The workspaces of which two boxes ran at one moment.
    pub fn overlaps(&self) -> Vec<String> {
        self.pages()
            .most
            .iter()
            .filter(|(_, most)| **most > 1)
            .map(|(workspace, _)| workspace.clone())
            .collect()
    }

    pub(super) fn tell(&self, call: &Incoming, outcome: Outcome, answered: bool, running: Vec<BoxName>) {
        let mut pages = self.pages();
        let entry = Entry {
            at: pages.began.elapsed(),
            provider: call.provider.clone(),
            workspace: call.workspace.clone(),
            instance: call.instance.clone(),
            verb: call.verb,
            fence: call.fence,
            key: call.key.clone(),
            outcome,
            answered,
            running,
        };
        pages.entries.push(entry);
    }

    /// So many boxes of the workspace run now.
    pub(super) fn count(&self, workspace: &str, running: usize) {
        let mut pages = self.pages();
        let most = pages.most.entry(workspace.to_owned()).or_default();
        *most = running.max(*most);
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("the journal")
    }
}
