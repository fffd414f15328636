//! Bodies that are nearly JSON.

use serde_json::{Value, json};

use super::repaired;

#[test]
fn nearly_json_is_read() {
    let cases = [
        (
            "\u{feff}{\"a\": NaN, \"b\": [-Infinity, Infinity]}",
            json!({ "a": "NaN", "b": ["-Infinity", "Infinity"] }),
        ),
        (
            "{\"a\": \"NaN \\\" Infinity\n\", \"b\\\\\": NaN}",
            json!({ "a": "NaN \" Infinity\n", "b\\": "NaN" }),
        ),
        ("{\"a\": \"\u{1}\t\"}", json!({ "a": "\u{1}\t" })),
    ];
    for (text, expected) in cases {
        assert_eq!(serde_json::from_str::<Value>(&repaired(text.as_bytes())).unwrap(), expected, "{text}");
    }
}

#[test]
fn broken_utf8_is_replaced() {
    assert_eq!(repaired(b"{\"a\": \"\xff\"}"), "{\"a\": \"\u{fffd}\"}");
}
