//! The host's log on standard error. A line is one event: whatever a policy, an
//! agent or a name put into it is escaped, an error is shown with its causes, and
//! there are colours on a terminal alone.

use std::fmt;
use std::io::IsTerminal as _;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::text;
use crate::config::LogFormat;
use crate::errors;

const VARIABLE: &str = "SPRAG_LOG";

/// Writes events from now on.
///
/// # Errors
/// `SPRAG_LOG` is no filter.
pub(super) fn start(format: LogFormat) -> anyhow::Result<()> {
    let said = std::env::var_os(VARIABLE).unwrap_or_default();
    let filter = filter(said.to_str().with_context(|| format!("{VARIABLE} is no text"))?)?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|said| !said.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(bounded(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain)
        // A line that can't be written, on a full disk say, is lost: to say so there would panic.
        .log_internal_errors(false)
        .event_format(Lines(format))
        .init();
    Ok(())
}

/// A word alone is a level: as a target it would silence all others, so a
/// misspelt level would.
fn filter(said: &str) -> anyhow::Result<EnvFilter> {
    const EXPECTED: &str =
        "expected off, error, warn, info, debug or trace, or TARGET=LEVEL, with commas between";
    let said = if said.trim().is_empty() { "info" } else { said.trim() };
    let words: Vec<_> = said.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_name = |word: &str| word.chars().all(|c| c.is_alphanumeric() || "_:-".contains(c));
    let wrong = words.iter().find(|word| is_name(word) && word.parse::<LevelFilter>().is_err());
    if let Some(word) = wrong {
        bail!("{VARIABLE} is {said:?}: {word:?} is no level; {EXPECTED}");
    }
    let parsed = EnvFilter::builder().parse(words.join(","));
    parsed.with_context(|| format!("{VARIABLE} is {said:?}; {EXPECTED}"))
}

/// HTTP/2's library warns of what a client does as often as the client likes;
/// `http` says it with a bound. Who names the library hears it all.
fn bounded(filter: EnvFilter) -> EnvFilter {
    let silent = filter.max_level_hint() == Some(LevelFilter::OFF);
    match "h2=error".parse() {
        Ok(quiet) if !silent && !filter.to_string().contains("h2") => filter.add_directive(quiet),
        _ => filter,
    }
}

struct Lines(LogFormat);

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
    /// Those that were text: shown between quotes.
    quoted: Vec<String>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => {
                self.fields.insert(name.trim_start_matches("r#").to_owned(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.quoted.push(field.name().trim_start_matches("r#").to_owned());
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, errors::chain(value).into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        // An event of the crate `log` has its target in a field, and more that nobody reads.
        let target = said.fields.remove("log.target");
        said.fields.retain(|name, _| !name.starts_with("log."));
        let target = target.as_ref().and_then(Value::as_str).unwrap_or(event.metadata().target());
        let mut at = String::new();
        SystemTime.format_time(&mut Writer::new(&mut at))?;
        let level = *event.metadata().level();
        match self.0 {
            LogFormat::Json => json(&mut out, &at, level, target, said),
            LogFormat::Text => line(&mut out, &at, level, target, &said),
        }
    }
}

fn json(out: &mut Writer<'_>, at: &str, level: Level, target: &str, said: Said) -> fmt::Result {
    let mut fields = Map::new();
    fields.insert("message".to_owned(), said.message.into());
    fields.extend(said.fields);
    let event = serde_json::json!({
        "timestamp": at, "level": level.as_str(), "fields": fields, "target": target,
    });
    writeln!(out, "{}", text::json(&event.to_string()))
}

fn line(out: &mut Writer<'_>, at: &str, level: Level, target: &str, said: &Said) -> fmt::Result {
    let (dim, bright, end) = match (out.has_ansi_escapes(), level) {
        (false, _) => ("", "", ""),
        (true, Level::ERROR) => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
        (true, Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
        (true, _) => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
    };
    write!(out, "{dim}{at}{end} {bright}{level:>5}{end} {dim}{target}:{end} {}", text::cell(&said.message))?;
    for (name, value) in &said.fields {
        let shown = match value {
            Value::String(text) if said.quoted.contains(name) => text::cell(&format!("{text:?}")),
            value => text::value(value),
        };
        write!(out, " {dim}{name}={end}{shown}")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests;
