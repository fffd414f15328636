//! What the agent says of itself.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::control::Control;

/// A plugin as a provider delivers it.
#[derive(Deserialize)]
struct Delivered {
    name: String,
}

/// Its readiness.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    mcp_server_present: Option<bool>,
    loaded_mcp_tools: Option<Value>,
    model_present: bool,
}

impl Report {
    /// A platform's tools are its plugins: without any it has none. Other kinds
    /// say nothing of tools unless they are told to.
    pub fn of(control: &Control, kind: &str, plugins: Option<&Path>) -> Self {
        let tools = (kind == "platform").then(|| plugins.map(names).unwrap_or_default());
        Self {
            mcp_server_present: control.mcp_server_present.or(tools.as_ref().map(|t| !t.is_empty())),
            loaded_mcp_tools: control.loaded_mcp_tools.clone().or(tools.map(Value::from)),
            model_present: control.model_present.unwrap_or(true),
        }
    }

    /// The part of a registration and of a heartbeat that policies ask about.
    pub fn readiness(&self) -> Value {
        json!({
            "mcp_server_present": self.mcp_server_present,
            "model_present": self.model_present,
            "loaded_mcp_tools": self.loaded_mcp_tools,
        })
    }

    /// A whole heartbeat.
    pub fn heartbeat(&self, control: &Control, workspace_id: &str, uptime: Duration) -> Value {
        let sample = if control.error_rate > 0.0 { "a tool call failed" } else { "" };
        let mut body = self.readiness();
        body["workspace_id"] = workspace_id.into();
        body["error_rate"] = control.error_rate.into();
        body["sample_error"] = control.sample_error.as_deref().unwrap_or(sample).into();
        body["active_tasks"] = control.active_tasks.unwrap_or_default().into();
        body["current_task"] = control.current_task.as_deref().unwrap_or_default().into();
        body["uptime_seconds"] = uptime.as_secs().into();
        body["runtime_state"] = control.runtime_state.clone().into();
        body
    }
}

/// The names in a plugins file; none where it can't be read.
fn names(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let plugins: Vec<Delivered> = serde_json::from_slice(&bytes).unwrap_or_default();
    plugins.into_iter().map(|plugin| plugin.name).collect()
}
