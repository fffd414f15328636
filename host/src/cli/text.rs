//! What others say (a policy, an agent, a name) on its way to a terminal.
//! A newline could forge a line, an escape sequence command the terminal, a mark
//! of writing direction turn a sentence round, and what has no width make two
//! names look like one: all of it is shown as `\n`, `\u{1b}`, `\u{202e}`.

use std::fmt::Write as _;

use serde_json::Value;

/// One cell of a line: shows everything that can't be seen.
pub fn cell(text: &str) -> String {
    escaped(text, |_| false, push_visibly)
}

/// [`cell`] of a field: a string's words, `-` for nothing, anything else as JSON.
pub fn field(of: &Value, key: &str) -> String {
    value(&of[key])
}

/// [`cell`] of words that end a line, where there are any.
pub fn ending(words: Option<&str>) -> String {
    words.map_or(String::new(), |words| format!("  {}", cell(words)))
}

/// [`cell`] of a value.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => cell(text),
        other => cell(&other.to_string()),
    }
}

/// Lines that are ready: their ends stay.
pub fn lines(text: &str) -> String {
    escaped(text, |c| c == '\n', push_visibly)
}

/// JSON stays JSON: what a terminal must not get can only stand in its strings,
/// where `\u202e` means the same.
pub fn json(text: &str) -> String {
    escaped(
        text,
        |c| c == '\n',
        |out, c| {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a string can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

fn escaped(text: &str, stays: impl Fn(char) -> bool, push: impl Fn(&mut String, char)) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) || is_plain(c) { out.push(c) } else { push(&mut out, c) }
    }
    out
}

fn push_visibly(out: &mut String, c: char) {
    match c {
        // As Rust writes them.
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        _ => out.extend(c.escape_unicode()),
    }
}

/// Whether it is what it looks like. Rust's own table knows controls, marks of
/// direction, and what is not assigned; beyond it there is what is drawn as nothing.
fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // A letter first, for a combining mark is escaped only where there is none.
    let mut buffer = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let text = std::str::from_utf8(&buffer[..end]).unwrap_or_default();
    // The blank of East Asian writing has a width.
    c == '\u{3000}' || (text.escape_debug().count() == 2 && !is_blank(c))
}

/// Unicode's Default_Ignorable_Code_Point, as far as Rust takes it for printable.
fn is_blank(c: char) -> bool {
    matches!(c, '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests;
