//! What is shown as it is and what is not; the verbs are in `tests/it/operators`.

use serde_json::{Value, json};

use super::{cell, json, lines, value};

#[test]
fn what_people_write_stays_as_it_is() {
    for plain in [
        "steady-eddie",
        "C:\\temp \"quoted\" 'too'",
        "Zoë, Ярослав, 田中\u{3000}太郎, أحمد, नमस्ते, ไทย, 한국어",
        "e\u{301}\u{323}",
        "🦀 ✓ → ½",
    ] {
        assert_eq!(cell(plain), plain);
        assert_eq!(json(plain), plain);
    }
}

#[test]
fn what_commands_a_terminal_or_hides_is_shown() {
    let cases = [
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
        ("\u{0}\u{8}\u{7f}", "\\u{0}\\u{8}\\u{7f}"),
        ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
        ("\u{202e}\u{2066}\u{200f}\u{61c}", "\\u{202e}\\u{2066}\\u{200f}\\u{61c}"),
        (
            "a\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}b",
            "a\\u{200b}\\u{200c}\\u{200d}\\u{2060}\\u{feff}\\u{ad}b",
        ),
        ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
        ("\u{e0041}\u{e0100}\u{fe0f}", "\\u{e0041}\\u{e0100}\\u{fe0f}"),
        ("\u{3164}\u{2800}\u{a0}", "\\u{3164}\\u{2800}\\u{a0}"),
    ];
    for (raw, shown) in cases {
        assert_eq!(cell(raw), shown);
    }
    assert_eq!(lines("a\u{1b}\nb\r\n"), "a\\u{1b}\nb\\r\n");
}

#[test]
fn json_stays_json() {
    let hostile: String = (0..0x2100).chain(0xe0000..0xe0100).filter_map(char::from_u32).collect();
    let one = json!({ "na\u{202e}me": hostile, "n": [1, null] });
    let shown = json(&format!("{one:#}"));
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), one);
    assert_eq!(lines(&shown), shown, "nothing is left to escape");
}

#[test]
fn every_value_has_a_cell() {
    assert_eq!(value(&Value::Null), "-");
    assert_eq!(value(&json!(7)), "7");
    assert_eq!(value(&json!("\u{9b}")), "\\u{9b}");
    assert_eq!(value(&json!({ "a": "\u{202e}" })), "{\"a\":\"\\u{202e}\"}");
}
