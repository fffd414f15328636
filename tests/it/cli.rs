//! The command line as scripts use it: the real binary, its output and its exit codes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::process::{ADMIN, Launch, Process, beat};
use crate::support::{policy_dir, sprag_bin};

fn sprag(args: &[&str]) -> Command {
    let mut command = Command::new(sprag_bin());
    command.args(args).env_remove("SPRAG_DATABASE_URL").env_remove("SPRAG_POLICY_DIR");
    command
}

fn run(args: &[&str]) -> Output {
    sprag(args).output().expect("running sprag")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A copy of the shipped policies that degrades from another error rate on.
fn with_threshold(degrade_at: f64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(policy_dir()).expect("the shipped policies") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copying");
    }
    let file = dir.path().join("policies.toml");
    let text = std::fs::read_to_string(&file).expect("policies.toml");
    let changed = text.replace("degrade-at = 0.5", &format!("degrade-at = {degrade_at}"));
    assert_ne!(text, changed, "the shipped policies.toml names the threshold");
    std::fs::write(&file, changed).expect("writing");
    dir
}

/// A database in which agents came, degraded at several error rates, and recovered.
async fn recorded(backend: Backend) -> TestDb {
    let db = TestDb::new(backend).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = Process::start(&db.url, state.path(), "decision_sample = 1\n").await;
    let client = crate::support::client();
    for error_rate in [0.0, 0.3, 0.55, 0.9] {
        let (id, token) = host.create(json!({ "name": format!("fails {error_rate}") })).await;
        for (uptime, rate) in [(1, 0.0), (2, error_rate), (3, 0.0)] {
            let answer = beat(&client, &host.url, &id, &token, uptime, rate).await;
            assert_eq!(answer.expect("answered").0, 200);
        }
        host.admin(Method::DELETE, &format!("workspaces/{id}"), None).await;
    }
    host.stop().await;
    db
}

/// `sprag record | sprag replay` with these modules.
fn replayed(db: &TestDb, policy_dir: &Path) -> Output {
    let mut record =
        sprag(&["record", "--database-url", &db.url]).stdout(Stdio::piped()).spawn().expect("record");
    let recording = record.stdout.take().expect("piped");
    let dir = policy_dir.to_str().expect("a path");
    let replay = sprag(&["replay", "--policy-dir", dir]).stdin(recording).output().expect("replay");
    assert!(record.wait().expect("record").success());
    replay
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_silent_until_a_threshold_moves(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = recorded(backend).await;
    let same = replayed(&db, &policy_dir());
    assert_eq!((out(&same).as_str(), same.status.code()), ("", Some(0)), "{}", err(&same));

    // Of 0.0, 0.3, 0.55 and 0.9 only 0.55 lies between the old threshold and this one.
    let changed = replayed(&db, with_threshold(0.6).path());
    assert_eq!(changed.status.code(), Some(1), "{}", err(&changed));
    let lines: Vec<_> =
        out(&changed).lines().map(|line| line.split_once(' ').expect("a case").1.to_owned()).collect();
    assert_eq!(
        lines,
        [
            "online on heartbeat → degraded [heartbeat]: then allow (error-rate-high), now abstain",
            "online on heartbeat outcome: then moved to degraded by heartbeat: allow (error-rate-high), now unchanged",
        ]
    );
    assert!(err(&changed).contains("1 of 16 recorded decisions differ"), "{}", err(&changed));

    // The revision that was active in that database, instead of a directory.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), run(&["record", "--database-url", &db.url]).stdout).expect("writing");
    let active =
        run(&["replay", "--database-url", &db.url, "--strict", file.path().to_str().expect("a path")]);
    assert_eq!((out(&active).as_str(), active.status.code()), ("", Some(0)), "{}", err(&active));
}

#[rstest]
#[case::no_json("{\n", "line 1")]
#[case::another_format(r#"{"format":"sprag.decision/9"}"#, "line 1")]
#[case::nothing("", "no recorded decision")]
fn a_bad_recording_could_not_run(#[case] text: &str, #[case] says: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writing");
    let dir = policy_dir();
    let args =
        ["replay", "--policy-dir", dir.to_str().expect("a path"), file.path().to_str().expect("a path")];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(says), "{}", err(&output));
}

#[test]
fn replay_without_policies_says_what_it_needs() {
    let output = run(&["replay"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("--policy-dir"), "{}", err(&output));
}

#[test]
fn a_module_can_be_inspected() {
    let file = policy_dir().join("heartbeat.wasm");
    let output = run(&["policy", "inspect", file.to_str().expect("a path")]);
    let about: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(about["manifest"]["name"], "heartbeat");
    assert_eq!(about["hooks"], json!({ "guard": true, "cooldown": false, "recovery": false }));
    assert!(about["digest"].as_str().is_some_and(|d| d.starts_with("sha256:") && d.len() == 71));

    let refused = run(&["policy", "inspect", sprag_bin().to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("refusing"), "{}", err(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_by_hand_and_by_directory() {
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = Process::start(&db.url, state.path(), "").await;
    let policy = |args: &[&str]| {
        let mut command = sprag(&["policy"]);
        command
            .args(args)
            .env("SPRAG_URL", &host.url)
            .env("SPRAG_ADMIN_TOKEN", ADMIN)
            .output()
            .expect("sprag policy")
    };
    let stricter = with_threshold(0.05);
    let activated = policy(&["activate", stricter.path().to_str().expect("a path")]);
    assert!(out(&activated).starts_with("*    2  "), "{}{}", out(&activated), err(&activated));
    let listed = out(&policy(&["revisions"]));
    let marks: Vec<_> = listed.lines().map(|line| line.get(..7).unwrap_or(line)).collect();
    assert_eq!(marks, ["*    2 ", "     1 "]);
    assert!(out(&policy(&["rollback"])).starts_with("*    1  "));
    assert!(out(&policy(&["rollback", "--to", "2"])).starts_with("*    2  "));
    assert!(err(&policy(&["rollback", "--to", "99"])).contains("no revision 99"));

    // A module that imports is refused with the import's name, and the old revision stays.
    let bad = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(bad.path(), crate::support::sandbox::guest("imports")).expect("writing");
    let refused = policy(&["activate", bad.path().to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("env now"), "{}", err(&refused));
    assert!(out(&policy(&["revisions"])).starts_with("*    2  "));

    // What was rolled back from the directory stays rolled back when the host starts again.
    host.stop().await;
    let again = Process::start(&db.url, state.path(), "").await;
    let rows = again.admin(Method::GET, "policies/revisions", None).await;
    assert_eq!((rows.as_array().map(Vec::len), &rows[0]["active"]), (Some(2), &json!(true)));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_directory_is_a_new_revision_and_a_bad_one_is_not() {
    let db = TestDb::new(Backend::Sqlite).await;
    let (state, dir) = (tempfile::tempdir().expect("a directory"), with_threshold(0.4));
    let config = format!("policy_dir = {:?}\n", dir.path());
    let host = Launch { admin: None, ..Launch::bare(&db.url, state.path(), &config) }.start().await;
    let active = async |number: i64| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let rows = host.admin(Method::GET, "policies/revisions", None).await;
            let newest = rows[0].clone();
            if newest["number"] == number && newest["active"] == true {
                return newest;
            }
            assert!(std::time::Instant::now() < deadline, "revision {number} did not become active: {rows}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    active(1).await;
    std::fs::write(dir.path().join("broken.wasm"), b"no module").expect("writing");
    std::fs::remove_file(dir.path().join("broken.wasm")).expect("removing");
    std::fs::write(dir.path().join("policies.toml"), "[[policy]]\nmodule = \"heartbeat\"\n")
        .expect("writing");
    let second = active(2).await;
    assert_eq!(second["modules"][0]["name"], "heartbeat");
    std::fs::write(dir.path().join("policies.toml"), "[[policy]]\nmodule = \"nowhere\"\n").expect("writing");
    let refused = async {
        while !crate::support::get(format!("{}/metrics", host.url))
            .await
            .expect("metrics")
            .text()
            .await
            .expect("text")
            .contains("sprag_revisions_refused_total 1")
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), refused)
        .await
        .expect("the bad directory is refused");
    active(2).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_token_is_made_once_and_kept_to_its_owner() {
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("admin-token");
    let launch = Launch { admin: None, ..Launch::bare(&db.url, state.path(), "") };
    let host = launch.start().await;
    let token = std::fs::read_to_string(&file).expect("the token's file");
    let mode = std::fs::metadata(&file).expect("the token's file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = host.client.get(format!("{}/workspaces", host.url)).bearer_auth(token.trim()).send().await;
    assert_eq!(listed.expect("answered").status(), 200);
    assert!(host.log().contains(file.to_str().expect("a path")), "the place is printed");
    assert!(!host.log().contains(token.trim()), "the token itself is not");
    host.stop().await;
    launch.start().await.stop().await;
    assert_eq!(std::fs::read_to_string(&file).expect("the token's file"), token);
}

/// Whoever waits at the door is in the log and in the metrics, and the log is not flooded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_is_seen() {
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let config = "[http]\nconnections = 2\nheader_read_ms = 300\n";
    let host = Launch::bare(&db.url, state.path(), config).start().await;
    let metrics = host.client.get(format!("{}/metrics", host.url)).send().await.expect("an answer");
    let text = metrics.text().await.expect("text");
    assert!(text.contains("sprag_http_connections 1\n"), "{text}");
    assert!(!host.log().contains("http.connections"), "too early: {}", host.log());
    let address = host.url.trim_start_matches("http://");
    for _ in 0..3 {
        let silent = tokio::net::TcpStream::connect(address).await.expect("a connection");
        crate::support::get(format!("{}/health", host.url)).await.expect("an answer once there is room");
        drop(silent);
    }
    assert_eq!(host.log().matches("http.connections").count(), 1, "{}", host.log());
    host.stop().await;
}

#[rstest]
#[case::open_to_all(&["serve", "--listen", "0.0.0.0:0", "--registration", "open"], "loopback")]
#[case::no_such_database(&["serve", "--listen", "127.0.0.1:0", "--database-url", "mysql://x"], "expected sqlite:PATH")]
#[case::no_such_config(&["serve", "--config", "/nowhere.toml"], "/nowhere.toml")]
#[case::a_secret_in_a_bad_url(&["migrate", "--database-url", "postgres://u:hunter2@127.0.0.1:1/x"], "opening the database")]
fn what_can_not_start_says_why(#[case] args: &[&str], #[case] says: &str) {
    let state = tempfile::tempdir().expect("a directory");
    let output = sprag(args).env("SPRAG_STATE_DIR", state.path()).output().expect("running sprag");
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains(says), "{}", err(&output));
    assert!(!err(&output).contains("hunter2"), "a password in an error: {}", err(&output));
}

/// Nothing else starts a host with it before somebody tries the demo.
#[test]
fn the_demos_configuration_is_a_valid_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/src/demo/loops.toml");
    let flags = sprag::config::Flags { config: Some(file.into()), ..Default::default() };
    sprag::config::Config::load(&flags).expect("a configuration");
}

#[test]
fn the_documented_configuration_is_the_default_one() {
    let page = include_str!("../../docs/operating.md");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let documented: sprag::config::Config = toml::from_str(block).expect("a configuration");
    assert_eq!(documented, sprag::config::Config::default());
    let keys = |config: &str| {
        let table: toml::Table = config.parse().expect("TOML");
        let inner = |(name, value): (&String, &toml::Value)| match value {
            toml::Value::Table(table) => table.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        };
        table.iter().flat_map(inner).collect::<Vec<_>>()
    };
    let defaults = toml::to_string(&sprag::config::Config::default()).expect("TOML");
    assert_eq!(keys(block), keys(&defaults), "the page names every key");
}
