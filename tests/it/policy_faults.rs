//! What an author and an operator are told of a policy that fails or is not
//! taken: where, why, what would be right.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use rstest::rstest;
use sprag::facts::Settings;
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::process::{Launch, Process, beat};
use crate::support::sandbox::{core_module, guest, limits, panics, question, sandbox};
use crate::support::{policy_dir, sprag_bin};

/// A guest whose `decide` calls these functions, one within the other, and traps in the last.
fn calls(names: &[&str]) -> bytes::Bytes {
    let mut text = ";; include memory.inc\n;; include about.inc\n;; include verdicts.inc\n".to_owned();
    for (i, name) in names.iter().enumerate() {
        let then =
            names.get(i + 1).map_or("unreachable".to_owned(), |next| format!("(call ${next}) unreachable"));
        text.push_str(&format!("(func ${name} {then})\n"));
    }
    text.push_str("(func (export \"sprag:policy/guard@1.0.0#decide\") (param $request i32) (result i32)\n");
    text.push_str(&format!("(call ${}) unreachable)\n", names[0]));
    core_module(&text)
}

async fn fault(bytes: bytes::Bytes) -> String {
    let module = sandbox(limits()).load(bytes).await.expect("it loads");
    module.decide(&question(), &Settings::new()).await.expect_err("it traps").to_string()
}

/// Names come through: from the module, its wrapping, its compiling, to the fault.
#[tokio::test]
async fn a_trap_says_where_and_what_it_was() {
    let panicked = [
        "_ZN10boot_grace6decide17h0123456789abcdefE",
        "core::option::expect_failed",
        "core::panicking::panic_fmt",
    ];
    assert_eq!(
        fault(calls(&panicked)).await,
        "trap: it panicked, in boot_grace::decide, which called core::option::expect_failed"
    );
    let spent = ["mine::words", "alloc::fmt::format", "sprag_policy::arena::spent"];
    let said = fault(calls(&spent)).await;
    assert!(said.contains("one call is used up") && said.contains("in mine::words"), "{said}");
    let clock = ["mine::decide", "std::time::Instant::now", "core::panicking::panic_fmt"];
    let said = fault(calls(&clock)).await;
    assert!(said.contains("in mine::decide, which called std::time::Instant::now"), "{said}");
    assert_eq!(fault(calls(&["not_rust"])).await, "trap: it reached `unreachable`, in not_rust");
    let long = "x".repeat(5_000);
    assert!(fault(calls(&[&long])).await.len() < 600);
}

/// What we ship keeps the names of its functions.
#[test]
fn shipped_modules_have_names() {
    for entry in std::fs::read_dir(policy_dir()).expect("the shipped policies") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let bytes = std::fs::read(&path).expect("a module");
            let named = bytes.windows(12).any(|part| part == b"sprag_policy");
            assert!(named, "{} has no names", path.display());
        }
    }
}

fn refused(settings: &str) -> String {
    refused_listing(&format!("[[policy]]\nmodule = \"instances\"\n[policy.settings]\n{settings}\n"))
}

fn refused_listing(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy(policy_dir().join("instances.wasm"), dir.path().join("instances.wasm")).expect("copying");
    std::fs::write(dir.path().join("policies.toml"), text).expect("writing");
    let mut command = std::process::Command::new(sprag_bin());
    command.arg("replay").arg("--policy-dir").arg(dir.path());
    let output = command.stdin(std::process::Stdio::null()).output().expect("running sprag");
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_setting_of_the_wrong_type_is_told_the_right_one() {
    for (given, shown) in [("300", "the number 300"), ("0.5", "the number 0.5"), ("true", "the flag true")] {
        let said = refused(&format!("grace = {given}"));
        assert!(said.contains("instances.wasm: setting grace"), "{said}");
        let right = format!("{shown} was given; a length of time is wanted, as a string such as \"5m\"");
        assert!(said.contains(&right), "{said}");
    }
    let said = refused("grace = \"five\"");
    assert!(said.contains("\"five\" is no length of time; write one such as 30s"), "{said}");
    for none in ["[\"5m\"]", "{ minutes = 5 }", "2026-11-25"] {
        let said = refused(&format!("grace = {none}"));
        let right = "expected a setting: true or false, a number, or a string";
        assert!(said.contains("policies.toml") && said.contains(right), "{none}: {said}");
    }
}

/// `policies.toml`: the line, the field, what was found, what would be right.
#[rstest]
#[case("policy = 5", "line 1, policy: invalid type: integer `5`, expected a list")]
#[case("[[policy]]\nmodule = 5", "line 2, policy[0].module: invalid type: integer `5`, expected a string")]
#[case("[[policy]]", "policy[0]: missing field `module`")]
#[case("[[policies]]\nmodule = \"instances\"", "unknown field `policies`, expected `policy`")]
#[case("limits = 5", "policy[0].limits: invalid type: integer `5`, expected a table of limits")]
#[case("limits.fuel = \"5\"", "policy[0].limits.fuel: invalid type: string \"5\", expected a whole number")]
#[case("limits.fuel = -5", "policy[0].limits.fuel: invalid value: integer `-5`, expected a whole number, 0")]
#[case("limits.fuel = 1.5", "policy[0].limits.fuel: invalid type: floating point `1.5`, expected a whole")]
#[case("limits.call_ms = \"1s\"", "line 3, policy[0].limits.call_ms: invalid type: string \"1s\", expected")]
#[case("limits.feul = 5", "limits.feul: unknown field `feul`, expected one of `fuel`")]
#[case("limits.fuel = 0", "limit fuel: 0 was asked for; 1 to 10000000 may be (limits.max.fuel)")]
#[case("settings = []", "policy[0].settings: invalid type: sequence, expected a table")]
#[case("settings.\"\\u001b[2J\" = {}", "expected a setting: true or false, a number, or a string")]
#[case(
    "[[policy]]\nmodule = \"instances\"\n[[policy]]\nmodule = \"instances\"",
    "instances\" stands there twice"
)]
#[case("[[policy]]\nmodule = \"instances.wasm\"", "there is no instances.wasm.wasm beside it")]
fn a_listing_of_the_wrong_type_is_told_the_right_one(#[case] written: &str, #[case] says: &str) {
    // Those that begin no list stand below an entry that is right.
    let ours = if written.starts_with(['[', 'p']) { "" } else { "[[policy]]\nmodule = \"instances\"\n" };
    let said = refused_listing(&format!("{ours}{written}\n"));
    assert!(said.contains(says), "{said}");
    assert!(!said.trim_end().chars().any(char::is_control), "{said:?}");
}

/// `replay` tells whoever tries a policy what it died of.
#[test]
fn replay_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("panics.wasm"), panics()).expect("writing");
    let case = include_str!("../golden/recorded/heartbeat.jsonl").lines().next().expect("a case");
    let mut case: serde_json::Value = serde_json::from_str(case).expect("JSON");
    case["question"]["workspace"]["id"] = "expect".into();
    let recorded = dir.path().join("recorded.jsonl");
    std::fs::write(&recorded, case.to_string()).expect("writing");
    let mut command = std::process::Command::new(sprag_bin());
    let output = command.arg("replay").arg("--policy-dir").arg(dir.path()).arg(&recorded).output();
    let output = output.expect("running sprag");
    let said = String::from_utf8_lossy(&output.stdout);
    for says in ["now error trap: trap: it panicked, in panics::fail", "a boot has a box"] {
        assert!(said.contains(says), "{says} is not in {said}");
    }
}

/// A new module of an old name begins anew: its first fault is in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_modules_first_fault_is_logged() {
    let db = TestDb::new(Backend::Sqlite).await;
    let (state, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let put = |name: &str| std::fs::write(dir.path().join("guest.wasm"), guest(name)).expect("writing");
    put("trap");
    let config = format!("policy_dir = {:?}\n", dir.path());
    let host = Launch::bare(&db.url, state.path(), &config).start().await;
    let (id, token) = host.create(serde_json::json!({ "name": "one" })).await;
    let mut uptime = 0;
    let mut beat = async || {
        uptime += 1;
        beat(&host.client, &host.url, &id, &token, uptime, 0.0).await.expect("an answer");
        faults(&host).await
    };
    let first = digest(&dir.path().join("guest.wasm"));
    // The next by that name would be no power of two, and not told.
    let mut count: f64 = 0.0;
    while count < 4.0 || (count + 1.0).log2().fract() == 0.0 {
        count = beat().await;
    }
    let times = host.log().matches(&first).count();
    assert!(told(&host, &first) && times < 12, "not each of them: {}", host.log());

    put("divides-by-zero");
    let second = digest(&dir.path().join("guest.wasm"));
    let began = Instant::now();
    while host.admin(Method::GET, "policies", None).await["modules"][0]["digest"] != second.as_str() {
        assert!(began.elapsed() < Duration::from_secs(120), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(beat().await, count + 1.0, "one more by that name");
    let began = Instant::now();
    while !told(&host, &second) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    host.stop().await;
}

/// The policy's faults so far, of whichever module.
async fn faults(host: &Process) -> f64 {
    let metrics = crate::support::get(format!("{}/metrics", host.url)).await.expect("an answer");
    let text = metrics.text().await.expect("text");
    let line = text.lines().find(|line| line.starts_with("sprag_policy_faults_total{"));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |count| count.parse().expect("a number"))
}

/// Whether the log tells a fault of this module.
fn told(host: &Process, digest: &str) -> bool {
    host.log().lines().any(|line| line.contains("a policy failed") && line.contains(digest))
}

fn digest(file: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(std::fs::read(file).expect("a module"));
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
