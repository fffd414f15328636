//! What a text of durations says, what none is, and durations in words.

use std::time::Duration;

use crate::{NamedDurations, Setting, SettingValue, in_words};

fn millis(text: &str, name: &str) -> Option<u64> {
    let found = NamedDurations::from(text).get(name).unwrap_or_else(|e| panic!("{text:?}: {e:?}"));
    found.map(|duration| u64::try_from(duration.as_millis()).unwrap())
}

#[test]
fn every_unit_is_read_and_blanks_don_t_matter() {
    let cases = [
        ("codex=250ms", Some(250)),
        ("codex=45s", Some(45_000)),
        ("codex=2m", Some(120_000)),
        ("codex=3h", Some(10_800_000)),
        ("codex=0s", Some(0)),
        ("  codex =\t2m ", Some(120_000)),
        ("aider=45s,codex=2m", Some(120_000)),
        ("codex=2m, aider=45s", Some(120_000)),
        ("codex=18446744073709551615ms", Some(u64::MAX)),
        ("aider=45s", None),
        ("Codex=2m, codex-2=2m", None),
        ("", None),
        ("  ", None),
    ];
    for (text, expected) in cases {
        assert_eq!(millis(text, "codex"), expected, "{text:?}");
    }
}

#[test]
fn one_bad_entry_spoils_the_text_whoever_asks() {
    let bad = [
        "codex",
        "codex=",
        "=2m",
        "codex=m",
        "codex=2",
        "codex=2x",
        "codex=2M",
        "codex=2 m",
        "codex=2d",
        "codex=-2m",
        "codex=+2m",
        "codex=1.5m",
        "codex=1h30m",
        "codex=2m=3m",
        "codex:2m",
        "codex=2m aider=45s",
        "codex=2m; aider=45s",
        "codex aider=45s",
        "codex=2m,",
        ",",
        "codex=2m,,aider=45s",
        "codex=18446744073709551616ms",
        "codex=18446744073709551615s",
        "codex=2m, codex=2m",
    ];
    for text in bad {
        for text in [text.to_owned(), format!("hermes=1m, {text}")] {
            for name in ["codex", "hermes", "claude-code"] {
                assert!(NamedDurations::from(&*text).get(name).is_err(), "{text:?} for {name}");
            }
        }
    }
}

#[test]
fn a_text_has_so_many_names_and_no_more() {
    let text = |count: u32| (0..count).map(|i| format!("runtime-{i}=1s")).collect::<Vec<_>>().join(",");
    assert_eq!(millis(&text(64), "runtime-63"), Some(1_000));
    assert!(NamedDurations::from(&*text(65)).get("runtime-0").is_err());
}

#[test]
fn the_denial_names_the_setting_the_entry_and_what_would_be_right() {
    let denial = |text: &str| {
        let verdict = NamedDurations::from(text).get("codex").unwrap_err().deny("windows");
        assert!(matches!(verdict, crate::Verdict::Deny(_)) && verdict.code() == Some("bad-setting"));
        verdict.reason().unwrap().detail.clone().unwrap()
    };
    assert_eq!(
        denial("hermes=1m, codex=2x"),
        "windows has \"codex=2x\", which can't be read; write name=duration, each name once, \
         in whole ms, s, m or h: \"codex=2m, aider=45s\""
    );
    assert!(denial("codex=2m,codex=3m").starts_with("windows has \"codex=3m\", which has a name that stood"));
    let long = denial(&"ü".repeat(4_000));
    assert!(long.chars().count() < 250 && long.contains(&"ü".repeat(80)), "{long}");
}

#[test]
fn as_a_setting_it_is_text_and_unread() {
    let given = Setting::Text("codex=2x".to_owned());
    let windows = NamedDurations::from_setting(&given).expect("a text");
    assert_eq!(windows.to_setting(), given);
    assert!(windows.get("codex").is_err(), "a typo is no default");
    assert_eq!(NamedDurations::from_setting(&Setting::Duration(1)), None);
    assert_eq!(NamedDurations::none().to_setting(), Setting::Text(String::new()));
}

#[test]
fn durations_in_words() {
    let cases = [
        (0, "0s"),
        (7, "7ms"),
        (1_500, "1s 500ms"),
        (59_999, "59s 999ms"),
        (60_999, "1m"),
        (90_000, "1m 30s"),
        (3_600_000, "1h"),
        (5_405_000, "1h 30m 5s"),
        (360_000_000, "100h"),
    ];
    for (millis, expected) in cases {
        assert_eq!(in_words(Duration::from_millis(millis)), expected);
    }
    assert!(!in_words(Duration::MAX).is_empty());
}
