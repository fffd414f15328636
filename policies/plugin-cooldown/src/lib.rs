//! The `plugin-cooldown` policy: plugins are delivered to a workspace once in a
//! while at most.
//!
//! A delivery that can't work is asked for again at every heartbeat; the window
//! makes of that one attempt in five minutes, however many hosts there are.
//!
//! | Action | Ruling | Code | When |
//! |---|---|---|---|
//! | reconcile-plugins | wait until the window is over | `plugins-just-delivered` | fired less than `window` ago |
//!
//! Everything else: ready.

use std::time::Duration;

use sprag_policy::prelude::*;

sprag_policy::settings! {
    /// The window.
    pub struct Settings {
        /// How long after one delivery the next may follow.
        pub window: Duration = Duration::from_secs(300),
    }
}

/// The policy.
pub struct PluginCooldown;

impl Policy for PluginCooldown {
    const NAME: &'static str = "plugin-cooldown";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Plugins are delivered to a workspace once in a window at most.";
    const THRESHOLDS: &'static [Threshold] = &[Threshold { fact: "last-fired-at", setting: "window" }];
    type Settings = Settings;
}

impl Cooldown for PluginCooldown {
    fn check(request: &CooldownRequest<Settings>) -> Ruling {
        match request.action {
            Action::ReconcilePlugins => request.after(request.settings.window, "plugins-just-delivered"),
            _ => Ruling::Ready,
        }
    }
}

sprag_policy::export!(PluginCooldown: cooldown);

#[cfg(test)]
mod tests;
