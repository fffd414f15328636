//! A disk that fills up, or fails, under a running host, and has room again. What
//! was acknowledged is there, `/readyz` says what can't be written meanwhile, and
//! writes come back by themselves. And a log that can't be written.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Store;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::process::{ADMIN, Process, beat};
use crate::support::{policy_dir, sprag_bin};

/// How long anything here may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

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
            return limit(host, "4096");
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
    let host = Process::start_under(&["env", "--ignore-signal=XFSZ"], &url, state.path(), "").await;
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
