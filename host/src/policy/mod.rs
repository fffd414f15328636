//! The only place that knows wasmtime: loads policy modules, probes them, and
//! asks each question of a sandbox that is made for it and then thrown away.
//!
//! A module that imports anything is refused. What goes wrong inside one is a
//! [`PolicyError`], never a panic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::facts::{Question, Setting, Settings, Verdict, Vote};
use crate::machine::Status;

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
    pub fn call(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
}

/// How a sandbox is made.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    pub limits: Limits,
    /// The `sprag` binary, run as `sprag compile-policy` to compile a module
    /// where a limit can really end it.
    pub compiler: PathBuf,
    /// Where this host keeps compiled code (made with mode 0700). None: nowhere.
    pub cache_dir: Option<PathBuf>,
}

/// Why a module was refused or a call failed. [`PolicyError::code`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error("the module can't be instantiated within the limits: {why}")]
    Instantiate { why: String },
    #[error("trap: {why}")]
    Trap { why: String },
    #[error("the stack overflowed its {limit} bytes (limits.stack_bytes)")]
    StackOverflow { limit: usize },
    #[error("all {limit} units of fuel were used (limits.fuel)")]
    OutOfFuel { limit: u64 },
    #[error("the call took longer than {limit_ms} ms (limits.call_ms)")]
    OutOfTime { limit_ms: u64 },
    #[error("the memory would have grown over {limit} bytes (limits.memory_bytes)")]
    OutOfMemory { limit: usize },
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

/// Which of the interface's hooks a module exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    pub guard: bool,
    pub cooldown: bool,
    pub recovery: bool,
}

/// One hook of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    Guard,
    Cooldown,
    Recovery,
}

/// Where a module has something to say. An empty list means all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interest {
    pub hook: Hook,
    /// The interface's cause kinds: `heartbeat`, `commanded`, …
    pub causes: Vec<String>,
    pub statuses: Vec<Status>,
    pub kinds: Vec<String>,
}

/// A setting a module declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingSpec {
    pub name: String,
    pub summary: String,
    pub default: Setting,
}

/// A value at which a policy changes its mind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub fact: String,
    pub setting: String,
}

/// Who a module says it is; asked once, when it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub interests: Vec<Interest>,
    pub settings: Vec<SettingSpec>,
    pub thresholds: Vec<Threshold>,
}

/// Makes sandboxes: one engine, its pool and its epoch thread.
#[derive(Clone)]
pub struct Sandbox {}

/// A compiled, probed module.
pub struct Module {}

impl Sandbox {
    pub fn new(_config: SandboxConfig) -> Result<Self, PolicyError> {
        todo!()
    }

    /// Checks, wraps (a core module), compiles in a child process and probes.
    /// Does not block the caller's thread.
    pub async fn load(&self, _bytes: Bytes) -> Result<Arc<Module>, PolicyError> {
        todo!()
    }

    /// Whether the pooling allocator could be had.
    pub fn pooled(&self) -> bool {
        todo!()
    }
}

impl Module {
    /// `sha256:` and 64 hexadecimal digits of the bytes as they were uploaded.
    pub fn digest(&self) -> &str {
        todo!()
    }

    pub fn manifest(&self) -> &Manifest {
        todo!()
    }

    pub fn hooks(&self) -> Hooks {
        todo!()
    }

    /// Checks given settings against the declared ones (names and types) and
    /// fills in the defaults.
    pub fn settle(&self, _given: &Settings) -> Result<Settings, PolicyError> {
        todo!()
    }

    /// Whether `guard` is to be asked this question at all.
    pub fn is_interested(&self, _question: &Question) -> bool {
        todo!()
    }

    /// Asks `guard.decide` in a new sandbox: one verdict per candidate.
    pub async fn decide(
        &self,
        _question: &Question,
        _settings: &Settings,
    ) -> Result<Vec<Verdict>, PolicyError> {
        todo!()
    }
}

/// A module at its place in a revision, with all its settings.
#[derive(Clone)]
pub struct Binding {
    pub module: Arc<Module>,
    pub settings: Settings,
}

/// An immutable set of bindings that decides. A decision uses one from
/// beginning to end.
#[derive(Clone)]
pub struct Revision {
    pub number: i64,
    pub bindings: Vec<Binding>,
}

impl Revision {
    /// Asks every interested guard, in order. A failed one votes its error.
    pub async fn ask(&self, question: &Question) -> Vec<Vote> {
        let _ = question;
        todo!()
    }
}

/// The hidden verb `compile-policy`: component bytes on standard input,
/// compiled code on standard output, limits as arguments.
pub fn compile_child(_limits: &Limits) -> anyhow::Result<()> {
    todo!()
}
