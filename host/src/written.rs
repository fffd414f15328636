//! Why a TOML file can't be read, without a word of what stands in it: any line
//! may hold a password.

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
