//! The words of a panic, written natively.

use super::*;

fn left(at: Option<&str>, said: &str) -> String {
    let mut words = Words::NONE;
    leave(&mut words, at, said);
    let text = &words.text[..words.length as usize];
    std::str::from_utf8(text).expect("whole characters").to_owned()
}

#[test]
fn words_follow_their_place_and_are_cut_at_a_character() {
    assert_eq!(left(Some("src/lib.rs:20:9"), "no box"), "src/lib.rs:20:9: no box");
    assert_eq!(left(None, ""), "");
    for (width, character) in ["x", "é", "€", "🦀"].into_iter().enumerate() {
        let cut = left(Some("a:1:2"), &character.repeat(1_000));
        assert!(cut.len() > BYTES - width - 1 && cut.len() <= BYTES, "{character}: {}", cut.len());
    }
    assert_eq!(left(Some(&"x".repeat(BYTES)), "lost").len(), BYTES);
}
