//! Names and the journal; what needs processes is in `tests/it/provision`.

use serde_json::json;

use super::journal::{Admission, Journal, Outcome};
use super::names::{decode, encode};
use crate::provision::{Call, Fence, ProviderError};

#[test]
fn names_come_back_and_are_harmless() {
    for id in ["0198c0de-7a11", "a/b", "..", ".", "%2E", "ü", "a b", "A.b_c-d", "\0"] {
        let name = encode(id).expect("a name");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-_".contains(&b)), "{name}");
        assert_eq!(decode(&name).as_deref(), Some(id));
    }
    assert_eq!(encode(""), None);
    assert_eq!(encode(&"x".repeat(201)), None);
    for strange in ["a.b", "%zz", "%2", "%41", "lost+found"] {
        assert_eq!(decode(strange), None, "{strange}");
    }
}

fn call(epoch: u64, seq: u64, key: &str) -> Call {
    Call { workspace_id: "w".to_owned(), fence: Fence { epoch, seq }, key: key.to_owned() }
}

fn done(value: i32) -> Outcome {
    Outcome::Done(json!(value))
}

#[test]
fn the_three_rules() {
    let dir = tempfile::tempdir().expect("a directory");
    let admit = |call: &Call, what: &str| Journal::in_dir(dir.path()).open().expect("open").admit(call, what);
    let finish = |key: &str, outcome| {
        Journal::in_dir(dir.path()).open().expect("open").finish(key, "do", outcome).expect("finish");
    };
    let stale = |accepted: &str| Err(ProviderError::Stale { accepted: accepted.parse().expect("a fence") });

    assert_eq!(admit(&call(2, 1, "a"), "do"), Ok(Admission::Go));
    assert_eq!(admit(&call(2, 1, "a"), "do"), Ok(Admission::Go), "not finished: once more");
    assert_eq!(admit(&call(2, 1, "b"), "do"), stale("2.1"), "equal under another key");
    assert_eq!(admit(&call(1, 9, "c"), "do"), stale("2.1"));
    finish("a", done(1));
    finish("a", done(2));
    assert_eq!(admit(&call(2, 1, "a"), "do"), Ok(Admission::Replay(done(1))), "the first outcome stays");
    assert_eq!(admit(&call(3, 0, "d"), "do"), Ok(Admission::Go));
    assert_eq!(admit(&call(2, 1, "a"), "do"), Ok(Admission::Replay(done(1))), "a newer fence came since");
    assert!(matches!(
        admit(&call(4, 0, "a"), "do something else"),
        Err(ProviderError::Refused { code, .. }) if code == "key_reused"
    ));
    assert_eq!(admit(&call(2, 2, "e"), "do"), stale("3.0"), "a replay and a refusal accept nothing");
}

#[test]
fn keys_are_forgotten_when_there_are_many_and_are_stale_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::in_dir(dir.path()).open().expect("open");
    for n in 0..100 {
        assert_eq!(journal.admit(&call(1, n, &format!("k{n}")), "do"), Ok(Admission::Go));
        journal.finish(&format!("k{n}"), "do", done(0)).expect("finish");
    }
    assert_eq!(journal.admit(&call(1, 99, "k99"), "do"), Ok(Admission::Replay(done(0))));
    assert!(matches!(journal.admit(&call(1, 0, "k0"), "do"), Err(ProviderError::Stale { .. })));
    let size = std::fs::metadata(dir.path().join("journal.json")).expect("the journal").len();
    assert!(size < 64 * 100, "{size} bytes");
}

#[test]
fn a_broken_journal_accepts_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("journal.json"), "{\"acc").expect("writing");
    assert!(Journal::in_dir(dir.path()).open().is_err());
    assert!(Journal::in_dir(dir.path()).newest().is_err());
}
