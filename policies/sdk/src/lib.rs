//! Write a Sprag policy: a trait, an export macro, typed settings.
//!
//! A policy is a pure function with one or more of three hooks, each a trait:
//!
//! - a [`Guard`] is asked before the host changes a workspace's status, and
//!   answers, for each status the host's table would let it go to: allow, deny
//!   or abstain. An edge is taken where some policy allows it and none denies it;
//! - a [`Recovery`] is asked what to set in motion, moved or held;
//! - a [`Cooldown`] is asked whether such an action may fire again.
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
mod cooldown;
mod durations;
#[cfg(any(target_arch = "wasm32", test))]
mod panics;
mod policy;
mod recovery;
mod settings;
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use arena::Arena;
pub use bindings::about::exports::sprag::policy::about::{CauseKind, Manifest, SettingSpec};
#[doc(hidden)]
pub use bindings::about::exports::sprag::policy::about::{Guest as AboutGuest, Hook};
pub use bindings::about::sprag::policy::types::{
    Action, Cause, Command, CommandKind, Duration as Millis, Heartbeat, Probe, Readiness, Reason, Setting,
    Status, Timestamp, Workspace,
};
pub use bindings::cooldown::exports::sprag::policy::cooldown::Ruling;
pub use bindings::guard::exports::sprag::policy::guard::Verdict;
pub use bindings::recovery::exports::sprag::policy::recovery::{Move, Outcome, Trigger};
pub use cooldown::{Cooldown, CooldownRequest};
pub use durations::{NamedDurations, Unreadable, in_words};
#[doc(hidden)]
pub use policy::{Exported, describe};
pub use policy::{
    Guard, Interest, Policy, Request, Threshold, cooldown_manifest, manifest, recovery_manifest,
};
pub use recovery::{Recovery, RecoveryRequest};
#[doc(hidden)]
pub use settings::kebab;
pub use settings::{SettingValue, Settings};

/// What a policy's file usually needs.
pub mod prelude {
    pub use crate::{
        Action, Cause, CauseKind, Command, CommandKind, Cooldown, CooldownRequest, Guard, Heartbeat,
        Interest, Outcome, Policy, Probe, Readiness, Reason, Recovery, RecoveryRequest, Request, Ruling,
        Status, Threshold, Trigger, Verdict, Workspace,
    };
}

/// Makes the crate a policy module: exports `about` and the hooks named, for
/// the type given, and installs the arena allocator. In WebAssembly only;
/// natively it expands to nothing, so that the same crate is an ordinary
/// library in tests.
///
/// `export!(T)` exports a guard, `export!(T: recovery)` and
/// `export!(T: cooldown)` the other hooks; `export!(T: guard, recovery)` more
/// than one. What is not exported the module has no say in.
#[macro_export]
macro_rules! export {
    (@interests guard $policy:ty) => {
        ($crate::Hook::Guard, <$policy as $crate::Guard>::INTERESTS)
    };
    (@interests recovery $policy:ty) => {
        ($crate::Hook::Recovery, <$policy as $crate::Recovery>::INTERESTS)
    };
    (@interests cooldown $policy:ty) => {
        ($crate::Hook::Cooldown, <$policy as $crate::Cooldown>::INTERESTS)
    };
    (@hook guard $exported:ident) => {
        $crate::bindings::guard::export_guard!($exported with_types_in $crate::bindings::guard);
    };
    (@hook recovery $exported:ident) => {
        $crate::bindings::recovery::export_recovery!($exported with_types_in $crate::bindings::recovery);
    };
    (@hook cooldown $exported:ident) => {
        $crate::bindings::cooldown::export_cooldown!($exported with_types_in $crate::bindings::cooldown);
    };
    ($policy:ty) => {
        $crate::export!($policy: guard);
    };
    ($policy:ty: $($hook:ident),+) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[global_allocator]
            static ARENA: $crate::Arena = $crate::Arena::new();

            struct About;

            impl $crate::AboutGuest for About {
                fn describe() -> $crate::Manifest {
                    $crate::describe::<$policy>(&[$( $crate::export!(@interests $hook $policy) ),+])
                }
            }

            type Exported = $crate::Exported<$policy>;

            $crate::bindings::about::export_about!(About with_types_in $crate::bindings::about);
            $( $crate::export!(@hook $hook Exported); )+
        };
    };
}

/// The code of the guide compiles, or this test fails.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-policy.md")]
struct WritingAPolicy;
