//! What a sandbox promises beside its limits: code that is kept and checked,
//! settings, interests, a pool that may be missing, many at once.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sprag::facts::{Setting, Settings};
use sprag::machine::Status;
use sprag::policy::{Limits, PolicyError, Sandbox, SandboxConfig};

use crate::support;
use crate::support::sandbox::{guest, limits, load, question, sandbox};

fn caching(dir: &Path, compiler: PathBuf) -> Sandbox {
    let cache_dir = Some(dir.to_owned());
    Sandbox::new(SandboxConfig { limits: limits(), compiler, cache_dir }).expect("a sandbox")
}

/// A compiler that can't run: what loads nevertheless came from the cache.
fn no_compiler() -> PathBuf {
    PathBuf::from("/nonexistent/sprag")
}

fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<_> =
        std::fs::read_dir(dir).expect("the cache").map(|e| e.expect("a file").path()).collect();
    match files.as_slice() {
        [file] => file.clone(),
        files => panic!("{files:?}"),
    }
}

#[tokio::test]
async fn compiled_code_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("code");
    caching(&dir, support::sprag_bin()).load(guest("good")).await.expect("compiled");
    assert_eq!(std::fs::metadata(&dir).expect("the cache").permissions().mode() & 0o777, 0o700);

    let kept = caching(&dir, no_compiler());
    let module = kept.load(guest("good")).await.expect("from the cache");
    assert_eq!(module.decide(&question(), &Settings::new()).await.expect("verdicts").len(), 2);
    let miss = kept.load(guest("trap")).await.err().expect("never compiled");
    assert_eq!(miss.code(), "host", "{miss}");
}

#[tokio::test]
async fn damaged_code_is_compiled_again() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("code");
    caching(&dir, support::sprag_bin()).load(guest("good")).await.expect("compiled");
    let file = only_file(&dir);
    let sound = std::fs::read(&file).expect("the code");

    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damaged in [flipped, sound[..sound.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&file, damaged).expect("damage");
        let miss = caching(&dir, no_compiler()).load(guest("good")).await.err().expect("a miss");
        assert_eq!(miss.code(), "host", "{miss}");
    }
    caching(&dir, support::sprag_bin()).load(guest("good")).await.expect("compiled again");
    assert_eq!(std::fs::read(&file).expect("the code"), sound);
}

/// Sound code under another module's name is not that module's.
#[tokio::test]
async fn code_is_bound_to_its_module() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    caching(&one, support::sprag_bin()).load(guest("good")).await.expect("compiled");
    caching(&other, support::sprag_bin()).load(guest("trap")).await.expect("compiled");
    std::fs::copy(only_file(&other), only_file(&one)).expect("a swap");
    let miss = caching(&one, no_compiler()).load(guest("good")).await.err().expect("a miss");
    assert_eq!(miss.code(), "host", "{miss}");
}

#[tokio::test]
async fn a_cache_open_to_others_is_not_used() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    caching(home.path(), support::sprag_bin()).load(guest("good")).await.expect("compiled");
    assert_eq!(std::fs::read_dir(home.path()).expect("the directory").count(), 0);
}

fn bad_setting(error: PolicyError) -> (String, String) {
    match error {
        PolicyError::BadSetting { name, why } => (name, why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn settings_are_checked_and_filled_in() {
    let sandbox = sandbox(limits());
    let module = load(&sandbox, "one-setting").await;
    let given = |name: &str, value| Settings::from([(name.to_owned(), value)]);
    let settled = |value| Settings::from([("threshold".to_owned(), value)]);

    assert_eq!(module.settle(&Settings::new()), Ok(settled(Setting::Number(0.5))));
    assert_eq!(module.settle(&given("threshold", Setting::Number(0.75))), Ok(settled(Setting::Number(0.75))));

    let settle = |name, value| bad_setting(module.settle(&given(name, value)).expect_err("a bad setting"));
    let (name, why) = settle("treshold", Setting::Number(0.5));
    assert_eq!(name, "treshold");
    assert!(why.contains("threshold"), "{why}");
    let (name, why) = settle("threshold", Setting::Text("high".to_owned()));
    assert_eq!(name, "threshold");
    assert!(why.contains("\"high\"") && why.contains("a number") && why.contains("0.5"), "{why}");
    for n in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(settle("threshold", Setting::Number(n)).0, "threshold");
    }
}

#[tokio::test]
async fn a_guard_without_interests_is_asked_everything() {
    let sandbox = sandbox(limits());
    let module = load(&sandbox, "good").await;
    for status in Status::ALL {
        let mut question = question();
        question.workspace.status = status;
        assert!(module.is_interested(&question));
    }
    assert!(module.hooks().guard && !module.hooks().cooldown && !module.hooks().recovery);
}

#[tokio::test]
async fn an_interest_narrows_what_is_asked() {
    let sandbox = sandbox(limits());
    let module = load(&sandbox, "narrow").await;
    assert!(module.is_interested(&question()));
    let mut other_status = question();
    other_status.workspace.status = Status::Degraded;
    let mut other_kind = question();
    other_kind.workspace.kind = "platform".to_owned();
    let mut other_cause = question();
    other_cause.cause = sprag::facts::Cause::Silence { for_: 60_000 };
    for question in [other_status, other_kind, other_cause] {
        assert!(!module.is_interested(&question), "{question:?}");
    }
}

/// So many sandboxes that no address space holds their pool.
#[tokio::test]
async fn without_a_pool_it_decides_all_the_same() {
    assert!(sandbox(limits()).pooled());
    let sandbox = sandbox(Limits { concurrency: 60_000, ..limits() });
    assert!(!sandbox.pooled());
    let module = load(&sandbox, "good").await;
    assert_eq!(module.decide(&question(), &Settings::new()).await.expect("verdicts").len(), 2);
    let grows = load(&sandbox, "grows-memory").await;
    let error = grows.decide(&question(), &Settings::new()).await.expect_err("too much");
    assert_eq!(error.code(), "out_of_memory", "{error}");
}

/// More callers than sandboxes: each waits its turn and is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_wait_for_a_sandbox() {
    let sandbox = sandbox(Limits { concurrency: 2, call_ms: 10_000, ..limits() });
    let module = load(&sandbox, "counts-calls").await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let module = module.clone();
        calls.spawn(async move { module.decide(&question(), &Settings::new()).await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.expect("verdicts").len(), 2);
    }
}

/// One thread serves all: a policy that loops does not keep a good one from
/// its answer, and who can't get a sandbox in time is told so.
#[tokio::test]
async fn a_loop_holds_nobody_up() {
    let sandbox = sandbox(Limits { fuel: u64::MAX, call_ms: 1_000, concurrency: 2, ..limits() });
    let (loops, good) = (load(&sandbox, "loops").await, load(&sandbox, "good").await);
    let started = Instant::now();
    let (question, settings) = (question(), Settings::new());
    let quick = async {
        tokio::task::yield_now().await;
        let answer = good.decide(&question, &settings).await;
        (answer, started.elapsed())
    };
    let (looped, (answered, after)) = tokio::join!(loops.decide(&question, &settings), quick);
    assert_eq!(looped.expect_err("a loop").code(), "out_of_time");
    assert_eq!(answered.expect("verdicts").len(), 2);
    assert!(after < Duration::from_millis(900), "{after:?}");
}

#[tokio::test]
async fn who_waits_too_long_is_told() {
    let sandbox = sandbox(Limits { fuel: u64::MAX, call_ms: 300, concurrency: 1, ..limits() });
    let loops = load(&sandbox, "loops").await;
    let (question, settings) = (question(), Settings::new());
    let (a, b, c) = tokio::join!(
        loops.decide(&question, &settings),
        loops.decide(&question, &settings),
        loops.decide(&question, &settings),
    );
    let codes: Vec<_> = [a, b, c].into_iter().map(|r| r.expect_err("a loop").code()).collect();
    assert!(codes.contains(&"out_of_time") && codes.contains(&"busy"), "{codes:?}");
}

/// What other toolchains make is a component already; it names the types it
/// shares with the host as an import, and that is no import in our sense.
#[tokio::test]
async fn a_component_is_taken_as_it_is() {
    let sandbox = sandbox(limits());
    let encoder = wit_component::ComponentEncoder::default();
    let component = encoder.module(&guest("good")).and_then(|mut e| e.encode()).expect("a component");
    let text = wit_component::decode(&component).expect("its interface");
    let wit_component::DecodedWasm::Component(resolve, world) = text else { panic!("no component") };
    assert_eq!(resolve.worlds[world].imports.len(), 1, "it should import the types");

    let module = sandbox.load(component.into()).await.expect("a policy");
    assert_eq!(module.decide(&question(), &Settings::new()).await.expect("verdicts").len(), 2);
}

#[test]
fn limits_of_nothing_are_refused() {
    let limits = Limits { fuel: 0, ..limits() };
    let config = SandboxConfig { limits, compiler: no_compiler(), cache_dir: None };
    let error = Sandbox::new(config).err().expect("a refusal");
    assert!(error.to_string().contains("limits.fuel"), "{error}");
}

/// Limits as large as their types hold are limits like any others.
#[tokio::test]
async fn the_largest_limits_do_no_harm() {
    let largest = Limits {
        fuel: u64::MAX,
        call_ms: u64::MAX,
        answer_bytes: usize::MAX,
        string_bytes: usize::MAX,
        list_items: usize::MAX,
        compile_memory_bytes: u64::MAX,
        ..limits()
    };
    let sandbox = sandbox(largest);
    let module = load(&sandbox, "good").await;
    assert_eq!(module.decide(&question(), &Settings::new()).await.expect("verdicts").len(), 2);
}

fn epoch_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process's threads");
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "sprag-epoch").count()
}

fn soon(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(5), "{} epoch threads", epoch_threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The epoch's thread ends with its sandbox. Other tests have theirs meanwhile,
/// far fewer than fifty.
#[test]
fn no_thread_outlives_its_sandbox() {
    let sandboxes: Vec<_> = (0..50).map(|_| sandbox(Limits { concurrency: 1, ..limits() })).collect();
    // A thread names itself once it runs, and ends at its next tick.
    soon(|| epoch_threads() >= 50);
    drop(sandboxes);
    soon(|| epoch_threads() < 50);
}
