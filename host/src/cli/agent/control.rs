//! The control file: what the agent shall say of itself, or not say.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// An absent key means that all is well.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Share of its operations that failed, 0 to 1.
    pub error_rate: f64,
    pub sample_error: Option<String>,
    pub active_tasks: Option<u32>,
    pub current_task: Option<String>,
    /// `wedged`, say.
    pub runtime_state: String,
    /// Says nothing at all.
    pub silent: bool,
    /// Ends with this code.
    pub crash: Option<u8>,
    /// Instead of what its plugins make of it.
    pub mcp_server_present: Option<bool>,
    /// Names, or their number; instead of its plugins.
    pub loaded_mcp_tools: Option<Value>,
    pub model_present: Option<bool>,
}

impl Control {
    /// No file is an empty one.
    ///
    /// # Errors
    /// A file that can't be read, or says something that we don't know.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", file.display())),
        };
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
    }
}
