//! Who a policy is, the guard hook, and the way from the interface's calls to
//! what an author implements.

use std::marker::PhantomData;

use crate::bindings::about::exports::sprag::policy::about;
use crate::bindings::guard::exports::sprag::policy::guard;
use crate::cooldown::Cooldown;
use crate::recovery::Recovery;
use crate::settings::Settings;
use crate::{Cause, CauseKind, Manifest, Reason, Status, Timestamp, Verdict, Workspace};

/// Who a policy is. Each hook is a trait on top of this one.
pub trait Policy {
    /// Its own name for itself; kebab-case.
    const NAME: &'static str;
    /// Usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// One line for operators.
    const SUMMARY: &'static str;
    /// Where it changes its mind.
    const THRESHOLDS: &'static [Threshold] = &[];
    /// What it can be told; `()` for nothing. See [`settings!`](crate::settings).
    type Settings: Settings;
}

/// May this transition happen?
pub trait Guard: Policy {
    /// Where it has something to say; the host does not ask it anywhere else.
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE];

    /// The word on one candidate: a status that the host's table lets this
    /// cause lead to. Must not panic: a panic is a trap, and denies everything.
    fn decide(request: &Request<Self::Settings>, candidate: Status) -> Verdict;
}

/// What a guard is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<S = ()> {
    /// The only clock there is.
    pub now: Timestamp,
    /// The row as the database held it.
    pub workspace: Workspace,
    /// Why the host considers a transition now.
    pub cause: Cause,
    /// The values this policy was activated with.
    pub settings: S,
    /// All the candidates, in the table's order of preference.
    pub candidates: Vec<Status>,
}

/// A value at which a policy changes its mind, so that a checker can try both
/// sides of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The fact, by its path in the interface: `heartbeat.error-rate`.
    pub fact: &'static str,
    /// The name of the setting it is compared with.
    pub setting: &'static str,
}

/// Where a policy has something to say. An empty list means all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub causes: &'static [CauseKind],
    /// The row's status when the cause arrives.
    pub statuses: &'static [Status],
    /// Kinds of workspace: `workspace`, `platform`.
    pub kinds: &'static [&'static str],
}

impl Interest {
    /// Every cause, status and kind.
    pub const EVERYWHERE: Self = Self { causes: &[], statuses: &[], kinds: &[] };

    /// Only these causes.
    pub const fn causes(self, causes: &'static [CauseKind]) -> Self {
        Self { causes, ..self }
    }

    /// Only rows with one of these statuses.
    pub const fn statuses(self, statuses: &'static [Status]) -> Self {
        Self { statuses, ..self }
    }

    /// Only these kinds of workspace.
    pub const fn kinds(self, kinds: &'static [&'static str]) -> Self {
        Self { kinds, ..self }
    }

    fn to_hook(self, hook: about::Hook) -> about::Interest {
        about::Interest {
            hook,
            causes: self.causes.to_vec(),
            statuses: self.statuses.to_vec(),
            kinds: self.kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }
}

impl Verdict {
    /// Yes, for the reason of this stable kebab-case code.
    pub fn allow(code: &str) -> Self {
        Self::Allow(Reason { code: code.to_owned(), detail: None })
    }

    /// No, for the reason of this stable kebab-case code.
    pub fn deny(code: &str) -> Self {
        Self::Deny(Reason { code: code.to_owned(), detail: None })
    }

    /// The same, with words for a person. They are stored with the decision:
    /// no secrets. An abstention has no reason and stays as it is.
    pub fn detail(self, words: impl Into<String>) -> Self {
        match self {
            Self::Allow(reason) => Self::Allow(Reason { detail: Some(words.into()), ..reason }),
            Self::Deny(reason) => Self::Deny(Reason { detail: Some(words.into()), ..reason }),
            Self::Abstain => Self::Abstain,
        }
    }

    /// Its reason; an abstention has none.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Allow(reason) | Self::Deny(reason) => Some(reason),
            Self::Abstain => None,
        }
    }

    /// The code of its reason.
    pub fn code(&self) -> Option<&str> {
        self.reason().map(|reason| reason.code.as_str())
    }
}

/// What a module with this guard says of itself when it is loaded.
pub fn manifest<P: Guard>() -> Manifest {
    describe::<P>(&[(about::Hook::Guard, P::INTERESTS)])
}

/// What a module with this recovery hook says of itself when it is loaded.
pub fn recovery_manifest<P: Recovery>() -> Manifest {
    describe::<P>(&[(about::Hook::Recovery, P::INTERESTS)])
}

/// What a module with this cooldown hook says of itself when it is loaded.
pub fn cooldown_manifest<P: Cooldown>() -> Manifest {
    describe::<P>(&[(about::Hook::Cooldown, P::INTERESTS)])
}

/// The manifest of a module that exports these hooks.
#[doc(hidden)]
pub fn describe<P: Policy>(hooks: &[(about::Hook, &[Interest])]) -> Manifest {
    #[cfg(target_arch = "wasm32")]
    crate::panics::watch();
    let threshold =
        |t: &Threshold| about::Threshold { fact: t.fact.to_owned(), setting: t.setting.to_owned() };
    let mut interests = Vec::new();
    for (hook, declared) in hooks {
        interests.extend(declared.iter().map(|interest| interest.to_hook(*hook)));
    }
    Manifest {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        summary: P::SUMMARY.to_owned(),
        interests,
        settings: P::Settings::specs(),
        thresholds: P::THRESHOLDS.iter().map(threshold).collect(),
    }
}

/// One verdict per candidate, in their order: the loop that every guard needs.
pub(crate) fn decide<P: Guard>(request: guard::Request) -> Vec<Verdict> {
    #[cfg(target_arch = "wasm32")]
    crate::panics::watch();
    let request = Request {
        now: request.now,
        workspace: request.workspace,
        cause: request.cause,
        settings: P::Settings::read(&request.settings),
        candidates: request.candidates,
    };
    let verdicts = request.candidates.iter().map(|candidate| P::decide(&request, *candidate)).collect();
    // The sandbox ends with this decision; giving back what lies in its arena
    // would be work for nothing.
    #[cfg(target_arch = "wasm32")]
    std::mem::forget(request);
    verdicts
}

/// What [`export!`](crate::export) exports: a policy behind the
/// interface, with the hooks that it implements.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Guard> guard::Guest for Exported<P> {
    fn decide(request: guard::Request) -> Vec<Verdict> {
        decide::<P>(request)
    }
}
