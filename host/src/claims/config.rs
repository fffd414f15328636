//! How long a claim is its holder's, and how often others look for what lapsed.

use serde::{Deserialize, Serialize};

/// A shorter lease would lapse while its holder waits for the database.
const LEAST_LEASE_MS: u64 = 200;

/// Under `[claims]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimsConfig {
    /// How long a claim is its holder's without a word from him, in milliseconds.
    pub lease_ms: u64,
    /// How often this host looks for claims whose lease lapsed, in milliseconds.
    pub tick_ms: u64,
    /// How often a claim is taken over, where its provider does not answer, before
    /// it is rolled back as far as it can be and its boxes are left to the outbox.
    pub takeovers: u32,
}

impl ClaimsConfig {
    /// # Errors
    /// The key that is too small for anything to work, and its bound.
    pub fn check(&self) -> Result<(), String> {
        if self.lease_ms < LEAST_LEASE_MS {
            return Err(format!("claims.lease_ms is {}; at least {LEAST_LEASE_MS}", self.lease_ms));
        }
        if self.tick_ms == 0 {
            return Err("claims.tick_ms is 0; at least 1".to_owned());
        }
        Ok(())
    }
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        Self { lease_ms: 15_000, tick_ms: 5_000, takeovers: 10 }
    }
}
