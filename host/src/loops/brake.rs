//! `[brake]`: how much may go down, and when this host suspects itself.

use serde::{Deserialize, Serialize};

use crate::store::{BrakeLimits, Patience};

/// Under `[brake]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrakeConfig {
    /// The share of the live rows, of a provider and of all, that may go down
    /// within the window; 0.0 to 1.0.
    pub share: f64,
    /// As many may always go down within the window.
    pub number: u64,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Rows that go down each minute once the brake was released by hand.
    pub release_per_minute: u64,
    /// How often live rows are counted, by one of the hosts, in milliseconds.
    pub count_ms: u64,
    /// How often a host says that it is alive, in milliseconds.
    pub pulse_ms: u64,
    /// A host that could not pulse for this long has not heard its agents, in milliseconds.
    pub stall_ms: u64,
    /// A database that takes this long for a pulse is slow, in milliseconds.
    pub slow_ms: u64,
    /// A clock that is off by this much has jumped, in milliseconds.
    pub jump_ms: u64,
    /// A host that did not pulse for this long is lost to its agents, in milliseconds.
    pub lost_ms: u64,
    /// After this long nobody waits for a lost host: its agents have found another, in milliseconds.
    pub forget_ms: u64,
}

impl Default for BrakeConfig {
    fn default() -> Self {
        Self {
            share: 0.2,
            number: 10,
            window_ms: 300_000,
            release_per_minute: 60,
            count_ms: 30_000,
            pulse_ms: 1_000,
            stall_ms: 5_000,
            slow_ms: 2_000,
            jump_ms: 5_000,
            lost_ms: 5_000,
            forget_ms: 120_000,
        }
    }
}

impl BrakeConfig {
    /// # Errors
    /// The key that does not fit, its value and what would.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(format!("brake.share is {}; 0.0 to 1.0", self.share));
        }
        if self.window_ms < 1_000 {
            return Err(format!("brake.window_ms is {}; at least 1000", self.window_ms));
        }
        if self.pulse_ms == 0 || self.count_ms == 0 {
            return Err("brake.pulse_ms and brake.count_ms must not be 0".to_owned());
        }
        for (key, value) in [("stall_ms", self.stall_ms), ("lost_ms", self.lost_ms)] {
            if value <= self.pulse_ms {
                return Err(format!("brake.{key} is {value}; more than brake.pulse_ms, {}", self.pulse_ms));
            }
        }
        if self.forget_ms < self.lost_ms {
            return Err(format!(
                "brake.forget_ms is {}; at least brake.lost_ms, {}",
                self.forget_ms, self.lost_ms
            ));
        }
        Ok(())
    }

    pub const fn limits(&self) -> BrakeLimits {
        BrakeLimits {
            share: self.share,
            number: self.number,
            window_ms: self.window_ms,
            per_minute: self.release_per_minute,
        }
    }

    pub(super) const fn patience(&self, lease_ms: u64) -> Patience {
        let Self { stall_ms, lost_ms, forget_ms, jump_ms, .. } = *self;
        Patience { stall_ms, lost_ms, forget_ms, jump_ms, lease_ms }
    }
}
