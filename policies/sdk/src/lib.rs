//! Write a Sprag policy: a trait, an export macro, typed settings.
//!
//! A policy is a pure function that the host asks before it changes a
//! workspace's status. A guard answers, for each status the host's table would
//! let it go to: allow, deny or abstain. An edge is taken where some policy
//! allows it and none denies it.
//!
//! ```
//! use sprag_policy::prelude::*;
//!
//! sprag_policy::settings! {
//!     pub struct Settings {
//!         /// Tasks at which an agent counts as overloaded.
//!         pub overloaded_at: f64 = 10.0,
//!     }
//! }
//!
//! /// Keeps an overloaded agent from being hibernated or restarted.
//! pub struct Overload;
//!
//! impl Policy for Overload {
//!     const NAME: &'static str = "overload";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const SUMMARY: &'static str = "Nobody stops an overloaded agent.";
//!     const THRESHOLDS: &'static [Threshold] =
//!         &[Threshold { fact: "workspace.active-tasks", setting: "overloaded-at" }];
//!     type Settings = Settings;
//! }
//!
//! impl Guard for Overload {
//!     const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.causes(&[CauseKind::Commanded])];
//!
//!     fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
//!         let overloaded = f64::from(request.workspace.active_tasks) >= request.settings.overloaded_at;
//!         match candidate {
//!             Status::Hibernated | Status::Provisioning if overloaded => Verdict::deny("overloaded"),
//!             _ => Verdict::Abstain,
//!         }
//!     }
//! }
//!
//! // Does nothing natively; in WebAssembly it makes the crate a policy module.
//! sprag_policy::export!(Overload);
//!
//! // An ordinary test, no WebAssembly involved:
//! use sprag_policy::testing::{Ask, command};
//! let busy = Ask::at(Status::Online).because(command(CommandKind::Restart)).tasks(10);
//! assert_eq!(busy.of::<Overload>(Status::Provisioning), Verdict::deny("overloaded"));
//! assert_eq!(busy.tasks(9).of::<Overload>(Status::Provisioning), Verdict::Abstain);
//! ```
//!
//! `docs/writing-a-policy.md` leads from an empty directory to an active
//! policy. The types are those of `wit/v1/policy.wit`, where each fact is
//! explained.

#[cfg(any(target_arch = "wasm32", test))]
mod arena;
#[doc(hidden)]
pub mod bindings;
mod policy;
mod settings;
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use arena::Arena;
pub use bindings::exports::sprag::policy::about::{CauseKind, Manifest, SettingSpec};
pub use bindings::exports::sprag::policy::guard::Verdict;
pub use bindings::sprag::policy::types::{
    Cause, Command, CommandKind, Duration as Millis, Heartbeat, Probe, Readiness, Reason, Setting, Status,
    Timestamp, Workspace,
};
pub use policy::{Exported, Guard, Interest, Policy, Request, Threshold, manifest};
#[doc(hidden)]
pub use settings::kebab;
pub use settings::{SettingValue, Settings};

/// What a policy's file usually needs.
pub mod prelude {
    pub use crate::{
        Cause, CauseKind, Command, CommandKind, Guard, Heartbeat, Interest, Policy, Probe, Readiness, Reason,
        Request, Status, Threshold, Verdict, Workspace,
    };
}

/// Makes the crate a policy module: exports `about` and `guard` for the type
/// given, and installs the arena allocator. In WebAssembly only; natively it
/// expands to nothing, so that the same crate is an ordinary library in tests.
#[macro_export]
macro_rules! export {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[global_allocator]
            static ARENA: $crate::Arena = $crate::Arena::new();

            type Exported = $crate::Exported<$policy>;
    $crate::bindings::export_guard!(Exported with_types_in $crate::bindings);
        };
    };
}

/// The code of the guide compiles, or this test fails.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-policy.md")]
struct WritingAPolicy;
