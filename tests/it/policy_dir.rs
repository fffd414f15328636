//! The policy directory as others leave it: links, pipes, devices, files that
//! are too large, too many or hidden, links that are turned. Nothing of it may
//! hang a host, fill its memory or put something in charge that nobody meant.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Method;
use rstest::rstest;
use serde_json::Value;
use sprag::store::Backend;
use tokio::process::Command;

use crate::support::db::TestDb;
use crate::support::process::{Launch, Process};
use crate::support::{policy_dir, sprag_bin};

/// Whatever a busy machine needs; what is waited for takes a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// Puts something odd at a path.
type Make = fn(&Path);

/// A directory with the one good module `heartbeat` in it, at this threshold.
fn a_good_module_in(dir: &Path, degrade_at: f64) {
    std::fs::create_dir_all(dir).expect("a directory");
    std::fs::copy(policy_dir().join("heartbeat.wasm"), dir.join("heartbeat.wasm")).expect("copying");
    threshold(dir, degrade_at);
}

fn threshold(dir: &Path, degrade_at: f64) {
    let text = format!("[[policy]]\nmodule = \"heartbeat\"\n[policy.settings]\ndegrade-at = {degrade_at}\n");
    std::fs::write(dir.join("policies.toml"), text).expect("writing");
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// How `sprag` ended with these arguments, what it said, and the memory it had at most.
async fn sprag(args: &[&str]) -> (Option<i32>, String, u64) {
    let mut command = Command::new(sprag_bin());
    command.args(args).env_remove("SPRAG_DATABASE_URL").env_remove("SPRAG_POLICY_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("starting sprag");
    let status = format!("/proc/{}/status", child.id().expect("it runs"));
    let mut most = 0;
    let ended = child.wait_with_output();
    tokio::pin!(ended);
    let watched = async {
        loop {
            tokio::select! {
                output = &mut ended => return output.expect("waiting for it"),
                () = tokio::time::sleep(Duration::from_millis(10)) => {
                    let text = std::fs::read_to_string(&status).unwrap_or_default();
                    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                    let peak = peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
                    most = most.max(peak.unwrap_or(0) << 10);
                }
            }
        }
    };
    let output = tokio::time::timeout(PATIENCE, watched).await;
    let output = output.unwrap_or_else(|_| panic!("sprag {args:?} hangs"));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), most)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Each of these lies beside a good module, and none of them is one.
#[rstest]
#[case::a_sparse_file_of_six_gigabytes(
    |path: &Path| std::fs::File::create(path).expect("a file").set_len(6 << 30).expect("its length"),
    "it has 6442450944 bytes; at most 2097152 are read (limits.module_bytes)"
)]
#[case::a_named_pipe(pipe, "it is a named pipe")]
#[case::a_socket(|path: &Path| drop(UnixListener::bind(path).expect("a socket")), "it is a socket")]
#[case::a_device(|path: &Path| symlink("/dev/zero", path).expect("a link"), "it is a device")]
#[case::a_link_to_nowhere(
    |path: &Path| symlink("nowhere", path).expect("a link"),
    "it is a link to what does not exist"
)]
#[case::a_link_to_itself(|path: &Path| symlink("odd.wasm", path).expect("a link"), "symbolic link")]
#[case::a_directory(|path: &Path| std::fs::create_dir(path).expect("a directory"), "it is a directory")]
#[case::not_wasm(|path: &Path| std::fs::write(path, "text").expect("a file"), "no WebAssembly")]
#[tokio::test]
async fn what_is_no_module_is_named(#[case] make: Make, #[case] says: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    a_good_module_in(dir.path(), 0.5);
    let odd = dir.path().join("odd.wasm");
    make(&odd);
    // One reader serves all who read a directory or a file.
    for args in [&["replay", "--policy-dir", text(dir.path())][..], &["policy", "inspect", text(&odd)]] {
        let (code, said, most) = sprag(args).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("odd.wasm") && said.contains(says), "{says:?} of odd.wasm is not in {said}");
        assert!(most < 1 << 30, "{args:?} took {most} bytes of memory");
    }
}

#[tokio::test]
async fn the_file_of_settings_is_read_with_the_same_care() {
    let dir = tempfile::tempdir().expect("a directory");
    a_good_module_in(dir.path(), 0.5);
    let listing = dir.path().join("policies.toml");
    let replay = ["replay", "--policy-dir", text(dir.path())];
    let cases: [(Make, &str); 4] = [
        (|path| std::fs::File::create(path).expect("a file").set_len(6 << 30).expect("its length"), "bytes"),
        (pipe, "it is a named pipe"),
        // With the defaults in its place nobody would see that it is gone.
        (|path| symlink("nowhere", path).expect("a link"), "it is a link to what does not exist"),
        (|path| std::fs::write(path, b"\xff\xfe").expect("a file"), "it is no text"),
    ];
    for (make, says) in cases {
        std::fs::remove_file(&listing).expect("removing");
        make(&listing);
        let (code, said, most) = sprag(&replay).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("policies.toml") && said.contains(says), "{says:?} is not in {said}");
        assert!(most < 1 << 30, "it took {most} bytes of memory");
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_is_shown_and_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    a_good_module_in(dir.path(), 0.5);
    let odd = dir.path().join(OsStr::from_bytes(b"o\x1b[31m\xffdd.wasm"));
    std::fs::copy(dir.path().join("heartbeat.wasm"), odd).expect("copying");
    let (code, said, _) = sprag(&["replay", "--policy-dir", text(dir.path())]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("its name is not UTF-8") && said.contains("o\\u{1b}[31m"), "{said}");
}

#[tokio::test]
async fn ten_thousand_modules_are_too_many() {
    let dir = tempfile::tempdir().expect("a directory");
    for n in 0..10_000 {
        std::fs::write(dir.path().join(format!("m{n}.wasm")), "text").expect("a file");
    }
    let (code, said, _) = sprag(&["replay", "--policy-dir", text(dir.path())]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("it holds more than 64 modules"), "{said}");
}

/// What an editor, a Mac or a half-done copy leaves behind, valid or not, is no module.
#[tokio::test]
async fn what_is_hidden_is_not_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    a_good_module_in(dir.path(), 0.5);
    std::fs::write(dir.path().join("._heartbeat.wasm"), "text").expect("a file");
    std::fs::write(dir.path().join(".wasm"), "text").expect("a file");
    symlink("somebody@somewhere.1234", dir.path().join(".#heartbeat.wasm")).expect("a link");
    std::fs::copy(policy_dir().join("registration.wasm"), dir.path().join(".registration.wasm"))
        .expect("copying");
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = watching(&db, state.path(), dir.path()).await;
    assert_eq!(names(&active(&host, 1).await), ["heartbeat"]);
    std::fs::copy(policy_dir().join("idle.wasm"), dir.path().join(".idle.wasm")).expect("copying");
    threshold(dir.path(), 0.6);
    assert_eq!(names(&active(&host, 2).await), ["heartbeat"]);
    host.stop().await;
}

async fn watching(db: &TestDb, state: &Path, dir: &Path) -> Process {
    Launch { policy_dir: Some(dir.to_owned()), admin: None, ..Launch::of(&db.url, state) }.start().await
}

fn names(revision: &Value) -> Vec<&str> {
    let modules = revision["modules"].as_array().expect("modules");
    modules.iter().map(|m| m["name"].as_str().expect("a name")).collect()
}

/// Waits until this revision is in charge.
async fn active(host: &Process, number: i64) -> Value {
    let began = Instant::now();
    loop {
        let rows = host.admin(Method::GET, "policies/revisions", None).await;
        if rows[0]["number"] == number && rows[0]["active"] == true {
            return rows[0].clone();
        }
        assert!(began.elapsed() < PATIENCE, "revision {number} is not in charge: {rows}\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the log says this.
async fn logged(host: &Process, says: &str) {
    let began = Instant::now();
    while !host.log().contains(says) {
        assert!(began.elapsed() < PATIENCE, "{says:?} is not in the log:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn stops(host: Process) {
    let log = host.log();
    let stopped = tokio::time::timeout(PATIENCE, host.stop()).await;
    assert!(stopped.is_ok(), "the host does not stop:\n{log}");
}

/// A pipe keeps nothing waiting: the old revision decides, the next is taken up, the host stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_a_watched_directory_hangs_nobody() {
    let (state, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    a_good_module_in(dir.path(), 0.5);
    let db = TestDb::new(Backend::Sqlite).await;
    let host = watching(&db, state.path(), dir.path()).await;
    active(&host, 1).await;
    pipe(&dir.path().join("odd.wasm"));
    logged(&host, "odd.wasm: it is a named pipe").await;
    active(&host, 1).await;
    std::fs::remove_file(dir.path().join("odd.wasm")).expect("removing");
    threshold(dir.path(), 0.6);
    active(&host, 2).await;
    pipe(&dir.path().join("odd.wasm"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    stops(host).await;
}

/// A host that starts on a directory with a pipe in it serves, and says what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_does_not_keep_a_host_from_starting() {
    let (state, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    a_good_module_in(dir.path(), 0.5);
    pipe(&dir.path().join("odd.wasm"));
    let db = TestDb::new(Backend::Sqlite).await;
    let started = tokio::time::timeout(PATIENCE, watching(&db, state.path(), dir.path())).await;
    let host = started.expect("it serves");
    logged(&host, "odd.wasm: it is a named pipe").await;
    stops(host).await;
}

/// What a `ConfigMap` looks like: files are links through `..data`, which is turned in one step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turned_link_is_a_change() {
    let (state, dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let at = |name: &str| dir.path().join(name);
    let turn = |to: &str| {
        symlink(to, at("..data_tmp")).expect("a link");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("turning it");
    };
    a_good_module_in(&at("..1"), 0.5);
    a_good_module_in(&at("..2"), 0.6);
    turn("..1");
    for file in ["heartbeat.wasm", "policies.toml"] {
        symlink(Path::new("..data").join(file), at(file)).expect("a link");
    }
    let db = TestDb::new(Backend::Sqlite).await;
    let host = watching(&db, state.path(), dir.path()).await;
    active(&host, 1).await;
    turn("..2");
    let second = active(&host, 2).await;
    assert_eq!(second["modules"][0]["settings"]["degrade-at"]["number"], 0.6, "{second}");
    stops(host).await;
}

/// The directory itself is a link, which is turned; then it is gone for a while. Both are seen
/// at a look, and not only when everything is read anew (30 s).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_a_link_may_be_turned_and_vanish() {
    let (state, home) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let at = |name: &str| home.path().join(name);
    let turn = |to: &str| {
        symlink(to, at("new")).expect("a link");
        std::fs::rename(at("new"), at("policies")).expect("turning it");
    };
    for (name, degrade_at) in [("one", 0.5), ("two", 0.6), ("three", 0.7)] {
        a_good_module_in(&at(name), degrade_at);
    }
    turn("one");
    let db = TestDb::new(Backend::Sqlite).await;
    let host = watching(&db, state.path(), &at("policies")).await;
    active(&host, 1).await;
    let mut seen_within = Duration::MAX;
    // The best of two: a busy machine may be late once.
    for (to, number) in [("two", 2), ("three", 3)] {
        let turned = Instant::now();
        turn(to);
        active(&host, number).await;
        seen_within = seen_within.min(turned.elapsed());
    }
    assert!(seen_within < Duration::from_secs(15), "it was seen only after {seen_within:?}");
    std::fs::remove_file(at("policies")).expect("removing");
    logged(&host, "was refused").await;
    active(&host, 3).await;
    threshold(&at("one"), 0.8);
    turn("one");
    active(&host, 4).await;
    stops(host).await;
}
