//! A disk that fills up, or fails, under a running host, and has room again. What
//! was acknowledged is there, `/readyz` says what can't be written meanwhile, and
//! writes come back by themselves. The same of a provider's directory and of the state
//! directory; and a log that can't be written.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::{Backend, Store};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::provision::soon;
use crate::support::cli;
use crate::support::db::TestDb;
use crate::support::process::{ADMIN, Launch, Process, beat};
use crate::support::{policy_dir, sprag_bin};

/// How long anything here may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A write beyond the limit of a file fails, and does not kill.
const UNDER: [&str; 2] = ["env", "--ignore-signal=XFSZ"];

/// What happens to whoever writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The file system is full. Where a test may mount none, it is [`Fault::Fails`].
    Full,
    /// No file may grow any more.
    Fails,
}

/// Where a host's database lies.
struct Disk {
    dir: TempDir,
    mounted: bool,
}

impl Disk {
    fn new(fault: Fault) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mount = || {
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=4m", "sprag-test"])
                .arg(dir.path())
                .output()
        };
        let mounted = fault == Fault::Full && mount().is_ok_and(|done| done.status.success());
        Self { dir, mounted }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// From now on nothing can be written.
    fn break_down(&self, host: &Process) {
        if !self.mounted {
            return limit(host, "0");
        }
        let mut file = std::fs::File::create(self.ballast()).expect("a file");
        for size in [65_536, 512] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn recover(&self, host: &Process) {
        match self.mounted {
            true => std::fs::remove_file(self.ballast()).expect("removing the ballast"),
            false => limit(host, "unlimited"),
        }
    }

    fn why(&self) -> &'static str {
        if self.mounted { "its disk is full" } else { "its disk fails" }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        }
    }
}

fn limit(host: &Process, bytes: &str) {
    let done = Command::new("prlimit")
        .args(["--pid", &host.id().to_string(), &format!("--fsize={bytes}:")])
        .status()
        .expect("running prlimit");
    assert!(done.success());
}

async fn readyz(host: &Process) -> (u16, Value) {
    let answer = host.client.get(format!("{}/readyz", host.url)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_come_back_when_the_disk_does(#[values(Fault::Full, Fault::Fails)] fault: Fault) {
    let (disk, state) = (Disk::new(fault), tempfile::tempdir().expect("a directory"));
    let url = format!("sqlite:{}/sprag.db", disk.dir.path().display());
    // A file that is too large is an error then, and not the end of the process.
    let host = Launch { under: &UNDER, ..Launch::of(&url, state.path()) }.start().await;
    let (id, token) = host.create(json!({ "name": "w" })).await;
    let mut uptime = 0;
    // Every one moves the row, in a transaction.
    let mut say = async || {
        uptime += 1;
        let rate = if uptime % 2 == 0 { 0.9 } else { 0.0 };
        let answer = beat(&host.client, &host.url, &id, &token, uptime, rate).await;
        (uptime, answer.expect("an answer").0)
    };
    for _ in 0..4 {
        assert_eq!(say().await.1, 200);
    }
    assert_eq!(readyz(&host).await.0, 200);

    disk.break_down(&host);
    let mut refused = 0;
    let until = Instant::now() + PATIENCE;
    while refused < 5 {
        match say().await {
            (_, 200) => {}
            (_, status) => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
        assert!(Instant::now() < until, "it stores all the same");
    }
    let (status, body) = readyz(&host).await;
    assert_eq!(status, 503, "{body}");
    assert!(body["detail"].as_str().expect("a detail").contains(disk.why()), "{body}");

    disk.recover(&host);
    let until = Instant::now() + PATIENCE;
    let stored = loop {
        let (uptime, status) = say().await;
        if status == 200 {
            break uptime;
        }
        assert!(Instant::now() < until, "no write comes back:\n{}", host.log());
        sleep(Duration::from_millis(100)).await;
    };
    while readyz(&host).await.0 != 200 {
        assert!(Instant::now() < until, "it does not get ready: {:?}", readyz(&host).await);
        sleep(Duration::from_millis(100)).await;
    }
    host.stop().await;
    let store = Store::connect_existing(&url).await.expect("the database");
    let row = store.view(&id).await.expect("reading").expect("a row");
    assert!(row.uptime_seconds >= stored, "acknowledged: {stored}, stored: {}", row.uptime_seconds);
    store.close().await;
}

/// A command that needs room fails and says why; everything else goes on, and the next command succeeds.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[case(Backend::Sqlite, Fault::Full)]
#[case(Backend::Postgres, Fault::Full)]
#[case(Backend::Postgres, Fault::Fails)]
async fn a_providers_full_disk_fails_what_needs_it(#[case] backend: Backend, #[case] fault: Fault) {
    let (disk, state, db) =
        (Disk::new(fault), tempfile::tempdir().expect("a directory"), TestDb::new(backend).await);
    if backend == Backend::Sqlite && !disk.mounted {
        // The limit in the place of a full disk would be the database's as well.
        return;
    }
    let boxes = disk.dir.path().join("boxes");
    let config = format!(
        "[effects]\ntick_ms = 50\nbackoff_ms = 50\nbackoff_max_ms = 500\n\
         [provisioning]\nattempts = 2\nstop_attempts = 2\nbackoff_ms = 20\n\
         [providers.local]\ntype = \"process\"\ndir = {boxes:?}\nenv = {{ SPRAG_HEARTBEAT_MS = \"50\" }}\n"
    );
    let host = Launch { under: &UNDER, config: &config, ..Launch::of(&db.url, state.path()) }.start().await;
    let get = async |path: String| host.admin(Method::GET, &path, None).await;
    let (other, token) = host.create(json!({ "name": "other" })).await;
    let body = json!({ "name": "w", "provider": "local" });
    let made = host.admin(Method::POST, "workspaces", Some(body)).await;
    let id = made["id"].as_str().expect("an id");
    let online = async || get(format!("workspaces/{id}")).await["status"] == "online";
    soon("it is online", online).await;

    disk.break_down(&host);
    let ended = async |claim: &Value| {
        let path = format!("claims/{}", claim["id"].as_str().expect("an id"));
        soon("the claim has ended", async || get(path.clone()).await["state"] != "open").await;
        get(path).await
    };
    let claim = host.admin(Method::POST, &format!("workspaces/{id}/restart"), Some(json!({}))).await;
    let claim = ended(&claim).await;
    assert_eq!(claim["state"], "failed", "{claim:#}");
    let why = if disk.mounted { "No space left on device" } else { "File too large" };
    assert!(claim.to_string().contains(why), "{claim:#}");
    assert_eq!(readyz(&host).await.0, 200, "the database is well");
    let (status, body) = beat(&host.client, &host.url, &other, &token, 1, 0.0).await.expect("an answer");
    assert_eq!(status, 200, "{body}");

    disk.recover(&host);
    let claim = host.admin(Method::POST, &format!("workspaces/{id}/restart"), Some(json!({}))).await;
    let claim = ended(&claim).await;
    assert_eq!(claim["state"], "committed", "{claim:#}");
    soon("it is online again", online).await;
    let owed = async || get(format!("effects?state=due&workspace_id={id}")).await;
    soon("nothing is owed", async || owed().await.as_array().is_some_and(Vec::is_empty)).await;
    host.admin(Method::DELETE, &format!("workspaces/{id}"), None).await;
    let rows = || std::fs::read_dir(boxes.join(id).join("boxes")).into_iter().flatten().flatten();
    soon("every box has ended", async || rows().all(|at| at.path().join("exit.json").exists())).await;
    host.stop().await;
}

/// What can't be kept is compiled again by the next start, and decides now.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_state_directory_keeps_no_policy_from_deciding() {
    let (disk, dir) = (Disk::new(Fault::Full), tempfile::tempdir().expect("a directory"));
    if !disk.mounted {
        return;
    }
    let url = format!("sqlite:{}/sprag.db", dir.path().display());
    let host = Process::start(&url, disk.dir.path(), "").await;
    let (id, token) = host.create(json!({ "name": "w" })).await;
    disk.break_down(&host);
    let laxer = dir.path().join("laxer");
    std::fs::create_dir(&laxer).expect("a directory");
    for file in std::fs::read_dir(policy_dir()).expect("policies").flatten() {
        let mut bytes = std::fs::read(file.path()).expect("a file");
        if file.file_name() == "heartbeat.wasm" {
            // A section of nobody: other bytes, of the same meaning.
            bytes.extend(b"\x00\x06\x05other");
        }
        std::fs::write(laxer.join(file.file_name()), bytes).expect("writing");
    }
    let activated = cli::sprag(&host.url, &["policy", "activate", laxer.to_str().expect("a path")]).await;
    activated.exits(0);
    let log = host.log();
    assert!(log.contains("a compiled policy could not be kept"), "{log}");
    let (status, body) = beat(&host.client, &host.url, &id, &token, 1, 0.0).await.expect("an answer");
    assert_eq!(status, 200, "{body}");
    disk.recover(&host);
    host.stop().await;
}

/// `sprag serve 2> FILE` on a disk that is full; `sprag serve 2>&1 | head`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_can_not_be_written_ends_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut host = serve(dir.path(), &free.to_string()).stderr(Stdio::from(full)).spawn().expect("a host");
    let until = Instant::now() + PATIENCE;
    let url = format!("http://{free}/readyz");
    while !crate::support::get(&url).await.is_ok_and(|answer| answer.status() == 200) {
        assert_eq!(host.try_wait().expect("asking for its end"), None, "it ended");
        assert!(Instant::now() < until, "it does not serve");
        sleep(Duration::from_millis(50)).await;
    }
    // What is refused is a line in the log each.
    for _ in 0..3 {
        let refused = crate::support::client()
            .post(format!("http://{free}/policies/modules"))
            .bearer_auth(ADMIN)
            .body("x")
            .send()
            .await;
        assert_eq!(refused.expect("an answer").status(), 422);
    }
    assert!(Command::new("kill").arg(host.id().to_string()).status().expect("kill").success());
    assert!(host.wait().expect("its end").success());
}

fn serve(dir: &Path, listen: &str) -> Command {
    let mut command = Command::new(sprag_bin());
    command.args(["serve", "--listen", listen, "--policy-dir"]).arg(policy_dir()).arg("--state-dir").arg(dir);
    command.env("SPRAG_DATABASE_URL", format!("sqlite:{}/sprag.db", dir.display()));
    command.env("SPRAG_ADMIN_TOKEN", ADMIN);
    command
}
