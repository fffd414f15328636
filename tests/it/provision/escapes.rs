//! A box is all that its agent started: whatever leaves the agent's session,
//! parents and standard streams ends with the box, however the box ends.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rstest::rstest;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sprag::provision::ProviderError;

use super::outside::{AGENT, Kind, Outside, shell};
use super::{call, listed, running, soon, spec, stopped};

/// What escapes, by a script that writes the number of each process to a file
/// `escaped-NUMBER` beside the agent.
#[derive(Clone, Copy, Debug)]
pub enum Escape {
    /// tmux, ssh-agent, a dev server.
    Session,
    /// A daemon of the old school.
    DoubleFork,
    Nohup,
    /// It does not hear SIGTERM.
    Deaf,
    /// Nothing of the box's environment is left.
    OtherEnvironment,
    /// Each is gone before it is found, and has left another.
    Hopping,
    Many,
}

impl Escape {
    /// A line of shell; it goes on when all have escaped.
    pub fn script(self) -> String {
        const STAY: &str = "echo > escaped-$$; exec sleep 1000";
        match self {
            Escape::Session => format!("setsid sh -c '{STAY}' & "),
            Escape::DoubleFork => {
                format!("( setsid sh -c '( cd .; sh -c \"{STAY}\" & ) & ' <&- >&- 2>&- & ); ")
                    .replace("$$", "\\$\\$")
            }
            Escape::Nohup => format!("nohup sh -c '{STAY}' > /dev/null 2>&1 & "),
            Escape::Deaf => {
                "setsid sh -c 'trap \"\" TERM; echo > escaped-$$; while :; do sleep 1; done' & ".to_owned()
            }
            Escape::OtherEnvironment => {
                format!("env -i \"PATH=$PATH\" setsid sh -c '{STAY}' & ")
            }
            Escape::Hopping => {
                "echo 'echo > escaped-$$; sleep 0.02; setsid sh hop & exit' > hop; setsid sh hop & "
                    .to_owned()
            }
            Escape::Many => format!("for i in $(seq 100); do setsid sh -c '{STAY}' & done; "),
        }
    }

    fn number(self) -> usize {
        if matches!(self, Escape::Many) { 100 } else { 1 }
    }
}

/// Numbers of those that have escaped so far, alive or not.
pub fn escaped(place: &Path) -> Vec<i64> {
    let names = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("escaped-")?.parse().ok();
    names.filter_map(number).collect()
}

/// A field of `/proc/PID/stat`, counted behind the name. None: there is no such process.
fn stat(pid: i64, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(field).map(str::to_owned)
}

/// Those of them that live.
pub fn alive(place: &Path) -> Vec<i64> {
    let lives = |pid: &i64| stat(*pid, 0).is_some_and(|state| state != "Z");
    escaped(place).into_iter().filter(lives).collect()
}

pub fn kill(pid: i64) {
    let _ = Command::new("kill").args(["-KILL", "--", &pid.to_string()]).output().expect("kill");
}

/// The box's process group, and whoever supervises it.
pub fn group_and_supervisor(place: &Path) -> (i64, i64) {
    let run = std::fs::read(place.join("run.json")).expect("a run");
    let run: serde_json::Value = serde_json::from_slice(&run).expect("JSON");
    let group = run["pid"].as_i64().expect("a process group");
    let above: i64 = stat(group, 1).expect("its parent").parse().expect("a number");
    let command = std::fs::read(format!("/proc/{above}/cmdline")).unwrap_or_default();
    let supervises = String::from_utf8_lossy(&command).contains("box-supervisor");
    (group, if supervises { above } else { group })
}

/// A box of which something can't be killed, for the provider: its lock is held on, as by a
/// process that the kernel does not let go.
pub struct Held {
    _lock: OwnedFd,
}

impl Held {
    pub fn of(place: &Path) -> Self {
        let (_, supervisor) = group_and_supervisor(place);
        let open = std::fs::read_dir(format!("/proc/{supervisor}/fd")).expect("its files").flatten();
        let lock = open
            .filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file == place.join("lock")))
            .find_map(|fd| fd.file_name().to_str()?.parse().ok())
            .expect("the lock");
        let pid = i32::try_from(supervisor).ok().and_then(Pid::from_raw).expect("a process");
        let handle = pidfd_open(pid, PidfdFlags::empty()).expect("its handle");
        Self { _lock: pidfd_getfd(handle, lock, PidfdGetfdFlags::empty()).expect("its lock") }
    }
}

/// How the box ends.
#[derive(Clone, Copy, Debug)]
enum Way {
    Stop,
    /// The agent ends by itself.
    Crash,
    /// As the README kills one.
    GroupKilled,
    SupervisorKilled,
    InitKilled,
}

async fn begun(outside: &Outside, escape: Escape) -> PathBuf {
    let p = outside.process(|settings| settings.command = shell(&format!("{} {AGENT}", escape.script())));
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let place = outside.place("w", "a");
    soon("they have escaped", async || escaped(&place).len() >= escape.number()).await;
    place
}

async fn nothing_is_left(place: &Path) {
    soon("nothing is left", async || alive(place).is_empty()).await;
    let were = escaped(place).len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(escaped(place).len(), were, "somebody goes on");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_escapes_from_a_box(
    #[values(
        Escape::Session,
        Escape::DoubleFork,
        Escape::Nohup,
        Escape::Deaf,
        Escape::OtherEnvironment,
        Escape::Hopping,
        Escape::Many
    )]
    escape: Escape,
    #[values(Way::Stop, Way::Crash, Way::GroupKilled, Way::SupervisorKilled, Way::InitKilled)] way: Way,
) {
    let outside = Outside::new(Kind::Process).await;
    let place = begun(&outside, escape).await;
    let p = outside.provider();
    let (group, supervisor) = group_and_supervisor(&place);
    match way {
        Way::Stop => {
            let stop = p.stop(&call("w", "1.2", "k2"), "a").await;
            assert_eq!(stop, Ok(stopped("w", "a")));
            // Once the lock is free nothing is left: it is not only on its way.
            assert_eq!(alive(&place), Vec::<i64>::new());
        }
        Way::Crash => outside.end("w", "a").await,
        Way::GroupKilled => kill(-group),
        Way::SupervisorKilled => kill(supervisor),
        Way::InitKilled => kill(group),
    }
    soon("the box is gone", async || p.status("w", "a").await == Ok(stopped("w", "a"))).await;
    nothing_is_left(&place).await;
    assert_eq!(p.list().await, Ok(vec![]));
    assert!(place.join("exit.json").exists(), "nobody wrote down how it ended");
    assert_eq!(p.start(&call("w", "1.3", "k3"), "b", &spec()).await, Ok(running("w", "b")));
}

/// Supervisor and init at once: then nobody is there to end the rest, and whoever
/// stops or starts a box of that workspace next does it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_supervises_any_more_goes_with_the_next_call(
    #[values(Escape::Session, Escape::DoubleFork, Escape::Deaf, Escape::Many)] escape: Escape,
    #[values(true, false)] stop: bool,
) {
    let outside = Outside::new(Kind::Process).await;
    let place = begun(&outside, escape).await;
    let p = outside.provider();
    let (group, supervisor) = group_and_supervisor(&place);
    for pid in [supervisor, group] {
        let _ = Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill");
    }
    kill(supervisor);
    kill(group);
    soon("the lock is free", async || p.status("w", "a").await == Ok(stopped("w", "a"))).await;
    match stop {
        true => assert_eq!(p.stop(&call("w", "1.2", "k2"), "a").await, Ok(stopped("w", "a"))),
        false => assert_eq!(p.start(&call("w", "1.2", "k2"), "b", &spec()).await, Ok(running("w", "b"))),
    }
    assert_eq!(alive(&place), Vec::<i64>::new());
}

/// What hears a SIGTERM outside of the agent's group is told as well, and has its grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_said_to_all_of_the_box() {
    let outside = Outside::new(Kind::Process).await;
    let hears =
        "setsid sh -c 'trap \"echo > heard; exit\" TERM; echo > escaped-$$; while :; do sleep 0.02; done' & ";
    let slow = "trap 'while [ ! -e heard ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done";
    let p = outside.process(|settings| settings.command = shell(&format!("{hears} {slow}")));
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let place = outside.place("w", "a");
    soon("it has escaped", async || !escaped(&place).is_empty()).await;
    assert_eq!(p.stop(&call("w", "1.2", "k2"), "a").await, Ok(stopped("w", "a")));
    let exit = std::fs::read_to_string(place.join("exit.json")).expect("an exit");
    assert!(exit.contains("\"code\":0"), "it had no grace: {exit}");
}

/// Nothing of the box has the lock open: what has it could keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_is_not_the_agents() {
    let outside = Outside::new(Kind::Process).await;
    let place = begun(&outside, Escape::Session).await;
    let (group, supervisor) = group_and_supervisor(&place);
    let lock = place.join("lock");
    let mut holders = Vec::new();
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i64>().ok()) else {
            continue;
        };
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file == lock) {
            holders.push(pid);
        }
    }
    holders.sort_unstable();
    let mut expected = vec![group, supervisor];
    expected.sort_unstable();
    assert_eq!(holders, expected);
}

/// It keeps nobody from starting another, and is gone once it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_killed_is_given_up() {
    let outside = Outside::new(Kind::Process).await;
    let place = begun(&outside, Escape::Session).await;
    let p = outside.process(|settings| settings.stop_grace = Duration::from_millis(100));
    let held = Held::of(&place);
    for key in ["k2", "k2"] {
        let stop = p.stop(&call("w", "1.2", key), "a").await;
        assert!(
            matches!(&stop, Err(ProviderError::Unknown { why }) if why.contains("still there")),
            "{stop:?}"
        );
    }
    assert_eq!(alive(&place), Vec::<i64>::new(), "what can be killed is");
    assert!(place.join("given-up.json").exists(), "nobody wrote it down");
    assert_eq!(p.start(&call("w", "1.3", "k3"), "b", &spec()).await, Ok(running("w", "b")));
    drop(held);
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")));
    assert_eq!(p.list().await, Ok(vec![listed("w", "b")]));
}
