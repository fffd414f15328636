//! Settings of every type: the manifest's side and the reader's side agree.

use std::time::Duration;

use crate::{Setting, Settings as _};

crate::settings! {
    /// One of each.
    struct Everything {
        /// A share.
        degrade_at: f64 = 0.5,
        /// Whether to be strict.
        strict: bool = true,
        /// Who to tell,
        /// in a word.
        who_to_tell: String = "ops".to_owned(),
        /// How long.
        grace: Duration = Duration::from_secs(300),
    }
}

fn given(name: &str, value: Setting) -> Vec<(String, Setting)> {
    vec![(name.to_owned(), value)]
}

#[test]
fn the_manifest_has_names_summaries_and_defaults() {
    let specs: Vec<_> =
        Everything::specs().into_iter().map(|spec| (spec.name, spec.summary, spec.default)).collect();
    let expected = [
        ("degrade-at", "A share.", Setting::Number(0.5)),
        ("strict", "Whether to be strict.", Setting::Flag(true)),
        ("who-to-tell", "Who to tell, in a word.", Setting::Text("ops".to_owned())),
        ("grace", "How long.", Setting::Duration(300_000)),
    ];
    assert_eq!(specs, expected.map(|(name, summary, value)| (name.to_owned(), summary.to_owned(), value)));
}

#[test]
fn what_the_manifest_declares_reads_back_as_the_defaults() {
    let declared: Vec<_> = Everything::specs().into_iter().map(|spec| (spec.name, spec.default)).collect();
    assert_eq!(Everything::read(&declared), Everything::default());
    assert_eq!(Everything::read(&[]), Everything::default());
}

#[test]
fn given_values_are_read() {
    let all = [
        given("degrade-at", Setting::Number(0.25)),
        given("strict", Setting::Flag(false)),
        given("who-to-tell", Setting::Text("sre".to_owned())),
        given("grace", Setting::Duration(1_500)),
    ]
    .concat();
    let expected = Everything {
        degrade_at: 0.25,
        strict: false,
        who_to_tell: "sre".to_owned(),
        grace: Duration::from_millis(1_500),
    };
    assert_eq!(Everything::read(&all), expected);
}

#[test]
fn a_wrong_type_an_unknown_name_and_no_number_leave_the_default() {
    for name in ["degrade-at", "strict", "who-to-tell", "grace", "nobody-declared-me", "degrade_at"] {
        for value in [
            Setting::Number(f64::NAN),
            Setting::Number(f64::INFINITY),
            if name == "strict" { Setting::Number(1.0) } else { Setting::Flag(false) },
            if name == "who-to-tell" { Setting::Duration(1) } else { Setting::Text("x".to_owned()) },
        ] {
            assert_eq!(
                Everything::read(&given(name, value.clone())),
                Everything::default(),
                "{name} {value:?}"
            );
        }
    }
}
