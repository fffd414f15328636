//! `[effects]`, how patient the worker is, and `[notify]`, where notices go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::provision::ProvisioningConfig;

/// Under `[effects]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EffectsConfig {
    /// How often this host looks for effects that are due, in milliseconds.
    pub tick_ms: u64,
    /// How long an effect is its taker's, in milliseconds; longer than its delivery may take.
    pub lease_ms: u64,
    /// Deliveries after which an effect is parked. A delivery of plugins that
    /// fails is parked at once: the next window tries again.
    pub attempts: u32,
    /// The pause after the first delivery that failed, in milliseconds; it doubles.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// Plugins that only workspaces of kind `platform` may have.
    pub privileged_plugins: Vec<String>,
}

impl EffectsConfig {
    /// # Errors
    /// The key that is too small for anything to work, and its bound.
    pub fn check(&self, provisioning: &ProvisioningConfig) -> Result<(), String> {
        let attempts = u64::from(provisioning.stop_attempts);
        let longest = attempts * (provisioning.call_timeout_ms + provisioning.backoff_max_ms);
        if self.lease_ms < longest {
            return Err(format!(
                "effects.lease_ms is {}; one delivery may take {longest} \
                 (stop_attempts, call_timeout_ms and backoff_max_ms of [provisioning])",
                self.lease_ms
            ));
        }
        if self.attempts == 0 || self.tick_ms == 0 {
            return Err("effects.attempts and effects.tick_ms must not be 0".to_owned());
        }
        Ok(())
    }
}

impl Default for EffectsConfig {
    fn default() -> Self {
        Self {
            tick_ms: 1_000,
            lease_ms: 300_000,
            attempts: 12,
            backoff_ms: 1_000,
            backoff_max_ms: 300_000,
            privileged_plugins: Vec::new(),
        }
    }
}

/// Under `[notify]`: the webhook that notices go to. Without a URL they are only logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    pub url: Option<String>,
    /// A file that holds the signing secret (`whsec_…`, base64).
    pub secret_file: Option<PathBuf>,
    /// The name of the variable that holds it, instead of a file.
    pub secret_env: Option<String>,
    /// PEM certificates that the receiver's is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What notices go through. Without it they go straight there, whatever the
    /// environment says.
    pub proxy: Option<String>,
}
