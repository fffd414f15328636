//! The only place that knows wasmtime: loads policy modules, probes them, and
//! asks each question of a sandbox that is made for it and then thrown away.
//!
//! A module that imports anything is refused. What goes wrong inside one is a
//! [`PolicyError`], never a panic.
//!
//! - `wrap`, `compile`, `cache`: from uploaded bytes to native code, in a child
//! - `sandbox`, `engine`: one engine, its pool, its limits and its epoch
//! - `module`, `revision`: one decision, and all that are bound
//! - `bindings`, `convert`, `manifest`: the interface and our own words
//! - `classify`, `fault`: what wasmtime says, as one of our errors; where a trap happened

mod bindings;
mod cache;
mod classify;
mod compile;
mod convert;
mod engine;
mod error;
mod fault;
mod limits;
mod manifest;
mod module;
mod revision;
mod sandbox;
#[cfg(test)]
mod tests;
mod wrap;

use std::path::PathBuf;

pub use classify::{clip, escaped};
pub use compile::{VERB as COMPILE_VERB, compile_child};
pub use error::{Place, PolicyError};
pub use limits::Limits;
pub use manifest::{Hook, Hooks, Interest, Manifest, SettingSpec, Threshold};
pub use module::Module;
pub use revision::{Binding, Revision};
pub use sandbox::Sandbox;

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
