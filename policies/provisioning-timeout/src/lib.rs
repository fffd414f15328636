//! The `provisioning-timeout` policy: a workspace that takes too long to come
//! up has failed.
//!
//! | Runtime | To | Verdict | Code | When |
//! |---|---|---|---|---|
//! | `hermes` | failed | allow | `provisioning-timed-out` | provisioning for ≥ `limit-hermes` |
//! | any other | failed | allow | `provisioning-timed-out` | provisioning for ≥ `limit` |
//!
//! An entry of `limits` wins over these: `"codex=20m, aider=5m"`. Where that
//! text can't be read, every candidate is denied with `bad-setting`, so that a
//! typo gives nobody up. Everything else: abstain.
//!
//! Nothing is lost by giving up: an agent that heartbeats after all brings its
//! workspace online.

use std::time::Duration;

use sprag_policy::prelude::*;
use sprag_policy::{NamedDurations, Unreadable, in_words};

sprag_policy::settings! {
    /// The limits.
    pub struct Settings {
        /// How long a workspace may take to come up.
        pub limit: Duration = Duration::from_secs(600),
        /// How long one of runtime hermes may take.
        pub limit_hermes: Duration = Duration::from_secs(1_800),
        /// The same by runtime, before any of the others: codex=20m, aider=5m.
        pub limits: NamedDurations = NamedDurations::none(),
    }
}

/// The policy.
pub struct ProvisioningTimeout;

impl Policy for ProvisioningTimeout {
    const NAME: &'static str = "provisioning-timeout";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "A workspace that takes longer to come up than its runtime may has failed.";
    const THRESHOLDS: &'static [Threshold] = &[
        Threshold { fact: "provisioning-for", setting: "limit" },
        Threshold { fact: "provisioning-for", setting: "limit-hermes" },
    ];
    type Settings = Settings;
}

impl Guard for ProvisioningTimeout {
    const INTERESTS: &'static [Interest] =
        &[Interest::EVERYWHERE.causes(&[CauseKind::ProvisioningFor]).statuses(&[Status::Provisioning])];

    fn decide(request: &Request<Settings>, candidate: Status) -> Verdict {
        let Cause::ProvisioningFor(so_far) = request.cause else { return Verdict::Abstain };
        let so_far = Duration::from_millis(so_far);
        let limit = match limit(&request.settings, &request.workspace.runtime) {
            Ok(limit) => limit,
            Err(unreadable) => return unreadable.deny("limits"),
        };
        if candidate == Status::Failed && so_far >= limit {
            let words = ["provisioning for ", &in_words(so_far), ", its limit is ", &in_words(limit)];
            Verdict::allow("provisioning-timed-out").detail(String::from_iter(words))
        } else {
            Verdict::Abstain
        }
    }
}

/// How long a workspace of this runtime may take to come up.
fn limit(settings: &Settings, runtime: &str) -> Result<Duration, Unreadable> {
    let named = settings.limits.get(runtime)?;
    Ok(named.unwrap_or(if runtime == "hermes" { settings.limit_hermes } else { settings.limit }))
}

sprag_policy::export!(ProvisioningTimeout);

#[cfg(test)]
mod tests;
