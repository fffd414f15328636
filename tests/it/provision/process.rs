//! What is particular to boxes that are local processes: that they outlive
//! whoever started them, and that nothing of a dead host comes back to life.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use sprag::provision::{Plugin, ProviderError};

use super::outside::{AGENT, Kind, Outside, shell};
use super::{call, listed, refused, running, soon, spec, stale, stopped};
use crate::support::sprag_bin;

async fn outside() -> Outside {
    Outside::new(Kind::Process).await
}

fn parsed(file: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn kill(signal: &str, pid: i64) {
    let sent = Command::new("kill").args([signal, "--", &pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "kill {signal} {pid}");
}

/// An executable script in place of the supervisor.
fn instead(dir: &Path, script: &str) -> PathBuf {
    let file = dir.join("supervisor.sh");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writing");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    file
}

async fn log_says(outside: &Outside, workspace: &str, instance: &str, what: &str) {
    let log = outside.place(workspace, instance).join("agent.log");
    soon(what, async || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(what))).await;
}

/// The whole host, not merely its provider: this test starts itself again as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_outlives_a_killed_host() {
    const AS_HOST: &str = "SPRAG_TEST_AS_HOST";
    let spec = spec();
    let start = call("w", "1.1", "k1");
    if let Ok(dir) = std::env::var(AS_HOST) {
        let outside = outside().await;
        let p = outside.process(|settings| settings.dir = dir.into());
        p.start(&start, "a", &spec).await.expect("a start");
        return std::future::pending().await;
    }
    let outside = outside().await;
    let mut host = tokio::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "provision::process::a_box_outlives_a_killed_host"])
        .env(AS_HOST, outside.dir.path())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .expect("another host");
    let p = outside.provider();
    soon("the box runs", async || p.status("w", "a").await == Ok(running("w", "a"))).await;
    kill("-KILL", -i64::from(host.id().expect("it runs")));
    host.wait().await.expect("the killed host");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(p.status("w", "a").await, Ok(running("w", "a")));
    assert_eq!(p.start(&start, "a", &spec).await, Ok(running("w", "a")), "a repeat");
    assert_eq!(p.stop(&call("w", "2.0", "k2"), "a").await, Ok(stopped("w", "a")));
}

/// The host dies after the fence is accepted and before anything is started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_cut_off_can_be_repeated_until_it_is_overtaken() {
    let outside = outside().await;
    let p = outside.provider();
    let cut_off = outside.process(|settings| settings.sprag = "/bin/false".into());
    let start = call("w", "1.1", "k1");
    let result = cut_off.start(&start, "a", &spec()).await;
    assert!(matches!(result, Err(ProviderError::Unknown { .. })), "{result:?}");
    assert_eq!(p.start(&call("w", "1.1", "k2"), "a", &spec()).await, stale("1.1"), "accepted all the same");
    assert_eq!(p.start(&start, "a", &spec()).await, Ok(running("w", "a")), "equal fence, same key");

    let start = call("v", "1.1", "k1");
    let _ = cut_off.start(&start, "a", &spec()).await;
    assert_eq!(p.stop(&call("v", "1.2", "k2"), "a").await, Ok(stopped("v", "a")));
    assert_eq!(p.start(&start, "a", &spec()).await, stale("1.2"), "overtaken");
}

/// The supervisor is on its way when a newer call comes: it must find out by itself.
#[rstest]
#[case::by_a_fence(true)]
#[case::by_a_stop(false)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_comes_late_starts_nothing(#[case] fence: bool) {
    let outside = outside().await;
    let late = instead(outside.dir.path(), &format!("sleep 0.5; exec {} \"$@\"", sprag_bin().display()));
    let slow = outside.process(|settings| settings.sprag = late);
    let p = outside.provider();
    let (start, spec) = (call("w", "1.1", "k1"), spec());
    let overtake = async {
        soon("the start is accepted", async || outside.place("w", "a").exists()).await;
        match fence {
            true => assert_eq!(p.fence(&call("w", "2.0", "k2")).await, Ok(vec![])),
            false => assert_eq!(p.stop(&call("w", "2.0", "k2"), "a").await, Ok(stopped("w", "a"))),
        }
    };
    let (started, ()) = futures::join!(slow.start(&start, "a", &spec), overtake);
    assert_eq!(started, stale("2.0"));
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")));
    assert!(!outside.place("w", "a").join("run.json").exists(), "something was started");
}

/// Two supervisors of one start, whoever sent the second: one agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_carried_out_once() {
    let outside = outside().await;
    let job = outside.dir.path().join("job.json");
    let keep = instead(outside.dir.path(), &format!("cat > {}", job.display()));
    let cut_off = outside.process(|settings| {
        settings.sprag = keep;
        settings.command = shell(&format!("echo begun; {AGENT}"));
    });
    let _ = cut_off.start(&call("w", "1.1", "k1"), "a", &spec()).await;
    let supervisor = || {
        let job = std::fs::File::open(&job).expect("the job");
        let mut command = Command::new(sprag_bin());
        command.arg("box-supervisor").arg(outside.place("w", "a")).stdin(job).stdout(Stdio::piped());
        command.spawn().expect("a supervisor")
    };
    let mut first = supervisor();
    log_says(&outside, "w", "a", "begun").await;
    let second = supervisor().wait_with_output().expect("the second");
    assert_eq!(String::from_utf8_lossy(&second.stdout).trim(), "\"held\"");
    outside.end("w", "a").await;
    first.wait().expect("the first");
    let third = supervisor().wait_with_output().expect("the third");
    assert_eq!(String::from_utf8_lossy(&third.stdout).trim(), "\"already\"");
    let log = std::fs::read_to_string(outside.place("w", "a").join("agent.log")).expect("the log");
    assert_eq!(log.matches("begun").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_box_of_a_workspace_is_refused_by_the_first_ones_name() {
    let outside = outside().await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let second = call("w", "1.2", "k2");
    match p.start(&second, "b", &spec()).await {
        Err(ProviderError::Refused { code, detail }) => {
            assert_eq!(code, "already_running");
            assert!(detail.contains("\"a\""), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    p.stop(&call("w", "1.3", "k3"), "a").await.expect("a stop");
    assert_eq!(refused(p.start(&second, "b", &spec()).await), "already_running", "as then");
    assert_eq!(p.start(&call("w", "1.4", "k4"), "b", &spec()).await, Ok(running("w", "b")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_will_not_end_is_killed_with_its_children() {
    let outside = outside().await;
    let p = outside.process(|settings| {
        settings.command = shell("trap '' TERM; sh -c 'sleep 60' & echo begun; while :; do sleep 60; done");
        settings.stop_grace = Duration::from_millis(300);
    });
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    log_says(&outside, "w", "a", "begun").await;
    let began = Instant::now();
    assert_eq!(p.stop(&call("w", "1.2", "k2"), "a").await, Ok(stopped("w", "a")));
    assert!(began.elapsed() >= Duration::from_millis(300), "no grace: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_leaves_behind_goes_with_it() {
    let outside = outside().await;
    let p = outside.process(|settings| settings.command = shell("sleep 60 & exit 0"));
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    soon("the box is gone", async || p.status("w", "a").await == Ok(stopped("w", "a"))).await;
}

/// The lock is held by somebody, and the number in `run.json` is a stranger's by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_only_has_the_number_is_left_alone() {
    let outside = outside().await;
    let p = outside.process(|settings| settings.stop_grace = Duration::from_millis(100));
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    outside.end("w", "a").await;
    let (place, mut stranger) =
        (outside.place("w", "a"), Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep"));
    let run = json!({ "fence": { "epoch": 1, "seq": 1 }, "key": "k1", "pid": stranger.id(), "began": 1 });
    std::fs::write(place.join("run.json"), run.to_string()).expect("writing");
    let lock = std::fs::File::open(place.join("lock")).expect("the lock");
    lock.lock().expect("locking");
    let result = p.stop(&call("w", "1.2", "k2"), "a").await;
    let alive = stranger.try_wait().expect("the stranger").is_none();
    drop(lock);
    stranger.kill().expect("ending the stranger");
    stranger.wait().expect("its end");
    assert!(matches!(result, Err(ProviderError::Unknown { .. })), "{result:?}");
    assert!(alive, "a stranger was stopped");
}

/// Whoever gives up waiting in between must not leave a half-stopped box.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_carried_through_though_nobody_waits() {
    let outside = outside().await;
    let p = outside.process(|settings| {
        settings.command = shell("trap '' TERM; echo begun; while :; do sleep 60; done");
        settings.stop_grace = Duration::from_millis(300);
    });
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    log_says(&outside, "w", "a", "begun").await;
    let stop = call("w", "1.2", "k2");
    let waited = tokio::time::timeout(Duration::from_millis(100), p.stop(&stop, "a")).await;
    assert!(waited.is_err(), "{waited:?}");
    soon("the box is gone", async || p.status("w", "a").await == Ok(stopped("w", "a"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_an_agent_ended_is_written_down() {
    let outside = outside().await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    outside.end("w", "a").await;
    let exit = parsed(&outside.place("w", "a").join("exit.json")).expect("an exit");
    assert_eq!(exit["code"], 3, "{exit}");
    p.start(&call("w", "1.2", "k2"), "b", &spec()).await.expect("a start");
    p.stop(&call("w", "1.3", "k3"), "b").await.expect("a stop");
    let exit = parsed(&outside.place("w", "b").join("exit.json")).expect("an exit");
    assert_eq!(exit["code"], 0, "SIGTERM was heard: {exit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_run_is_refused_and_starts_nothing() {
    let outside = outside().await;
    let p = outside.process(|settings| settings.command = vec!["/nowhere/agent".to_owned()]);
    assert_eq!(refused(p.start(&call("w", "1.1", "k1"), "a", &spec()).await), "spawn_failed");
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")));
    assert_eq!(refused(p.start(&call("w", "1.2", "a b"), "a", &spec()).await), "bad_key");
    assert_eq!(refused(p.start(&call("", "1.2", "k2"), "a", &spec()).await), "bad_name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_anything() {
    let outside = outside().await;
    let p = outside.provider();
    let (workspace, instance) = ("../w/%41 ü", "..");
    p.start(&call(workspace, "1.1", "k1"), instance, &spec()).await.expect("a start");
    assert_eq!(p.list().await, Ok(vec![listed(workspace, instance)]));
    assert_eq!(p.fence(&call(workspace, "1.2", "k2")).await, Ok(vec![running(workspace, instance)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_boxes_are_cleared_away_but_for_the_last_ones() {
    let outside = outside().await;
    let p = outside.provider();
    for n in 0..6 {
        let (start, stop) =
            (call("w", &format!("{n}.1"), &format!("s{n}")), call("w", &format!("{n}.2"), &format!("e{n}")));
        p.start(&start, &format!("i{n}"), &spec()).await.expect("a start");
        p.stop(&stop, &format!("i{n}")).await.expect("a stop");
    }
    let mut left: Vec<_> = std::fs::read_dir(outside.dir.path().join("w/boxes"))
        .expect("the boxes")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    left.sort();
    assert_eq!(left, ["i2", "i3", "i4", "i5"]);
}

/// A host that hangs in a stop must not keep another one from fencing it off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_way_keeps_nobody_from_fencing() {
    let outside = outside().await;
    let p = outside.process(|settings| {
        settings.command = shell("trap '' TERM; echo begun; while :; do sleep 60; done");
        settings.stop_grace = Duration::from_secs(2);
    });
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    log_says(&outside, "w", "a", "begun").await;
    let stop = call("w", "1.2", "k2");
    let fence = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        (outside.provider().fence(&call("w", "2.0", "k3")).await, began.elapsed())
    };
    let (ended, (fenced, took)) = futures::join!(p.stop(&stop, "a"), fence);
    assert_eq!(fenced, Ok(vec![running("w", "a")]));
    assert!(took < Duration::from_secs(1), "the fence waited {took:?}");
    assert_eq!(ended, Ok(stopped("w", "a")), "it was accepted before the fence");
}

/// A supervisor that came late has its box's lock until it notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_for_a_moment_is_no_box() {
    let outside = outside().await;
    let p = outside.provider();
    let late = outside.place("w", "late");
    std::fs::create_dir_all(&late).expect("a directory");
    let lock = std::fs::File::create(late.join("lock")).expect("a lock");
    lock.lock().expect("locking");
    let let_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(lock);
    });
    assert_eq!(p.start(&call("w", "1.1", "k1"), "a", &spec()).await, Ok(running("w", "a")));
    let_go.join().expect("the lock is free");
}

/// Of two deliveries, the one that was overtaken does not come last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_deliveries_leave_the_newest() {
    let outside = outside().await;
    let p = outside.provider();
    p.start(&call("w", "1.0", "k"), "a", &spec()).await.expect("a start");
    for round in 0..20_u64 {
        let deliver = async |seq: u64| {
            let call = call("w", &format!("{}.{seq}", round + 2), &format!("{round}-{seq}"));
            let plugins = [Plugin { name: format!("{seq}"), version: None }];
            p.deliver(&call, "a", &plugins).await
        };
        let (_, newest) = futures::join!(deliver(1), deliver(2));
        assert_eq!(newest, Ok(()));
        assert_eq!(outside.plugins("w", "a"), ["2"]);
    }
}
