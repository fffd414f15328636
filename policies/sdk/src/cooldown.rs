//! The cooldown hook: may this action fire again?

use crate::bindings::cooldown::exports::sprag::policy::cooldown;
use crate::policy::{Exported, Interest, Policy};
use crate::settings::Settings;
use crate::{Action, Reason, Ruling, Timestamp, Workspace};

/// May this action fire again?
///
/// ```
/// use std::time::Duration;
/// use sprag_policy::prelude::*;
///
/// sprag_policy::settings! {
///     pub struct Settings {
///         /// How long after one notice the next may follow.
///         pub quiet: Duration = Duration::from_secs(3_600),
///     }
/// }
///
/// /// Tells the operators the same thing once an hour at most.
/// pub struct Quiet;
///
/// impl Policy for Quiet {
///     const NAME: &'static str = "quiet";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     const SUMMARY: &'static str = "The same notice comes once an hour at most.";
///     const THRESHOLDS: &'static [Threshold] = &[Threshold { fact: "last-fired-at", setting: "quiet" }];
///     type Settings = Settings;
/// }
///
/// impl Cooldown for Quiet {
///     fn check(request: &CooldownRequest<Settings>) -> Ruling {
///         match request.action {
///             Action::Notify(_) => request.after(request.settings.quiet, "told-already"),
///             _ => Ruling::Ready,
///         }
///     }
/// }
///
/// sprag_policy::export!(Quiet: cooldown);
///
/// use sprag_policy::testing::{Ask, NOW};
/// let notice = Ask::at(Status::Failed).action(Action::Notify("platform-down".to_owned()));
/// assert_eq!(notice.check::<Quiet>(), Ruling::Ready);
/// let told = notice.fired(1, Duration::from_secs(3_599));
/// assert_eq!(told.check::<Quiet>(), Ruling::until(NOW + 1_000, "told-already"));
/// ```
pub trait Cooldown: Policy {
    /// Where it has something to say; the host does not ask it anywhere else.
    /// Nobody is asked unless an action is, so there is little to save here.
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE];

    /// The word on one action; of all bound policies' the longest wait wins.
    /// An action that is not its business is [`Ruling::Ready`]. Must not panic:
    /// a panic is a trap, and means "not now".
    fn check(request: &CooldownRequest<Self::Settings>) -> Ruling;
}

/// What a cooldown policy is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct CooldownRequest<S = ()> {
    /// The only clock there is.
    pub now: Timestamp,
    /// The row as it was judged, before any move.
    pub workspace: Workspace,
    /// What a recovery policy asks for.
    pub action: Action,
    /// When it last fired for this workspace.
    pub last_fired_at: Option<Timestamp>,
    /// How often it fired since the workspace was last healthy.
    pub fired: u32,
    /// The values this policy was activated with.
    pub settings: S,
}

impl<S> CooldownRequest<S> {
    /// Ready where it never fired, or this long ago or longer; else not before
    /// then, for the reason of this code.
    pub fn after(&self, window: std::time::Duration, code: &str) -> Ruling {
        let window = Timestamp::try_from(window.as_millis()).unwrap_or(Timestamp::MAX);
        match self.last_fired_at.map(|fired_at| fired_at.saturating_add(window)) {
            Some(until) if self.now < until => Ruling::until(until, code),
            _ => Ruling::Ready,
        }
    }
}

impl Ruling {
    /// Not before this time, for the reason of this stable kebab-case code.
    pub fn until(time: Timestamp, code: &str) -> Self {
        Self::WaitUntil((time, Reason { code: code.to_owned(), detail: None }))
    }

    /// The same, with words for a person. [`Ruling::Ready`] has no reason and
    /// stays as it is.
    pub fn detail(self, words: impl Into<String>) -> Self {
        match self {
            Self::WaitUntil((time, reason)) => {
                Self::WaitUntil((time, Reason { detail: Some(words.into()), ..reason }))
            }
            Self::Ready => Self::Ready,
        }
    }

    /// The code of its reason.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::WaitUntil((_, reason)) => Some(&reason.code),
            Self::Ready => None,
        }
    }
}

pub(crate) fn check<P: Cooldown>(request: cooldown::Request) -> Ruling {
    #[cfg(target_arch = "wasm32")]
    crate::panics::watch();
    let request = CooldownRequest {
        now: request.now,
        workspace: request.workspace,
        action: request.action,
        last_fired_at: request.last_fired_at,
        fired: request.fired,
        settings: P::Settings::read(&request.settings),
    };
    let ruling = P::check(&request);
    // As after a guard's decision: the sandbox ends here.
    #[cfg(target_arch = "wasm32")]
    std::mem::forget(request);
    ruling
}

impl<P: Cooldown> cooldown::Guest for Exported<P> {
    fn check(request: cooldown::Request) -> Ruling {
        check::<P>(request)
    }
}
