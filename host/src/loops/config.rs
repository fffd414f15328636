//! `[loops]`: how often each loop ticks, and how much one tick may do.

use serde::{Deserialize, Serialize};

/// Under `[loops]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoopsConfig {
    /// Rows that one tick of a sweep takes.
    pub rows: u32,
    /// How often the silent ones are looked for, in milliseconds.
    pub silence_ms: u64,
    /// Policies are asked about a row that was silent for this long, in
    /// milliseconds; not longer than the shortest window of the `silence` policy.
    pub silent_after_ms: u64,
    /// How often providers are asked about each box, in milliseconds.
    pub instances_ms: u64,
    /// How long a cycle asks, in milliseconds; what it does not come to is left to the next.
    pub instances_cycle_ms: u64,
    /// How long one answer may take, in milliseconds.
    pub instances_question_ms: u64,
    /// Questions at once.
    pub instances_at_once: usize,
    /// How often rows that are provisioning are looked at, in milliseconds.
    pub provisioning_ms: u64,
    /// Policies are asked about a row that was provisioning for this long, in milliseconds.
    pub provisioning_after_ms: u64,
    /// How often idle rows are looked for, in milliseconds.
    pub idle_ms: u64,
    /// How often rows that are down are asked about again, in milliseconds; what
    /// has been down for long, ever more seldom.
    pub down_ms: u64,
    /// How often providers are asked for what they run, in milliseconds.
    pub strays_ms: u64,
    /// A box that no row names is stopped after so long, in milliseconds.
    pub strays_grace_ms: u64,
    /// None is within this time of when the database was made, or found to be older
    /// than its boxes, in milliseconds.
    pub strays_quiet_ms: u64,
    /// Whether they are stopped at all, or only shown.
    pub strays_stop: bool,
}

impl Default for LoopsConfig {
    fn default() -> Self {
        Self {
            rows: 200,
            silence_ms: 15_000,
            silent_after_ms: 60_000,
            instances_ms: 60_000,
            instances_cycle_ms: 45_000,
            instances_question_ms: 10_000,
            instances_at_once: 40,
            provisioning_ms: 30_000,
            provisioning_after_ms: 60_000,
            idle_ms: 120_000,
            down_ms: 60_000,
            strays_ms: 60_000,
            strays_grace_ms: 3_600_000,
            strays_quiet_ms: 21_600_000,
            strays_stop: true,
        }
    }
}

impl LoopsConfig {
    /// # Errors
    /// The key that does not fit, its value and what would.
    pub fn check(&self) -> Result<(), String> {
        let ticks = [
            ("silence_ms", self.silence_ms),
            ("instances_ms", self.instances_ms),
            ("provisioning_ms", self.provisioning_ms),
            ("idle_ms", self.idle_ms),
            ("down_ms", self.down_ms),
            ("strays_ms", self.strays_ms),
            ("instances_question_ms", self.instances_question_ms),
        ];
        if let Some((key, _)) = ticks.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("loops.{key} is 0; at least 1"));
        }
        if self.rows == 0 || self.instances_at_once == 0 {
            return Err("loops.rows and loops.instances_at_once must not be 0".to_owned());
        }
        if self.instances_cycle_ms > self.instances_ms {
            return Err(format!(
                "loops.instances_cycle_ms is {}; at most loops.instances_ms, {}",
                self.instances_cycle_ms, self.instances_ms
            ));
        }
        Ok(())
    }
}
