//! Why a TOML file can't be read. Of the host's configuration without a word of
//! what stands in it: any line may hold a password.

use serde::de::DeserializeOwned;

/// Names of types as people who write TOML know them.
const PLAINLY: [(&str, &str); 5] = [
    ("u64", "a whole number, 0 or more"),
    ("a sequence", "a list"),
    ("a map", "a table"),
    ("struct ModuleLimits", "a table of limits"),
    ("struct Entry", "a table"),
];

/// Reads a file that holds no secrets.
///
/// # Errors
/// The line, the field with all that leads to it, what was found, and what would be right.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let parsed = toml::Deserializer::parse(text).map_err(|error| exactly(text, None, &error))?;
    serde_path_to_error::deserialize(parsed)
        .map_err(|error| exactly(text, Some(error.path().to_string()), error.inner()))
}

fn exactly(text: &str, path: Option<String>, error: &toml::de::Error) -> String {
    let mut message = error.message().lines().next().unwrap_or_default().to_owned();
    for (name, plain) in PLAINLY {
        if let Some(rest) = message.strip_suffix(&format!("expected {name}")) {
            message = format!("{rest}expected {plain}");
        }
    }
    let path = path.filter(|path| path != ".").map_or(String::new(), |path| format!(", {path}"));
    let line = error.span().and_then(|span| text.get(..span.start));
    line.map_or(message.clone(), |before| {
        format!("line {}{path}: {message}", before.matches('\n').count() + 1)
    })
}

/// Where it broke, at which key, and why.
pub fn why_not(text: &str, error: &toml::de::Error) -> String {
    let reason = reason(error.message());
    let Some(span) = error.span() else { return reason };
    let before = text.get(..span.start).unwrap_or(text);
    let (line, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |at| at + 1));
    let column = before[start..].chars().count() + 1;
    let key = text[start..].lines().next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let key = key.filter(|key| !key.is_empty() && key.chars().all(plain));
    let key = key.map_or(String::new(), |key| format!(", {key}"));
    format!("line {line}, column {column}{key}: {reason}")
}

/// Of what was found only the kind, and what would be right.
fn reason(message: &str) -> String {
    let message = message.trim_end();
    let what = ["invalid type", "invalid value", "unknown variant", "invalid length"];
    if let Some(what) = what.into_iter().find(|what| message.starts_with(what)) {
        let expected = message.rfind(", expected").map_or("", |at| &message[at..]);
        return format!("{what}{expected}");
    }
    let own = ["unknown field", "missing field", "duplicate field", "duplicate key"];
    let harmless = own.iter().any(|what| message.starts_with(what)) || !message.contains(['"', '`', '\'']);
    let first = message.lines().next().unwrap_or_default();
    if harmless { first.to_owned() } else { "it can't be read".to_owned() }
}
