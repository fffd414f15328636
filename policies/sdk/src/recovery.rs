//! The recovery hook: what should be set in motion, whether the transition
//! happened or was held?

use crate::bindings::recovery::exports::sprag::policy::recovery;
use crate::policy::{Exported, Interest, Policy};
use crate::settings::Settings;
use crate::{Action, Cause, Outcome, Reason, Status, Timestamp, Trigger, Workspace};

/// What should be set in motion?
///
/// ```
/// use sprag_policy::prelude::*;
///
/// /// Tells the operators of a platform workspace that failed.
/// pub struct Alarm;
///
/// impl Policy for Alarm {
///     const NAME: &'static str = "alarm";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     const SUMMARY: &'static str = "A platform workspace that fails is told of.";
///     type Settings = ();
/// }
///
/// impl Recovery for Alarm {
///     const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.kinds(&["platform"])];
///
///     fn plan(request: &RecoveryRequest) -> Vec<Trigger> {
///         match request.outcome.moved_to() {
///             Some(Status::Failed) => {
///                 vec![Trigger::new(Action::Notify("platform-down".to_owned()), "platform-failed")]
///             }
///             _ => Vec::new(),
///         }
///     }
/// }
///
/// sprag_policy::export!(Alarm: recovery);
///
/// use sprag_policy::testing::Ask;
/// let beat = Ask::at(Status::Online).kind("platform");
/// let failed = beat.clone().moved(Status::Failed, "mcp-server-missing").plan::<Alarm>();
/// assert_eq!(failed[0].action, Action::Notify("platform-down".to_owned()));
/// assert_eq!(beat.held(["policy-error"]).plan::<Alarm>(), []);
/// ```
pub trait Recovery: Policy {
    /// Where it has something to say; the host does not ask it anywhere else.
    /// The status is the row's when the cause arrived, before any move.
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE];

    /// What it asks for, if anything. The host does each action only where the
    /// workspace is entitled to it and the cooldown policies let it. Must not
    /// panic: a panic is a trap, and sets nothing in motion.
    fn plan(request: &RecoveryRequest<Self::Settings>) -> Vec<Trigger>;
}

/// What a recovery policy is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryRequest<S = ()> {
    /// The only clock there is.
    pub now: Timestamp,
    /// The row as it was judged, before any move.
    pub workspace: Workspace,
    /// Why the host considered a transition.
    pub cause: Cause,
    /// What became of it.
    pub outcome: Outcome,
    /// The values this policy was activated with.
    pub settings: S,
}

impl Trigger {
    /// Asks for this action, for the reason of this stable kebab-case code.
    pub fn new(action: Action, code: &str) -> Self {
        Self { action, reason: Reason { code: code.to_owned(), detail: None } }
    }

    /// The same, with words for a person. They are stored with the decision:
    /// no secrets.
    pub fn detail(self, words: impl Into<String>) -> Self {
        Self { reason: Reason { detail: Some(words.into()), ..self.reason }, ..self }
    }

    /// The code of its reason.
    pub fn code(&self) -> &str {
        &self.reason.code
    }
}

impl Outcome {
    /// The status that the row got; None where it was held.
    pub fn moved_to(&self) -> Option<Status> {
        match self {
            Self::Moved(step) => Some(step.target),
            Self::Held(_) => None,
        }
    }

    /// Why: the reason of the move, or one for each denial; none where nobody
    /// had a say.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Moved(step) => std::slice::from_ref(&step.reason),
            Self::Held(reasons) => reasons,
        }
    }
}

pub(crate) fn plan<P: Recovery>(request: recovery::Request) -> Vec<Trigger> {
    #[cfg(target_arch = "wasm32")]
    crate::panics::watch();
    let request = RecoveryRequest {
        now: request.now,
        workspace: request.workspace,
        cause: request.cause,
        outcome: request.outcome,
        settings: P::Settings::read(&request.settings),
    };
    let triggers = P::plan(&request);
    // As after a guard's decision: the sandbox ends here.
    #[cfg(target_arch = "wasm32")]
    std::mem::forget(request);
    triggers
}

impl<P: Recovery> recovery::Guest for Exported<P> {
    fn plan(request: recovery::Request) -> Vec<Trigger> {
        plan::<P>(request)
    }
}
