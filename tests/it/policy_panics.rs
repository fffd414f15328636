//! What a module says as it ends is told beside the function that it ended in;
//! nothing of it is believed: where it lies, how long it is, that it is text.

use bytes::Bytes;
use rstest::rstest;
use sprag::facts::Settings;
use sprag::policy::{Limits, PolicyError};

use crate::support::sandbox::{core_module, guest, limits, panics, question, sandbox};

/// More than names and words together may be.
const LONGEST: usize = 1_200;

async fn fault(bytes: Bytes, id: &str, limits: Limits) -> PolicyError {
    let module = sandbox(limits).load(bytes).await.unwrap_or_else(|error| panic!("{id}: {error}"));
    let mut asked = question();
    id.clone_into(&mut asked.workspace.id);
    module.decide(&asked, &Settings::new()).await.expect_err(id)
}

/// With the SDK as it is built for authors.
#[rstest]
#[case("unwrap", "called `Option::unwrap()` on a `None` value")]
#[case("expect", "a boot has a box: \"no such box\"")]
#[case("index", "index out of bounds: the len is 3 but the index is 3")]
#[case("divides", "attempt to divide by zero")]
#[case("words", "the fleet of words has no name")]
#[case("clock", "time not implemented on this platform")]
#[case("escapes", "\\u{1b}[31mred\\u{1b}[0m\\r\\nERROR forged\\u{202e}\\0")]
#[tokio::test]
async fn a_panic_says_what_it_said(#[case] how: &str, #[case] says: &str) {
    let error = fault(panics(), how, limits()).await;
    let said = error.to_string();
    assert_eq!(error.code(), "trap", "{said}");
    assert!(said.starts_with("trap: it panicked, in panics::fail"), "{said}");
    assert!(said.ends_with(says), "{said}");
    // And where: the author's own line, but for what the standard library says of itself.
    let place = if how == "clock" { "/time" } else { "examples/panics.rs:" };
    assert!(said.contains(place), "{said}");
    assert!(!said.chars().any(char::is_control), "{said:?}");
}

#[tokio::test]
async fn what_a_panic_says_is_cut_not_lost() {
    let said = fault(panics(), "long", limits()).await.to_string();
    assert!(said.contains("examples/panics.rs:") && said.contains(&"é".repeat(200)), "{said}");
    assert!(said.len() < LONGEST && !said.contains('\u{fffd}'), "{said}");
    // There is no room for it in the module's own memory.
    let said = fault(panics(), "larger", limits()).await.to_string();
    assert!(said.contains("it panicked") && said.contains("in panics::fail"), "{said}");
    let said = fault(panics(), "spent", limits()).await.to_string();
    assert!(said.contains("one call is used up") && said.contains("in panics::fail"), "{said}");
    let said = fault(panics(), "own-hook", limits()).await.to_string();
    assert!(said.starts_with("trap: it ") && said.contains("panics::"), "{said}");
}

/// Whatever ended it, the function is told.
#[rstest]
#[case(panics(), "spins", limits(), "out_of_fuel", "panics::spin")]
#[case(panics(), "spins", Limits { fuel: u64::MAX, call_ms: 50, ..limits() }, "out_of_time", "panics::spin")]
#[case(guest("recurses"), "ws-1", limits(), "stack_overflow", "deeper")]
#[case(guest("grows-memory"), "ws-1", limits(), "out_of_memory", "grows")]
#[case(guest("grows-table"), "ws-1", limits(), "trap", "grows")]
#[tokio::test]
async fn a_limit_says_where(
    #[case] bytes: Bytes,
    #[case] id: &str,
    #[case] limits: Limits,
    #[case] code: &str,
    #[case] function: &str,
) {
    let error = fault(bytes, id, limits).await;
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(&format!(", in {function}")), "{error}");
}

/// A module that panics with these fields beside its own.
fn says(fields: &str) -> Bytes {
    core_module(&format!(
        ";; include memory.inc\n;; include about.inc\n;; include verdicts.inc\n{fields}\n\
         (func $mine unreachable)\n\
         (func (export \"sprag:policy/guard@1.0.0#decide\") (param $request i32) (result i32)\n\
         (call $mine) unreachable)\n"
    ))
}

/// The static at `at`, with `bytes` there.
fn words(at: u32, bytes: &[u8]) -> Bytes {
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    says(&format!(
        "(global (export \"sprag_policy_panic\") i32 (i32.const {}))\n(data (i32.const {}) \"{data}\")",
        at.cast_signed(),
        at.min(0x1_0000).cast_signed()
    ))
}

fn counted(length: u32, text: &[u8]) -> Vec<u8> {
    length.to_le_bytes().into_iter().chain(text.iter().copied()).collect()
}

#[tokio::test]
async fn any_language_may_leave_its_words() {
    let said = fault(words(0x800, &counted(8, b"mine: no")), "ws-1", limits()).await.to_string();
    assert_eq!(said, "trap: it panicked, in mine: mine: no");
}

/// Claims that are not believed. Nothing is read beyond the memory, nor much of it.
#[rstest]
#[case::a_length_that_lies(words(0x800, &counted(u32::MAX, b"words")), "words\\0\\0")]
#[case::not_utf8(words(0x800, &counted(5, b"a\xff\xfe\x80b")), ": a\u{fffd}\u{fffd}\u{fffd}b")]
#[case::escapes(words(0x800, &counted(6, b"\x1b[2J\n\0")), ": \\u{1b}[2J\\n\\0")]
#[case::at_the_memorys_end(words(0x1_fffb, b""), "in mine")]
#[case::one_byte_before_its_end(words(0x1_ffff, b""), "in mine")]
#[case::at_its_end(words(0x2_0000, b""), "in mine")]
#[case::beyond_it(words(u32::MAX, b""), "in mine")]
#[case::nothing(words(0x800, &counted(0, b"old")), "in mine")]
#[case::wide(says("(global (export \"sprag_policy_panic\") i64 (i64.const 2048))"), "in mine")]
#[case::no_number(says("(global (export \"sprag_policy_panic\") (mut f64) (f64.const nan))"), "in mine")]
#[case::a_function(says("(func (export \"sprag_policy_panic\") (result i32) unreachable)"), "in mine")]
#[case::none(says(""), "in mine")]
#[tokio::test]
async fn a_module_is_not_believed(#[case] bytes: Bytes, #[case] says: &str) {
    let error = fault(bytes, "ws-1", limits()).await;
    let said = error.to_string();
    assert_eq!(error.code(), "trap", "{said}");
    assert!(said.contains(", in mine") && said.contains(says), "{said}");
    assert!(says != "in mine" || said.ends_with(says), "nothing is made up: {said}");
    assert!(said.len() < LONGEST && !said.chars().any(char::is_control), "{said:?}");
}

/// Names are copied for every frame of a trap: there is a bound, and it is named.
#[rstest]
#[case(5_000, true)]
#[case(65_536, true)]
#[case(65_537, false)]
#[tokio::test]
async fn a_name_is_no_novel(#[case] length: usize, #[case] loads: bool) {
    let long = "n".repeat(length);
    let fields = format!(
        ";; include memory.inc\n;; include about.inc\n;; include verdicts.inc\n\
         (func ${long} (param i64) (result i64) (i64.add (call ${long} (local.get 0)) (local.get 0)))\n\
         (func (export \"sprag:policy/guard@1.0.0#decide\") (param i32) (result i32)\n\
         (i32.wrap_i64 (call ${long} (i64.const 1))))"
    );
    let bytes = core_module(&fields);
    if loads {
        let said = fault(bytes, "ws-1", limits()).await.to_string();
        assert!(said.contains(", in nnnn") && said.len() < LONGEST, "{said}");
    } else {
        let refused = sandbox(limits()).load(bytes).await.err().expect("too long").to_string();
        assert!(refused.contains("a function's name has 65537 bytes; at most 65536"), "{refused}");
    }
}
