//! The `silence` policy: a workspace that has not been heard of for too long is
//! offline.
//!
//! | Runtime | To | Verdict | Code | When |
//! |---|---|---|---|---|
//! | `external` | awaiting-agent | allow | `went-silent` | silent ≥ `window-external` |
//! | `hermes` | offline | allow | `went-silent` | silent ≥ `window-hermes` |
//! | any other | offline | allow | `went-silent` | silent ≥ `window` |
//!
//! An entry of `windows` wins over these: `"codex=2m, aider=45s"`. Where that
//! text can't be read, every candidate is denied with `bad-setting`, so that a
//! typo takes nobody offline. Everything else: abstain.

use std::time::Duration;

use sprag_policy::prelude::*;
use sprag_policy::{NamedDurations, Unreadable, in_words};

sprag_policy::settings! {
    /// The windows.
    pub struct Settings {
        /// How long a workspace may be silent.
        pub window: Duration = Duration::from_secs(90),
        /// How long one of runtime external may be silent: a laptop sleeps.
        pub window_external: Duration = Duration::from_secs(300),
        /// How long one of runtime hermes may be silent.
        pub window_hermes: Duration = Duration::from_secs(180),
        /// The same by runtime, before any of the others: codex=2m, aider=45s.
        pub windows: NamedDurations = NamedDurations::none(),
    }
}

/// The policy.
pub struct Silence;

impl Policy for Silence {
    const NAME: &'static str = "silence";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "A workspace that was silent for longer than its runtime may be is offline.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "silence", setting: "window" },
        Threshold { fact: "silence", setting: "window-external" },
        Threshold { fact: "silence", setting: "window-hermes" },
    ];
    type Settings = Settings;
}

impl Guard for Silence {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::Silence]).statuses(&[Status::Online, Status::Degraded])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::Silence(silent) = request.cause else { return Verdict::Abstain };
        let silent = Duration::from_millis(silent);
        let runtime = request.workspace.runtime.as_str();
        let window = match window(&request.settings, runtime) {
            Ok(window) => window,
            Err(unreadable) => return unreadable.deny("windows"),
        };
        let target = if runtime == EXTERNAL { Status::AwaitingAgent } else { Status::Offline };
        if candidate == target && silent >= window {
            let words = ["silent for ", &in_words(silent), ", its window is ", &in_words(window)];
            Verdict::allow("went-silent").detail(String::from_iter(words))
        } else {
            Verdict::Abstain
        }
    }
}

const EXTERNAL: &str = "external";

/// How long a workspace of this runtime may be silent.
fn window(settings: &Settings, runtime: &str) -> Result<Duration, Unreadable> {
    let named = settings.windows.get(runtime)?;
    Ok(named.unwrap_or(match runtime {
        EXTERNAL => settings.window_external,
        "hermes" => settings.window_hermes,
        _ => settings.window,
    }))
}

sprag_policy::export!(Silence);

#[cfg(test)]
mod tests;
