//! Filters, and lines as an event becomes them.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{Lines, filter};
use crate::config::LogFormat;

#[test]
fn a_filter_is_one_or_refused() {
    for good in
        ["", " \n", "info", "OFF", "sprag=debug", "warn,sprag::store=trace, sqlx=off", "sprag[span]=info"]
    {
        assert!(filter(good).is_ok(), "{good:?}");
    }
    assert_eq!(filter("").expect("a filter").to_string(), "info");
    for bad in ["bogus==x", "inof", "sprag", "sprag=inof", "info,debgu", "=", "[", "a=b=c"] {
        let said = filter(bad).err().map(|error| format!("{error:#}"));
        let said = said.unwrap_or_else(|| panic!("{bad:?} is taken"));
        assert!(
            said.contains(&format!("SPRAG_LOG is {bad:?}")) && said.contains("expected off, error"),
            "{said}"
        );
    }
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] std::io::Error);

fn written(format: LogFormat, ansi: bool) -> String {
    let kept = Kept::default();
    let writer = kept.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(ansi);
    tracing::subscriber::with_default(lines.event_format(Lines(format)).finish(), || {
        let error = Outer(std::io::Error::other("the \u{1b}[2Jcause\nof it"));
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            workspace.id = "a\n\u{202e}b",
            r#loop = "silence",
            n = 7,
            yes = true,
            said = %"\u{9b}31m\nraw",
            error,
            "line one\nERROR forged \u{1b}]0;title\u{7}"
        );
    });
    String::from_utf8(kept.0.lock().expect("the lines").clone()).expect("text")
}

#[test]
fn a_line_is_one_event_whatever_it_holds() {
    let text = written(LogFormat::Text, false);
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    let rest = text.split_once(" WARN sprag::cli::log::tests: ").expect("a level and a target").1;
    let expected = "line one\\nERROR forged \\u{1b}]0;title\\u{7} error=outer: the \\u{1b}[2Jcause\\nof it \
         loop=\"silence\" n=7 said=\\u{9b}31m\\nraw workspace.id=\"a\\n\\u{202e}b\" yes=true\n";
    assert_eq!(rest, expected);
    let coloured = written(LogFormat::Text, true);
    assert!(coloured.contains("\u{1b}[33m WARN\u{1b}[0m") && !coloured.contains("\u{1b}[2J"), "{coloured:?}");
}

#[test]
fn json_holds_the_whole_error() {
    let text = written(LogFormat::Json, false);
    assert!(!text.contains('\u{202e}') && !text.contains('\u{9b}'), "{text:?}");
    let event: Value = serde_json::from_str(&text).expect("JSON");
    let fields = &event["fields"];
    assert_eq!(fields["error"], "outer: the \u{1b}[2Jcause\nof it");
    assert_eq!(fields["workspace.id"], "a\n\u{202e}b");
    assert_eq!((&fields["n"], &fields["yes"]), (&7.into(), &true.into()));
    assert_eq!(fields["loop"], "silence");
    assert_eq!((&event["level"], &event["target"]), (&"WARN".into(), &"sprag::cli::log::tests".into()));
    assert!(event["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')));
}
