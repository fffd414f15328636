//! What agents say of themselves, taken as far as it goes: a heartbeat that is
//! authentic and names its workspace is stored, whatever else is wrong in it. What is
//! out of range is clamped, what is too long is cut, what is of another type is left
//! out, and a [`Warning`] says so. Left out means that nothing was said of it.

use std::collections::HashMap;
use std::fmt::Write as _;

use axum::body::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{Said, Tools, required, said, why_not};
use super::error::{Answer, Problem};
use crate::store::{Beat, Credential, Reported};

/// Longest uptime that is believed, in seconds: three hundred years.
const MAX_UPTIME: f64 = 1e10;

/// Most tasks and tools that are believed: what a database's integer holds.
const MAX_COUNT: f64 = i32::MAX as f64;

/// Bytes that are kept of a sample for people; what is longer is cut there.
const MAX_SAMPLE: usize = 4 << 10;

/// Bytes of a runtime's state, which policies compare with words.
const MAX_RUNTIME_STATE: usize = 64;

/// Warnings that one call is answered with; more say nothing new.
const MAX_WARNINGS: usize = 8;

/// Characters of a value that a warning shows.
const SHOWN: usize = 100;

/// Stands for what no text can hold; a warning says where.
const REPLACEMENT: &str = "\u{fffd}";

/// What was not taken as it was said.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Warning {
    #[schema(value_type = String, example = "uptime_seconds")]
    field: &'static str,
    /// What it held; of a long text, the beginning.
    value: Value,
    /// What was taken for it; `null` where it was left out.
    taken: Value,
    /// What would have been right.
    #[schema(value_type = String)]
    expected: &'static str,
}

/// What is to be said about one call.
#[derive(Debug, Default)]
pub(super) struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, field: &'static str, value: Value, taken: Value, expected: &'static str) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(Warning { field, value: shown(value), taken: shown(taken), expected });
        }
    }

    /// Of a value as it was written.
    pub fn left_out(&mut self, field: &'static str, raw: &str, expected: &'static str) {
        let value = if raw.len() > SHOWN { None } else { serde_json::from_str(raw).ok() };
        self.add(field, value.unwrap_or_else(|| raw.into()), Value::Null, expected);
    }

    /// As the row keeps them.
    pub fn stored(&self) -> Option<String> {
        if self.0.is_empty() { None } else { serde_json::to_string(&self.0).ok() }
    }

    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|warning| warning.field)
    }

    pub fn into_answer(self) -> Vec<Warning> {
        self.0
    }

    /// A number within a range; cleared, it is zero.
    fn number(
        &mut self,
        field: &'static str,
        said: Said<f64>,
        max: f64,
        expected: &'static str,
    ) -> Option<f64> {
        let number = said?.unwrap_or_default();
        let taken = number.clamp(0.0, max);
        if taken != number {
            // JSON has no infinity, which a number of too many digits is.
            let value = serde_json::Number::from_f64(number).map_or("a number too large".into(), Value::from);
            self.add(field, value, taken.into(), expected);
        }
        Some(taken)
    }

    /// A text that only people read: its beginning. No database holds a NUL.
    fn sample(&mut self, field: &'static str, said: Said<String>) -> Option<String> {
        let mut text = said?.unwrap_or_default();
        if text.contains('\0') {
            let taken = text.replace('\0', REPLACEMENT);
            self.add(field, text.into(), taken.as_str().into(), "a text without NUL");
            text = taken;
        }
        if text.len() > MAX_SAMPLE {
            let value = text.as_str().into();
            text.truncate(text.floor_char_boundary(MAX_SAMPLE));
            self.add(field, value, format!("the first {} bytes", text.len()).into(), "at most 4096 bytes");
        }
        Some(text)
    }

    /// A word that policies compare with others: cut, it would mean something else.
    fn word(&mut self, field: &'static str, said: Said<String>) -> Option<String> {
        let text = said?.unwrap_or_default();
        if text.len() > MAX_RUNTIME_STATE || text.contains('\0') {
            self.add(field, text.into(), Value::Null, "a text without NUL of at most 64 bytes");
            return None;
        }
        Some(text)
    }
}

/// Enough of a value to recognise it by.
fn shown(value: Value) -> Value {
    match value {
        Value::String(text) if text.chars().nth(SHOWN).is_some() => {
            text.chars().take(SHOWN).chain(['…']).collect::<String>().into()
        }
        other => other,
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct HeartbeatBody {
    #[schema(required, nullable = false)]
    workspace_id: Option<String>,
    /// Share of the agent's own operations that failed, 0 to 1.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<f64>)]
    error_rate: Said<f64>,
    /// A sample for people: what is longer than 4096 bytes is cut there.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    sample_error: Said<String>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<f64>)]
    active_tasks: Said<f64>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<f64>)]
    uptime_seconds: Said<f64>,
    /// A sample for people: what is longer than 4096 bytes is cut there.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    current_task: Said<String>,
    /// Empty when healthy, `wedged` when the agent's runtime is stuck. At most 64 bytes.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    runtime_state: Said<String>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<bool>)]
    mcp_server_present: Said<bool>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<bool>)]
    model_present: Said<bool>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Tools>)]
    loaded_mcp_tools: Said<Tools>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<RuntimeMetadata>)]
    runtime_metadata: Said<RuntimeMetadata>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct RuntimeMetadata {
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Capabilities>)]
    capabilities: Said<Capabilities>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct Capabilities {
    /// The agent reports its own status; none is inferred from its error rate.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<bool>)]
    status_mgmt: Said<bool>,
}

impl HeartbeatBody {
    /// Reads a body: the ordinary one at once, any other field by field.
    pub fn of(bytes: &Bytes) -> Answer<(Self, Warnings)> {
        match serde_json::from_slice(bytes) {
            Ok(body) => Ok((body, Warnings::default())),
            Err(error) => leniently(bytes, &error),
        }
    }

    /// What is stored of it.
    pub fn read(self, by: Credential, warnings: &mut Warnings) -> Answer<Beat> {
        let workspace_id = required("workspace_id", self.workspace_id)?;
        let whole = "a whole number from 0 to 2147483647";
        // Agents measure a float; whole seconds are kept.
        let uptime = self.uptime_seconds.map(|said| said.map(f64::trunc));
        let uptime = warnings.number("uptime_seconds", uptime, MAX_UPTIME, "a number from 0 to 10000000000");
        let tools = self.loaded_mcp_tools.map(|said| {
            let number = said.map(|Tools(number)| number)?;
            warnings.number("loaded_mcp_tools", Some(Some(number)), MAX_COUNT, whole)
        });
        let active_tasks = warnings.number("active_tasks", self.active_tasks, MAX_COUNT, whole);
        let native_status = inner(self.runtime_metadata, |m| inner(m.capabilities, |c| c.status_mgmt));
        Ok(Beat {
            workspace_id,
            token: by.token,
            open: by.open,
            error_rate: warnings.number("error_rate", self.error_rate, 1.0, "a number from 0 to 1"),
            sample_error: warnings.sample("sample_error", self.sample_error),
            active_tasks: active_tasks.map(|number| number as u32),
            uptime_seconds: uptime.map(|seconds| seconds as u64),
            current_task: warnings.sample("current_task", self.current_task),
            runtime_state: warnings.word("runtime_state", self.runtime_state),
            reported: Reported::default()
                .mcp_server_present(self.mcp_server_present)
                .model_present(self.model_present)
                .loaded_mcp_tools(tools.map(|said| said.map(|number| number as u32)))
                .native_status(native_status),
            warnings: warnings.stored(),
        })
    }
}

/// A field of what is said; where that is cleared, so is the field.
fn inner<T, U>(said: Said<T>, of: impl FnOnce(T) -> Said<U>) -> Said<U> {
    match said {
        Some(Some(outer)) => of(outer),
        Some(None) => Some(None),
        None => None,
    }
}

/// A body whose fields are not all as they should be, or that is no JSON but nearly.
fn leniently(bytes: &Bytes, error: &serde_json::Error) -> Answer<(HeartbeatBody, Warnings)> {
    let text = repaired(bytes);
    let Some(fields) = Fields::of(&text) else { return Err(why_not::<HeartbeatBody>(bytes, error)) };
    let mut warnings = Warnings::default();
    let workspace_id = match fields.0.get("workspace_id").map(|raw| raw.get()) {
        Some(raw) => serde_json::from_str(raw).map_err(|_| {
            let value = serde_json::from_str(raw).unwrap_or_else(|_| raw.into());
            Problem::field("workspace_id", value, "a string that is not empty")
        })?,
        None => None,
    };
    let broken = std::str::from_utf8(bytes).is_err();
    let people = |field: &'static str, to: &mut Warnings| -> Said<String> {
        let said: Said<String> = fields.read(field, "a text", to, json);
        if let Some(Some(text)) = said.as_ref().filter(|_| broken)
            && text.contains(REPLACEMENT)
        {
            to.add(field, text.as_str().into(), text.as_str().into(), "text in UTF-8");
        }
        said
    };
    let to = &mut warnings;
    let body = HeartbeatBody {
        workspace_id,
        error_rate: fields.read("error_rate", "a number from 0 to 1", to, number),
        sample_error: people("sample_error", to),
        active_tasks: fields.read("active_tasks", "a whole number", to, number),
        uptime_seconds: fields.read("uptime_seconds", "a number of seconds", to, number),
        current_task: people("current_task", to),
        runtime_state: people("runtime_state", to),
        mcp_server_present: fields.read("mcp_server_present", "true or false", to, json),
        model_present: fields.read("model_present", "true or false", to, json),
        loaded_mcp_tools: fields.read("loaded_mcp_tools", "a list of tool names, or their number", to, tools),
        runtime_metadata: metadata(&fields, to),
    };
    Ok((body, warnings))
}

fn metadata(fields: &Fields<'_>, warnings: &mut Warnings) -> Said<RuntimeMetadata> {
    let object = "an object";
    inner(fields.read("runtime_metadata", object, warnings, Fields::of), |metadata| {
        let capabilities = metadata.named("capabilities", "runtime_metadata.capabilities");
        let capabilities = inner(capabilities.read(object, warnings, Fields::of), |capabilities| {
            let field = capabilities.named("status_mgmt", "runtime_metadata.capabilities.status_mgmt");
            Some(Some(Capabilities { status_mgmt: field.read("true or false", warnings, json) }))
        });
        Some(Some(RuntimeMetadata { capabilities }))
    })
}

/// The fields of an object, unread. Of two of one name the last counts.
struct Fields<'a>(HashMap<String, &'a RawValue>);

/// One of them, and what warnings call it.
struct Field<'a> {
    raw: Option<&'a str>,
    named: &'static str,
}

impl<'a> Fields<'a> {
    fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    fn named(&self, name: &str, named: &'static str) -> Field<'a> {
        Field { raw: self.0.get(name).map(|raw| raw.get()), named }
    }

    fn read<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        warnings: &mut Warnings,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Said<T> {
        self.named(name, name).read(expected, warnings, read)
    }
}

impl<'a> Field<'a> {
    /// `null` and an empty text clear it; what can't be read is left out.
    fn read<T>(
        self,
        expected: &'static str,
        warnings: &mut Warnings,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Said<T> {
        let raw = self.raw?;
        if ["null", "\"\""].contains(&raw) {
            return Some(None);
        }
        let value = read(raw);
        if value.is_none() {
            warnings.left_out(self.named, raw, expected);
        }
        value.map(Some)
    }
}

fn json<'a, T: Deserialize<'a>>(raw: &'a str) -> Option<T> {
    serde_json::from_str(raw).ok()
}

/// Also one that 64 bits don't hold, to be clamped.
fn number(raw: &str) -> Option<f64> {
    raw.parse().ok()
}

fn tools(raw: &str) -> Option<Tools> {
    let list = || json::<Vec<IgnoredAny>>(raw).map(|names| names.len() as f64);
    number(raw).or_else(list).map(Tools)
}

/// A body as JSON has it: without a byte-order mark, broken UTF-8, control characters
/// in its strings, and the `NaN` and `Infinity` that some languages write for numbers.
fn repaired(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut json = String::with_capacity(rest.len());
    let (mut within, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
        let read = match word.filter(|_| !within) {
            Some(word) => {
                let _ = write!(json, "\"{word}\"");
                word.len()
            }
            None if within && c.is_ascii_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
                1
            }
            None => {
                json.push(c);
                c.len_utf8()
            }
        };
        within ^= c == '"' && !escaped;
        escaped = within && c == '\\' && !escaped;
        rest = &rest[read..];
    }
    json
}

#[cfg(test)]
mod tests;
