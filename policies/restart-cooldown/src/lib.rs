//! The `restart-cooldown` policy: each restart that did not help makes the next
//! one wait longer.
//!
//! | Action | Ruling | Code | When |
//! |---|---|---|---|
//! | restart | wait until then | `restarted-recently` | fired less than the wait ago |
//!
//! The wait is `base` after the first restart, `factor` times as long after
//! each further one, and never longer than `cap`. It begins anew once the
//! workspace was healthy: the host counts the restarts since then, and a row
//! that has been online for `healthy-after` counts as healthy here. Even then
//! two restarts are `base` apart.
//!
//! Everything else: ready.

use std::time::Duration;

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// The wait, and when it is forgotten.
    pub struct Settings {
        /// How long after the first restart the next may follow.
        pub base: Duration = Duration::from_secs(60),
        /// How many times as long each further wait is; below 1 counts as 1.
        pub factor: f64 = 2.0,
        /// The longest wait.
        pub cap: Duration = Duration::from_secs(3_600),
        /// How long a row has to be online for its restarts to be forgotten.
        pub healthy_after: Duration = Duration::from_secs(600),
    }
}

/// The policy.
pub struct RestartCooldown;

impl Policy for RestartCooldown {
    const NAME: &'static str = "restart-cooldown";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Each restart that did not help makes the next one wait longer.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "last-fired-at", setting: "base" },
        Threshold { fact: "last-fired-at", setting: "cap" },
        Threshold { fact: "workspace.status-since", setting: "healthy-after" },
    ];
    type Settings = Settings;
}

impl Cooldown for RestartCooldown {
    fn check(request: &CooldownRequest<Settings>) -> Ruling {
        if request.action != Action::Restart {
            return Ruling::Ready;
        }
        let fired = if healthy(request) { 0 } else { request.fired };
        request.after(wait(fired, &request.settings), "restarted-recently")
    }
}

/// Whether the row was online long enough for its restarts to have helped.
fn healthy(request: &CooldownRequest<Settings>) -> bool {
    let row = &request.workspace;
    let online_for = Duration::from_millis(request.now.saturating_sub(row.status_since));
    row.status == Status::Online && online_for >= request.settings.healthy_after
}

/// How long after the last of so many restarts the next may follow.
fn wait(fired: u32, settings: &Settings) -> Duration {
    let further = i32::try_from(fired.saturating_sub(1)).unwrap_or(i32::MAX);
    // Finite, so that no base at all stays none.
    let times = settings.factor.max(1.0).powi(further).min(f64::MAX);
    Duration::try_from_secs_f64(settings.base.as_secs_f64() * times).unwrap_or(settings.cap).min(settings.cap)
}

sprag_policy::export!(RestartCooldown: cooldown);

#[cfg(test)]
mod tests;
