//! Every module of `tests/guests` ends in its named error, at load or at the
//! decision, and the same sandbox then decides rightly with a good one.

use bytes::Bytes;
use rstest::rstest;
use sprag::facts::{Answer, Reason, Settings, Verdict};
use sprag::policy::{Limits, PolicyError, Sandbox};

use crate::support::sandbox::{core_module, guest, limits, load, question, revision, sandbox};

const MIB: usize = 1 << 20;

/// The host must be none the worse: a good policy decides as ever.
async fn assert_alive(sandbox: &Sandbox) {
    let good = load(sandbox, "good").await;
    let verdicts = good.decide(&question(), &Settings::new()).await.expect("a good policy");
    let allow = Verdict::Allow(Reason { code: "good".to_owned(), detail: None });
    assert_eq!(verdicts, [allow.clone(), allow]);
}

async fn refused(sandbox: &Sandbox, bytes: Bytes) -> PolicyError {
    match sandbox.load(bytes).await {
        Ok(module) => panic!("{} was loaded", module.manifest().name),
        Err(error) => error,
    }
}

#[rstest]
#[case("imports", "import", "env now")]
#[case("component-imports", "import", "wasi:clocks/wall-clock@0.2.0 now")]
#[case("component-types-only", "wrong_interface", "about")]
#[case("exports-nothing-else", "wrong_interface", "guard")]
#[case("decides-otherwise", "wrong_interface", "expected 1")]
#[case("start-traps", "trap", "unreachable")]
#[case("start-loops", "out_of_fuel", "10000000")]
#[case("describe-traps", "trap", "unreachable")]
#[case("too-much-memory", "instantiate", "(limits.memory_bytes)")]
#[case("bad-name", "bad_manifest", "Bad Name")]
#[case("bad-version", "bad_manifest", "1.x.y")]
#[case("nan-default", "bad_manifest", "threshold")]
#[case("interested-elsewhere", "bad_manifest", "cooldown")]
#[case("long-summary", "oversized_answer", "limits.string_bytes")]
#[case("same-setting-twice", "bad_manifest", "threshold")]
#[tokio::test]
async fn is_refused_at_load(#[case] name: &str, #[case] code: &str, #[case] says: &str) {
    let sandbox = sandbox(limits());
    let error = refused(&sandbox, guest(name)).await;
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_alive(&sandbox).await;
}

#[rstest]
#[case::empty(b"".to_vec(), "not_wasm")]
#[case::garbage(b"no module at all".to_vec(), "not_wasm")]
#[case::header_alone(b"\0asm".to_vec(), "not_wasm")]
#[case::cut_short(guest("good").slice(..200).to_vec(), "not_wasm")]
#[case::an_empty_module(b"\0asm\x01\0\0\0".to_vec(), "wrong_interface")]
#[case::an_empty_component(b"\0asm\x0d\0\x01\0".to_vec(), "wrong_interface")]
#[case::too_large(vec![0; 2 * MIB + 1], "module_too_large")]
#[tokio::test]
async fn bytes_are_refused(#[case] bytes: Vec<u8>, #[case] code: &str) {
    let sandbox = sandbox(limits());
    let error = refused(&sandbox, bytes.into()).await;
    assert_eq!(error.code(), code, "{error}");
    assert_alive(&sandbox).await;
}

#[rstest]
#[case("trap", "trap")]
#[case("divides-by-zero", "trap")]
#[case("realloc-traps", "trap")]
#[case("grows-table", "trap")]
#[case("grows-over-its-maximum", "trap")]
#[case("loops", "out_of_fuel")]
#[case("grows-memory", "out_of_memory")]
#[case("recurses", "stack_overflow")]
#[case("too-few", "wrong_verdict_count")]
#[case("too-many", "wrong_verdict_count")]
#[case("long-list", "oversized_answer")]
#[case("lying-list", "bad_answer")]
#[case("long-string", "oversized_answer")]
#[case("huge-string", "out_of_memory")]
#[case("lying-string", "bad_answer")]
#[case("not-utf8", "bad_answer")]
#[case("no-such-verdict", "bad_answer")]
#[case("odd-pointer", "bad_answer")]
#[case("wild-pointer", "bad_answer")]
#[case("empty-code", "bad_answer")]
#[case("shouted-code", "bad_answer")]
#[tokio::test]
async fn fails_its_decision(#[case] name: &str, #[case] code: &str) {
    let sandbox = sandbox(limits());
    let module = load(&sandbox, name).await;
    let error = module.decide(&question(), &Settings::new()).await.expect_err(name);
    assert_eq!(error.code(), code, "{error}");
    assert_alive(&sandbox).await;
}

/// Each limit by itself: the others are out of the way.
#[rstest]
#[case("loops", Limits { fuel: u64::MAX, call_ms: 50, ..limits() }, "out_of_time", "limits.call_ms")]
#[case("huge-string", Limits { memory_bytes: 256 * MIB, ..limits() }, "oversized_answer", "limits.answer_bytes")]
#[case("large-string", limits(), "oversized_answer", "limits.answer_bytes")]
#[case("recurses", Limits { stack_bytes: 64 << 10, ..limits() }, "stack_overflow", "65536")]
#[tokio::test]
async fn fails_under_limits(
    #[case] name: &str,
    #[case] limits: Limits,
    #[case] code: &str,
    #[case] says: &str,
) {
    let sandbox = sandbox(limits);
    let module = load(&sandbox, name).await;
    let error = module.decide(&question(), &Settings::new()).await.expect_err(name);
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_alive(&sandbox).await;
}

/// A megabyte of one function: quick to send, slow to compile.
fn compile_bomb() -> Bytes {
    let mut body = String::from(";; include memory.inc\n;; include about.inc\n;; include verdicts.inc\n");
    body.push_str("(func (export \"sprag:policy/guard@1.0.0#decide\") (param i32) (result i32)\n");
    body.push_str("(local i64)\n");
    for _ in 0..120_000 {
        body.push_str("(local.set 1 (i64.mul (local.get 1) (i64.load (i32.wrap_i64 (local.get 1)))))\n");
    }
    body.push_str("unreachable)\n");
    core_module(&body)
}

#[tokio::test]
async fn a_compile_bomb_is_ended() {
    let patient = sandbox(limits());
    let hasty = sandbox(Limits { compile_ms: 50, ..limits() });
    let bomb = compile_bomb();
    assert!(bomb.len() < limits().module_bytes, "{}", bomb.len());
    let started = std::time::Instant::now();
    assert_eq!(refused(&hasty, bomb).await, PolicyError::CompileTimeout { limit_ms: 50 });
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    assert_alive(&patient).await;
}

#[tokio::test]
async fn compiling_has_bounded_memory() {
    let poor = sandbox(Limits { compile_memory_bytes: 96 << 20, ..limits() });
    let error = refused(&poor, compile_bomb()).await;
    assert_eq!(error.code(), "compile", "{error}");
    assert_alive(&poor).await;
}

/// State of an earlier call is never seen, not after a trap either.
#[tokio::test]
async fn calls_share_nothing() {
    let sandbox = sandbox(limits());
    let counter = load(&sandbox, "counts-calls").await;
    let trap = load(&sandbox, "trap").await;
    for _ in 0..20 {
        let verdicts = counter.decide(&question(), &Settings::new()).await.expect("verdicts");
        let first = Verdict::Allow(Reason { code: "calls-1".to_owned(), detail: None });
        assert_eq!(verdicts, [first.clone(), first]);
        trap.decide(&question(), &Settings::new()).await.expect_err("a trap");
    }
}

/// In a revision a failed guard votes its error, in its place, and the others
/// are asked all the same.
#[tokio::test]
async fn a_failure_is_a_vote() {
    let sandbox = sandbox(limits());
    let revision = revision(&sandbox, 7, &["good", "trap", "one-setting"]).await;
    let votes = revision.ask(&question()).await;
    let answers: Vec<_> = votes.iter().map(|v| &v.answer).collect();
    match answers.as_slice() {
        [Answer::Verdicts(_), Answer::Error(fault), Answer::Verdicts(_)] => assert_eq!(fault.code, "trap"),
        other => panic!("{other:?}"),
    }
    assert_eq!(votes[0].by.digest, revision.bindings[0].module.digest());
}

/// A call that is given up in the middle takes its sandbox with it.
#[tokio::test]
async fn a_cancelled_call_leaves_nothing() {
    let sandbox = sandbox(Limits { fuel: u64::MAX, call_ms: 60_000, concurrency: 1, ..limits() });
    let loops = load(&sandbox, "loops").await;
    let (question, settings) = (question(), Settings::new());
    let patience = std::time::Duration::from_millis(30);
    for _ in 0..3 {
        let call = loops.decide(&question, &settings);
        assert!(tokio::time::timeout(patience, call).await.is_err());
    }
    assert_alive(&sandbox).await;
}
