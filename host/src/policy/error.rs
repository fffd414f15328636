//! Why a module was refused or a call failed, as one typed error.
//!
//! It crosses a process boundary too: the compiling child reports it to its
//! parent as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The function that a call ended in, where that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub Option<String>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |place| write!(f, ", in {place}"))
    }
}

/// Why a module was refused or a call failed. [`PolicyError::code`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PolicyError {
    #[error("the module has {found} bytes; at most {limit} are taken (limits.module_bytes)")]
    ModuleTooLarge { found: usize, limit: usize },
    #[error("these bytes are no WebAssembly module or component: {why}")]
    NotWasm { why: String },
    #[error("the module imports {import}; a policy imports nothing")]
    Import { import: String },
    #[error("the module does not fit sprag:policy@1.0.0: {why}")]
    WrongInterface { why: String },
    #[error("compiling took longer than {limit_ms} ms (limits.compile_ms)")]
    CompileTimeout { limit_ms: u64 },
    #[error("the module can't be compiled: {why}")]
    Compile { why: String },
    #[error("the manifest is not acceptable: {why}")]
    BadManifest { why: String },
    #[error("setting {name}: {why}")]
    BadSetting { name: String, why: String },
    #[error("limit {name}: {asked} was asked for; 1 to {most} may be (limits.max.{name})")]
    BadLimit { name: String, asked: u64, most: u64 },
    #[error("the module can't be instantiated within the limits: {why}")]
    Instantiate { why: String },
    #[error("trap: {why}")]
    Trap { why: String },
    #[error("the stack overflowed its {limit} bytes (limits.stack_bytes){place}")]
    StackOverflow { limit: usize, place: Place },
    #[error("all {limit} units of fuel were used (limits.fuel){place}")]
    OutOfFuel { limit: u64, place: Place },
    #[error("the call took longer than {limit_ms} ms (limits.call_ms){place}")]
    OutOfTime { limit_ms: u64, place: Place },
    #[error("the memory would have grown over {limit} bytes (limits.memory_bytes){place}")]
    OutOfMemory { limit: usize, place: Place },
    #[error("{found} verdicts for {expected} candidates")]
    WrongVerdictCount { found: usize, expected: usize },
    #[error("the answer is too large: {what}")]
    OversizedAnswer { what: String },
    #[error("the answer is malformed: {what}")]
    BadAnswer { what: String },
    #[error("{limit} sandboxes are in use (limits.concurrency)")]
    Busy { limit: u32 },
    #[error("the sandbox itself failed: {why}")]
    Host { why: String },
}

impl PolicyError {
    /// A stable snake_case code: recorded, counted, documented.
    pub const fn code(&self) -> &'static str {
        match self {
            PolicyError::ModuleTooLarge { .. } => "module_too_large",
            PolicyError::NotWasm { .. } => "not_wasm",
            PolicyError::Import { .. } => "import",
            PolicyError::WrongInterface { .. } => "wrong_interface",
            PolicyError::CompileTimeout { .. } => "compile_timeout",
            PolicyError::Compile { .. } => "compile",
            PolicyError::BadManifest { .. } => "bad_manifest",
            PolicyError::BadSetting { .. } => "bad_setting",
            PolicyError::BadLimit { .. } => "bad_limit",
            PolicyError::Instantiate { .. } => "instantiate",
            PolicyError::Trap { .. } => "trap",
            PolicyError::StackOverflow { .. } => "stack_overflow",
            PolicyError::OutOfFuel { .. } => "out_of_fuel",
            PolicyError::OutOfTime { .. } => "out_of_time",
            PolicyError::OutOfMemory { .. } => "out_of_memory",
            PolicyError::WrongVerdictCount { .. } => "wrong_verdict_count",
            PolicyError::OversizedAnswer { .. } => "oversized_answer",
            PolicyError::BadAnswer { .. } => "bad_answer",
            PolicyError::Busy { .. } => "busy",
            PolicyError::Host { .. } => "host",
        }
    }
}
