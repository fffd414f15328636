//! Limits of one module: within what the host's configuration allows, stored
//! with the revision, and the same for whoever loads it.

use std::path::Path;
use std::process::Output;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::facts::ModuleLimits;
use sprag::policy::{Limits, Sandbox};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::process::{ADMIN, Launch};
use crate::support::sandbox::{core_module, guest, limits};
use crate::support::{sandbox, sprag_bin};

const ROOM: &str = "[limits.max]\nmemory_bytes = 16777216\n";

/// A directory with a module that begins with 10 MiB, which `policies.toml` gives this much.
fn large(memory_bytes: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("large.wasm"), guest("too-much-memory")).expect("writing");
    let text = format!("[[policy]]\nmodule = \"large\"\nlimits = {{ memory_bytes = {memory_bytes} }}\n");
    std::fs::write(dir.path().join("policies.toml"), text).expect("writing");
    dir
}

fn configured(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writing");
    file
}

fn sprag(args: &[&Path]) -> Output {
    let mut command = std::process::Command::new(sprag_bin());
    command.args(args).env_remove("SPRAG_DATABASE_URL").env_remove("SPRAG_POLICY_DIR");
    command.stdin(std::process::Stdio::null()).output().expect("running sprag")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_has_limits_of_its_own(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let (state, dir) = (tempfile::tempdir().expect("a directory"), large(16 << 20));
    let config = format!("policy_dir = {:?}\n{ROOM}", dir.path());
    let host = Launch::bare(&db.url, state.path(), &config).start().await;
    let row = host.admin(Method::GET, "policies", None).await;
    assert_eq!(row["modules"][0]["limits"], json!({ "memory_bytes": 16 << 20 }), "{row}");

    // By hand as well; what is uploaded is judged by the most that there is.
    let sent = host.client.post(format!("{}/policies/modules", host.url)).bearer_auth(ADMIN);
    let sent = sent.body(guest("too-much-memory")).send().await.expect("an answer");
    assert_eq!(sent.status(), 201);
    let digest = sent.json::<Value>().await.expect("JSON")["digest"].clone();
    let activate = async |limits: Value| {
        let body = json!({ "modules": [{ "digest": digest, "file": "large.wasm", "limits": limits }] });
        let sent = host.client.post(format!("{}/policies/revisions", host.url)).bearer_auth(ADMIN);
        let answer = sent.json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let (status, body) = activate(json!({ "memory_bytes": 12 << 20 })).await;
    assert_eq!((status, &body["modules"][0]["limits"]), (201, &json!({ "memory_bytes": 12 << 20 })));
    let (status, body) = activate(json!({ "memory_bytes": 17 << 20 })).await;
    assert_eq!((status, &body["reason"]), (422, &json!("bad_limit")), "{body}");
    let detail = body["detail"].as_str().expect("words");
    for says in ["large.wasm", "memory_bytes", "17825792", "16777216", "limits.max.memory_bytes"] {
        assert!(detail.contains(says), "{says} is not in {detail}");
    }
    // Without any it has what every module has.
    let (status, body) = activate(json!({})).await;
    assert_eq!((status, &body["reason"]), (422, &json!("out_of_memory")), "{body}");

    // They are stored: a host that starts on the database alone has the same revision.
    host.stop().await;
    let again = Launch::bare(&db.url, state.path(), ROOM).start().await;
    let row = again.admin(Method::GET, "policies", None).await;
    assert_eq!(row["number"], 2);
    assert!(again.log().contains("revision in charge"), "{}", again.log());
    again.stop().await;
    // One that allows less refuses it, and says why.
    let less = Launch::bare(&db.url, state.path(), "").start().await;
    assert!(less.log().contains("12582912 was asked for; 1 to 4194304 may be"), "{}", less.log());
    less.stop().await;
}

/// `inspect` and `replay` hold a module to the limits that the host would.
#[test]
fn whoever_loads_it_gives_it_the_same() {
    let (dir, room) = (large(16 << 20), configured(ROOM));
    let file = dir.path().join("large.wasm");
    let config = Path::new("--config");
    let policy_dir = Path::new("--policy-dir");
    let inspect = [Path::new("policy"), Path::new("inspect"), &file, config, room.path()];
    let output = sprag(&inspect);
    assert!(output.status.success(), "{}", err(&output));
    let about: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(about["limits"], json!({ "memory_bytes": 16 << 20 }));
    let replay = [Path::new("replay"), policy_dir, dir.path(), config, room.path()];
    let said = err(&sprag(&replay));
    assert!(said.contains("no recorded decision"), "it loads: {said}");
    for output in [sprag(&inspect[..3]), sprag(&replay[..3])] {
        let said = err(&output);
        assert!(
            said.contains("16777216 was asked for; 1 to 4194304 may be (limits.max.memory_bytes)"),
            "{said}"
        );
    }
}

/// What a host has compiled is not compiled again where its state directory is named.
#[test]
fn compiled_code_serves_inspect_and_replay() {
    let (state, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let file = dir.path().join("good.wasm");
    std::fs::write(&file, guest("good")).expect("writing");
    let (flag, config) = (Path::new("--state-dir"), Path::new("--config"));
    let hasty = configured("[limits]\ncompile_ms = 1\n");
    let inspect =
        [Path::new("policy"), Path::new("inspect"), &file, flag, state.path(), config, hasty.path()];
    let replay = [
        Path::new("replay"),
        Path::new("--policy-dir"),
        dir.path(),
        flag,
        state.path(),
        config,
        hasty.path(),
    ];
    assert!(err(&sprag(&inspect)).contains("limits.compile_ms"));
    assert!(err(&sprag(&replay)).contains("limits.compile_ms"));
    assert!(sprag(&inspect[..5]).status.success(), "with the time it needs");
    let output = sprag(&inspect);
    assert!(output.status.success(), "{}", err(&output));
    assert!(err(&sprag(&replay)).contains("no recorded decision"));
}

/// Two memories, where a configuration or a revision gives them.
#[tokio::test]
async fn memories_are_a_limit_like_the_others() {
    let two = core_module(
        ";; include memory.inc\n(memory $other 1)\n;; include about.inc\n;; include verdicts.inc\n\
         (func (export \"sprag:policy/guard@1.0.0#decide\") (param $request i32) (result i32)\n\
         (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x500) (i32.const 4)))",
    );
    let plain = sandbox::sandbox(limits());
    let refused = plain.load(two.clone()).await.err().expect("one memory is what there is");
    assert_eq!(refused.code(), "instantiate", "{refused}");
    let own = ModuleLimits { memories: Some(2), ..ModuleLimits::default() };
    // Others may have two, and this one is not given them.
    let others = sandbox::sandbox(Limits { max: own, ..limits() }).load(two.clone()).await;
    let refused = others.err().expect("one memory is what it has");
    assert!(refused.to_string().ends_with("(limits.memories)"), "{refused}");
    assert_eq!(plain.load_with(two.clone(), &own).await.err().expect("not allowed").code(), "bad_limit");
    let settings = [Limits { memories: 2, ..limits() }, Limits { max: own, ..limits() }];
    for (limits, own) in settings.into_iter().zip([ModuleLimits::default(), own]) {
        let roomy: Sandbox = sandbox::sandbox(limits);
        let module = roomy.load_with(two.clone(), &own).await.expect("two memories");
        let asked = sandbox::question();
        assert_eq!(module.decide(&asked, &Default::default()).await.expect("verdicts").len(), 2);
    }
}

/// What one module was given, no other has.
#[tokio::test]
async fn its_limits_are_its_own() {
    let max = ModuleLimits { fuel: Some(100_000_000), call_ms: Some(60_000), ..ModuleLimits::default() };
    let sandbox = sandbox::sandbox(Limits { max, fuel: 1_000_000, ..limits() });
    let fault = async |own: &ModuleLimits| {
        let module = sandbox.load_with(guest("loops"), own).await.expect("it loads");
        module.decide(&sandbox::question(), &Default::default()).await.expect_err("it loops").to_string()
    };
    let own = ModuleLimits { fuel: Some(2_000_000), call_ms: Some(60_000), ..ModuleLimits::default() };
    assert!(fault(&own).await.contains("all 2000000 units of fuel"));
    assert!(fault(&ModuleLimits::default()).await.contains("all 1000000 units of fuel"));
}

#[test]
fn a_maximum_below_the_plain_limit_is_refused() {
    let max = ModuleLimits { fuel: Some(1), ..ModuleLimits::default() };
    let refused = Limits { max, ..limits() }.check().expect_err("less");
    assert!(
        refused.to_string().contains("limits.max.fuel is 1, less than limits.fuel, 10000000"),
        "{refused}"
    );
}

/// Whatever there may not be so many of is told with the limit's name.
#[rstest]
#[case("", 9, "instances")]
#[case("(memory 1)", 2, "memories")]
#[case("(memory 1) (memory 1)", 1, "memories")]
#[case("(memory 80)", 1, "memory_bytes")]
#[case("(table 1 funcref) (table 1 funcref)", 5, "instances")]
#[case("(table 1001 funcref)", 1, "table_elements")]
#[tokio::test]
async fn what_is_too_many_is_named(#[case] fields: &str, #[case] times: usize, #[case] name: &str) {
    let instances = "(core instance (instantiate $m))".repeat(times);
    let text = format!("(component (core module $m {fields}) {instances})");
    let sandbox = sandbox::sandbox(limits());
    let refused = sandbox.load(wat::parse_str(&text).expect("a component").into()).await;
    let refused = refused.map(|module| module.digest().to_owned()).expect_err("too many");
    assert_eq!(refused.code(), "instantiate", "{fields}: {refused}");
    assert!(refused.to_string().ends_with(&format!("(limits.{name})")), "{fields}: {refused}");
}

#[tokio::test]
async fn a_table_that_is_too_large_is_named() {
    let sandbox = sandbox::sandbox(limits());
    let module = sandbox::load(&sandbox, "grows-table").await;
    let question = sandbox::question();
    let said = module.decide(&question, &Default::default()).await.expect_err("it grows").to_string();
    assert!(said.contains("over 1000 elements (limits.table_elements)"), "{said}");
}
