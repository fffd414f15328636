//! What the control plane is told to get wrong, where, and how often.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::rules::{Incoming, Verb};

/// One way to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Comes to the rules only after this long; the caller waits.
    Before(Duration),
    /// Accepted at once, done over this long; other calls about the workspace wait.
    Doing(Duration),
    /// Done at once, answered after this long.
    After(Duration),
    /// 500; no fence accepted, nothing done.
    Fail,
    /// 500 when the fence was accepted; nothing done.
    FailAccepted,
    /// Done, and the connection closed instead of an answer.
    Lose,
    /// The connection closed; nothing done.
    HangUp,
    /// Answered with this status now, or hung up on, and done this much later:
    /// a request that the network held back.
    Late { by: Duration, answer: Option<u16> },
    /// Refused for good, once the fence was accepted.
    Refuse { status: u16, code: &'static str },
}

/// Which calls a fault strikes: all that no field excludes.
#[derive(Clone, Debug, Default)]
pub struct Where {
    pub provider: Option<String>,
    pub workspace: Option<String>,
    pub verb: Option<Verb>,
}

impl Where {
    pub fn provider(name: &str) -> Self {
        Self { provider: Some(name.to_owned()), ..Self::default() }
    }

    pub fn workspace(id: &str) -> Self {
        Self { workspace: Some(id.to_owned()), ..Self::default() }
    }

    pub fn verb(verb: Verb) -> Self {
        Self { verb: Some(verb), ..Self::default() }
    }

    /// These calls, of this verb alone.
    pub fn only(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    fn meets(&self, call: &Incoming) -> bool {
        self.provider.as_ref().is_none_or(|provider| *provider == call.provider)
            && self.workspace.as_ref().is_none_or(|workspace| *workspace == call.workspace)
            && self.verb.is_none_or(|verb| verb == call.verb)
    }
}

struct Fault {
    at: Where,
    what: What,
    /// How often still; None: until cleared.
    left: Option<u32>,
}

/// The handle by which a test tells. The first fault that meets a call strikes it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// The next `times` calls there go wrong so, and those after them well.
    pub fn next(&self, times: u32, at: Where, what: What) {
        self.add(Fault { at, what, left: Some(times) });
    }

    /// Every call there goes wrong so, until [`Faults::clear`].
    pub fn always(&self, at: Where, what: What) {
        self.add(Fault { at, what, left: None });
    }

    pub fn clear(&self) {
        self.0.lock().expect("the faults").clear();
    }

    fn add(&self, fault: Fault) {
        self.0.lock().expect("the faults").push(fault);
    }

    pub(super) fn strike(&self, call: &Incoming) -> Option<What> {
        let mut faults = self.0.lock().expect("the faults");
        faults.retain(|fault| fault.left != Some(0));
        let fault = faults.iter_mut().find(|fault| fault.at.meets(call))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.what)
    }
}
