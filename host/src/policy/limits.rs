//! What a sandbox may use: every limit with its name and its default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PolicyError;

/// What a sandbox may use. Every limit has a name, a default and a config key
/// of the same name under `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Units of fuel for one call; deterministic.
    pub fuel: u64,
    /// Wall-clock backstop for one call, in milliseconds.
    pub call_ms: u64,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Elements of all tables of an instance.
    pub table_elements: usize,
    /// Core instances within one component.
    pub instances: usize,
    /// Sandboxes that may live at once, in the whole host.
    pub concurrency: u32,
    /// Bytes of the guest's stack that the host enforces.
    pub stack_bytes: usize,
    /// Bytes that one call may have lifted out of the guest.
    pub answer_bytes: usize,
    /// Bytes of one string that comes back.
    pub string_bytes: usize,
    /// Elements of one list that comes back.
    pub list_items: usize,
    /// Bytes of a module as it is uploaded.
    pub module_bytes: usize,
    /// Wall-clock limit for compiling one module, in milliseconds.
    pub compile_ms: u64,
    /// Address space that compiling one module may take, in bytes.
    pub compile_memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            call_ms: 100,
            memory_bytes: 4 << 20,
            table_elements: 1_000,
            instances: 8,
            concurrency: 256,
            stack_bytes: 256 << 10,
            answer_bytes: 256 << 10,
            string_bytes: 4 << 10,
            list_items: 256,
            module_bytes: 2 << 20,
            compile_ms: 20_000,
            compile_memory_bytes: 4 << 30,
        }
    }
}

impl Limits {
    /// Refuses limits under which nothing could ever run.
    ///
    /// # Errors
    /// [`PolicyError::Host`] names the limit that is zero.
    pub fn check(&self) -> Result<(), PolicyError> {
        let zero = [
            ("fuel", self.fuel == 0),
            ("call_ms", self.call_ms == 0),
            ("memory_bytes", self.memory_bytes == 0),
            ("instances", self.instances == 0),
            ("concurrency", self.concurrency == 0),
            ("stack_bytes", self.stack_bytes == 0),
            ("answer_bytes", self.answer_bytes == 0),
            ("string_bytes", self.string_bytes == 0),
            ("list_items", self.list_items == 0),
            ("module_bytes", self.module_bytes == 0),
            ("compile_ms", self.compile_ms == 0),
            ("compile_memory_bytes", self.compile_memory_bytes == 0),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(PolicyError::Host { why: format!("limits.{name} is 0") }),
            None => Ok(()),
        }
    }

    pub fn call(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
}
