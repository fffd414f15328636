//! An agent's token: in its environment, and while it runs in the file in which
//! agents of the field look for it, and nowhere else.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sprag::provision::{BoxSpec, BoxToken};

use super::escapes::{group_and_supervisor, kill};
use super::outside::{AGENT, Kind, Outside, shell};
use super::{REGISTRY, TOKEN, call, refused, running, soon, spec, stopped};

const FILE: &str = ".auth_token";

/// Files below `dir` that hold `token`.
fn holding(dir: &Path, token: &str) -> String {
    let found = Command::new("grep").arg("-rlF").arg(token).arg(dir).output().expect("grep");
    String::from_utf8(found.stdout).expect("names")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_in_the_environment_and_its_own_file_alone() {
    let outside = Outside::new(Kind::Process).await;
    // As the field's agent reads it.
    let show = "echo token=${#SPRAG_TOKEN}; env | grep -v TOKEN | sort; \
                [ \"$(cat \"$CONFIGS_DIR/.auth_token\")\" = \"$SPRAG_TOKEN\" ] && echo both; echo shown;";
    let p = outside.process(|settings| settings.command = shell(&format!("{show} {AGENT}")));
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let place = outside.place("w", "a");
    let log = || std::fs::read_to_string(place.join("agent.log")).unwrap_or_default();
    soon("all is shown", async || log().contains("shown")).await;
    let log = log();
    for line in
        ["SPRAG_URL=http://127.0.0.1:9", "PLATFORM_URL=http://127.0.0.1:9", "SPRAG_INSTANCE_ID=a", "both"]
    {
        assert!(log.lines().any(|seen| seen == line), "no {line} in {log}");
    }
    let registry = format!("SPRAG_REGISTRY_ID={REGISTRY}");
    assert!(log.lines().any(|seen| seen == registry), "no {registry} in {log}");
    for line in ["SPRAG_WORKSPACE_ID=w", "WORKSPACE_ID=w", &format!("CONFIGS_DIR={}", place.display())] {
        assert!(log.lines().any(|seen| seen == line), "no {line} in {log}");
    }
    assert!(log.contains(&format!("token={}", TOKEN.len())), "{log}");
    assert!(!log.contains("SPRAG_TEST_BIN"), "the host's own environment: {log}");
    let file = place.join(FILE);
    assert_eq!(holding(outside.dir.path(), TOKEN), format!("{}\n", file.display()), "on disk");
    assert_eq!(std::fs::read_to_string(&file).expect("the token"), TOKEN, "one line without an end");
    assert_eq!(file.metadata().expect("the file").mode() & 0o777, 0o600);
    for process in std::fs::read_dir("/proc").expect("processes") {
        let arguments = std::fs::read(process.expect("an entry").path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains(TOKEN), "in an argument");
    }
}

/// The operator's own word for where the configuration lies goes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_the_field_give_way_to_the_operators() {
    let outside = Outside::new(Kind::Process).await;
    let p = outside.process(|settings| {
        settings.command = shell(&format!("echo \"$CONFIGS_DIR,$WORKSPACE_ID\"; {AGENT}"));
        settings.env.insert("CONFIGS_DIR".to_owned(), "/etc/agent".to_owned());
        settings.env.insert("WORKSPACE_ID".to_owned(), "other".to_owned());
    });
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let log = outside.place("w", "a").join("agent.log");
    soon("it says so", async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("/etc/agent,other"))
    })
    .await;
}

/// How a box ends.
#[derive(Clone, Copy, Debug)]
enum Way {
    Stop,
    Crash,
    GroupKilled,
    /// Nobody is left to clear up, until the next call looks.
    AllKilled,
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_the_box(
    #[values(Way::Stop, Way::Crash, Way::GroupKilled, Way::AllKilled)] way: Way,
    #[values(false, true)] half_written: bool,
) {
    let outside = Outside::new(Kind::Process).await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let place = outside.place("w", "a");
    if half_written {
        // As whoever was killed while it wrote leaves it.
        std::fs::rename(place.join(FILE), place.join(".auth_token.new")).expect("renaming");
    }
    assert!(!holding(outside.dir.path(), TOKEN).is_empty(), "there while it runs");
    match way {
        Way::Stop => drop(p.stop(&call("w", "1.2", "k2"), "a").await.expect("a stop")),
        Way::Crash => std::fs::write(place.join("end"), "").expect("writing"),
        Way::GroupKilled => kill(-group_and_supervisor(&place).0),
        Way::AllKilled => {
            let (group, supervisor) = group_and_supervisor(&place);
            kill(supervisor);
            kill(-group);
        }
    }
    soon("it has ended", async || p.status("w", "a").await == Ok(stopped("w", "a"))).await;
    // A stop of what has ended is what a claim does before it starts another.
    p.stop(&call("w", "1.3", "k3"), "a").await.expect("a stop");
    soon("no token is left", async || holding(outside.dir.path(), TOKEN).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_has_a_new_one() {
    let outside = Outside::new(Kind::Process).await;
    let p = outside.provider();
    for (n, instance) in ["a", "a", "b"].into_iter().enumerate() {
        let token = format!("token-number-{n}");
        let spec = BoxSpec { token: BoxToken(token.clone()), ..spec() };
        let started = p.start(&call("w", &format!("{n}.1"), &format!("s{n}")), instance, &spec).await;
        assert_eq!(started, Ok(running("w", instance)));
        let file = outside.place("w", instance).join(FILE);
        assert_eq!(std::fs::read_to_string(&file).expect("the token"), token);
        p.stop(&call("w", &format!("{n}.2"), &format!("e{n}")), instance).await.expect("a stop");
        assert_eq!(holding(outside.dir.path(), "token-number"), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_started_leaves_none() {
    let outside = Outside::new(Kind::Process).await;
    let p = outside.process(|settings| settings.command = vec!["/nowhere/agent".to_owned()]);
    assert_eq!(refused(p.start(&call("w", "1.1", "k1"), "a", &spec()).await), "spawn_failed");
    assert_eq!(holding(outside.dir.path(), TOKEN), "");
}

/// What an older version made so that everybody could read it is mended when the
/// provider is set up; what the agent made in its directory is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_directories_and_logs_are_the_owners_again() {
    let outside = Outside::new(Kind::Process).await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let place = outside.place("w", "a");
    std::fs::write(place.join("report"), "").expect("writing");
    let elsewhere = outside.dir.path().join("lost+found");
    std::fs::create_dir(&elsewhere).expect("a directory");
    let workspace = outside.dir.path().join("w");
    let mode_of = |path: &Path| path.metadata().expect("it is there").mode() & 0o777;
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("setting the mode");
    };
    for dir in [&workspace, &place, &elsewhere, outside.dir.path()] {
        set(dir, 0o755);
    }
    for file in ["agent.log", "lock", "report"] {
        set(&place.join(file), 0o644);
    }
    let p = outside.provider();
    for (path, mode) in [
        (&workspace, 0o700),
        (&place, 0o700),
        (&place.join("agent.log"), 0o600),
        (&place.join("lock"), 0o600),
        (&place.join("report"), 0o644),
        (&elsewhere, 0o755),
    ] {
        assert_eq!(mode_of(path), mode, "{}", path.display());
    }
    assert_eq!(mode_of(outside.dir.path()), 0o755, "it may hold other things");
    assert_eq!(p.status("w", "a").await, Ok(running("w", "a")));
}
