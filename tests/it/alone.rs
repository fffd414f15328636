//! What a host needs to itself, and what it says where it can't start: one SQLite
//! file for one host, a database and directories that are there, a configuration.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::process::{ADMIN, Process};
use crate::support::sprag_bin;

fn sprag(args: &[&str]) -> Command {
    // One that starts where it must not would never end.
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(sprag_bin())
        .args(args)
        .env_remove("SPRAG_DATABASE_URL")
        .env_remove("SPRAG_POLICY_DIR");
    command.env("SPRAG_ADMIN_TOKEN", ADMIN);
    command
}

fn serve(url: &str, more: &[&str]) -> Output {
    let state = tempfile::tempdir().expect("a directory");
    let mut command = sprag(&["serve", "--listen", "127.0.0.1:0", "--database-url", url]);
    command.args(more).env("SPRAG_STATE_DIR", state.path()).output().expect("running sprag")
}

/// What it said when it did not start.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_host_on_one_file_is_refused_and_names_the_first() {
    let (dir, state) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let url = format!("sqlite:{}/sprag.db", dir.path().display());
    let host = Process::start(&url, state.path(), "").await;
    let (id, _) = host.create(json!({ "name": "w" })).await;
    // By whatever path.
    std::os::unix::fs::symlink(dir.path(), state.path().join("dir")).expect("a link");
    std::os::unix::fs::symlink(dir.path().join("sprag.db"), state.path().join("linked.db")).expect("a link");
    let paths =
        [format!("{}/dir/sprag.db", state.path().display()), format!("{}/linked.db", state.path().display())];
    for url in [url.clone(), format!("sqlite:{}", paths[0]), format!("sqlite:{}", paths[1])] {
        for said in [
            refusal(&serve(&url, &[])),
            refusal(&sprag(&["migrate", "--database-url", &url]).output().expect("sprag")),
        ] {
            assert!(said.contains(&format!("process {}", host.id())), "{said}");
            assert!(said.contains("since 20") && said.contains(&host.url["http://".len()..]), "{said}");
        }
    }
    // Who only reads may.
    let record = sprag(&["record", "--database-url", &url]).output().expect("running sprag");
    assert!(record.status.success(), "{}", String::from_utf8_lossy(&record.stderr));
    // It goes on, and nothing is left of it when it is killed.
    host.admin(reqwest::Method::GET, &format!("workspaces/{id}"), None).await;
    host.kill().await;
    let again = Process::start(&url, state.path(), "").await;
    again.admin(reqwest::Method::GET, &format!("workspaces/{id}"), None).await;
    again.stop().await;
    assert!(sprag(&["migrate", "--database-url", &url]).output().expect("sprag").status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_hosts_share_a_postgres() {
    let db = TestDb::new(Backend::Postgres).await;
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let one = Process::start(&db.url, dirs[0].path(), "").await;
    let other = Process::start(&db.url, dirs[1].path(), "").await;
    one.stop().await;
    other.stop().await;
}

#[rstest]
#[case::serve(true)]
#[case::migrate(false)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_and_the_file_are_made_for_their_owner_alone(#[case] serves: bool) {
    let (dir, state) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let folder = dir.path().join("new/below");
    let url = format!("sqlite:{}/sprag.db", folder.display());
    let mode = |name: &str| {
        let path = folder.join(name);
        std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode()
            & 0o777
    };
    if serves {
        let host = Process::start(&url, state.path(), "").await;
        assert_eq!([mode("sprag.db-wal"), mode("sprag.db-shm")], [0o600, 0o600]);
        assert!(!host.log().contains("no host ran before"), "{}", host.log());
        host.stop().await;
    } else {
        let migrated = sprag(&["migrate", "--database-url", &url]).output().expect("running sprag");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }
    assert_eq!([mode("sprag.db"), mode("")], [0o600, 0o700]);
}

/// What an older version made with an ordinary umask. What a group may read is somebody's decision.
#[rstest]
#[case::everybody(0o644, 0o600)]
#[case::everybody_all(0o777, 0o700)]
#[case::a_group(0o640, 0o640)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_everybody_could_read_is_the_owners_again(#[case] before: u32, #[case] after: u32) {
    let (dir, state) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let url = format!("sqlite:{}/sprag.db", dir.path().display());
    let names = ["sprag.db", "sprag.db-wal", "sprag.db-shm", "sprag.db-host"];
    let host = Process::start(&url, state.path(), "").await;
    let (id, _) = host.create(json!({ "name": "w" })).await;
    // Killed, it leaves its log.
    host.kill().await;
    for name in names {
        let mode = std::fs::Permissions::from_mode(before);
        std::fs::set_permissions(dir.path().join(name), mode).expect("setting the mode");
    }
    let host = Process::start(&url, state.path(), "").await;
    host.admin(reqwest::Method::GET, &format!("workspaces/{id}"), None).await;
    for name in names {
        let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(mode, after, "{name}: {mode:o}");
        let says = |line: &str| line.contains("could read it") && line.contains(&format!("{name}\""));
        assert_eq!(host.log().lines().any(says), before != after, "{name}: {}", host.log());
    }
    host.stop().await;
}

/// Of a file that is somebody else's the log says so; only root gets as far as that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_somebody_elses_is_said() {
    let (dir, state) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let file = dir.path().join("sprag.db");
    std::fs::write(&file, "").expect("writing");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("setting the mode");
    if std::os::unix::fs::chown(&file, Some(65_534), None).is_err() {
        return;
    }
    let host = Process::start(&format!("sqlite:{}", file.display()), state.path(), "").await;
    let mode = std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o666, "{mode:o}");
    let log = host.log();
    let said = log.lines().find(|line| line.contains("chmod")).unwrap_or_else(|| panic!("{log}"));
    assert!(said.contains("WARN") && said.contains("65534") && said.contains("sprag.db"), "{said}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_is_made_for_its_owner_and_another_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = dir.path().join("old");
    std::fs::create_dir(&old).expect("a directory");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).expect("setting the mode");
    for (state, expected) in [(dir.path().join("new/below"), 0o700), (old, 0o755)] {
        let url = format!("sqlite:{}/sprag.db", dir.path().display());
        let mut host = tokio::process::Command::new(sprag_bin())
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &url])
            .env("SPRAG_STATE_DIR", &state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a host");
        let token = state.join("admin-token");
        let made = async {
            while !token.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), made).await.expect("a token in time");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&token)), (expected, 0o600));
        let pid = host.id().expect("it runs").to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill").success());
        host.wait().await.expect("its end");
    }
}

#[test]
fn a_policy_directory_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}/sprag.db", dir.path().display());
    let said = refusal(&serve(&url, &["--policy-dir", "/nowhere/policies"]));
    assert!(said.contains("/nowhere/policies") && said.contains("policy directory"), "{said}");
    let file = dir.path().join("heartbeat.wasm");
    std::fs::write(&file, "").expect("writing");
    let said = refusal(&serve(&url, &["--policy-dir", file.to_str().expect("a path")]));
    assert!(said.contains("heartbeat.wasm") && said.contains("policy directory"), "{said}");
}

#[rstest]
#[case::nothing_listens("postgres://u:hunter2@127.0.0.1:1/x", "onnection refused")]
#[case::no_such_host("postgres://u:hunter2@nowhere.invalid/x", "nowhere.invalid")]
fn a_postgres_that_is_not_there_is_said(#[case] url: &str, #[case] says: &str) {
    for output in
        [serve(url, &[]), sprag(&["migrate", "--database-url", url]).output().expect("running sprag")]
    {
        let said = refusal(&output);
        assert!(!said.contains("hunter2") && !said.contains("timed out"), "{said}");
        // The name service's own words differ.
        assert!(said.contains(says) || says.ends_with(".invalid"), "{said}");
    }
}

#[tokio::test]
async fn a_postgres_that_takes_nobody_says_why() {
    let db = TestDb::new(Backend::Postgres).await;
    let gone = db.url.replace("/sprag_test_", "/no_sprag_test_");
    let said = refusal(&sprag(&["migrate", "--database-url", &gone]).output().expect("running sprag"));
    assert!(said.contains("refused the connection") && said.contains("does not exist"), "{said}");
}

#[rstest]
#[case::not_closed(
    "listen = \"127.0.0.1:0\"\ndatabase_url = \"postgres://u:hunter2@h/d\n",
    "2",
    "database_url"
)]
#[case::wrong_type("\n[database]\nmax_connections = \"hunter2\"\n", "3", "max_connections")]
#[case::unknown_key("database_url = \"postgres://u:hunter2@h/d\"\npasswort = \"hunter2\"\n", "2", "passwort")]
#[case::unknown_word("log_format = \"hunter2\"\n", "1", "log_format")]
#[case::beside_a_secret("log_format = 1 # hunter2\n", "1", "log_format")]
#[case::an_address("listen = \"hunter2\"\n", "1", "listen")]
#[case::no_key("hunter2\n", "1", "")]
#[case::a_table("[providers.local]\ntype = \"hunter2\"\n", "", "")]
fn a_configuration_that_is_none_shows_no_line_of_it(
    #[case] text: &str,
    #[case] line: &str,
    #[case] key: &str,
) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writing");
    let path = file.path().to_str().expect("a path");
    for args in
        [vec!["serve", "--config", path], vec!["replay", "--config", path, "--policy-dir", "/nowhere"]]
    {
        let said = refusal(&sprag(&args).output().expect("running sprag"));
        assert!(!said.contains("hunter2"), "{said}");
        assert!(
            said.contains(path) && said.contains(&format!("line {line}")) && said.contains(key),
            "{said}"
        );
    }
}

/// Neither a folder nor a token: the next start, of whoever it is, finds what was there before.
#[rstest]
#[case::no_policies(&["--policy-dir", "/nowhere/policies"], "policy directory")]
#[case::address_taken(&["--listen", "TAKEN"], "listening on")]
#[case::no_webhook_secret(&["--config", "CONFIG"], "setting notices up")]
#[case::no_postgres(&["--database-url", "postgres://u@127.0.0.1:1/x"], "opening the database")]
fn a_start_that_is_refused_leaves_nothing(#[case] args: &[&str], #[case] says: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, state) = (dir.path().join("sprag.toml"), dir.path().join("state"));
    std::fs::write(&config, "[notify]\nurl = \"http://127.0.0.1:1/\"\nsecret_env = \"NO_SUCH_SECRET\"\n")
        .expect("writing");
    let mut command = sprag(&["serve"]);
    command.env_remove("SPRAG_ADMIN_TOKEN").env("SPRAG_STATE_DIR", &state).current_dir(dir.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let of = |arg: &&str| match *arg {
        "CONFIG" => config.clone(),
        "TAKEN" => taken.local_addr().expect("an address").to_string().into(),
        other => other.into(),
    };
    command.args(args.iter().map(of));
    if !args.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !args.contains(&"--database-url") {
        command.arg("--database-url").arg(format!("sqlite:{}/new/sprag.db", dir.path().display()));
    }
    let said = refusal(&command.output().expect("running sprag"));
    assert!(said.contains(says), "{said}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("files").flatten().map(|at| at.path()).collect();
    assert_eq!(left, [config], "{said}");
}
