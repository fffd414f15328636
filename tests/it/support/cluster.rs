//! A Postgres of a test's own, that it can stop and start again: the same
//! binaries and the same user as the throw-away cluster, which is everybody's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, running or stopped.
pub struct Cluster {
    pub url: String,
    server: Child,
    bin: PathBuf,
    port: u16,
    /// Of whoever runs it.
    owner: (u32, u32),
    home: TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let shared = shared_data().await;
        // What started it is written down there, with the path of the binary first.
        let options = fs::read_to_string(shared.join("postmaster.opts")).expect("the cluster's options");
        let postgres = Path::new(options.split_whitespace().next().expect("a binary"));
        let bin = postgres.parent().expect("its directory").to_owned();
        let meta = fs::metadata(&shared).expect("the cluster's directory");
        let owner = (meta.uid(), meta.gid());

        let place = shared.parent().and_then(Path::parent).expect("where clusters lie");
        let home = tempfile::Builder::new().prefix("sprag-pg-").tempdir_in(place).expect("a directory");
        chown(home.path(), Some(owner.0), Some(owner.1)).expect("giving the directory away");
        let mut init = own(&bin.join("initdb"), owner, home.path());
        init.arg("-D").arg(home.path().join("data"));
        init.args(["-U", "sprag", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let made = init.output().await.expect("running initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let server = launch(&bin, owner, home.path(), port);
        let url = format!("postgres://sprag@127.0.0.1:{port}/postgres");
        let this = Self { url, server, bin, port, owner, home };
        this.answers().await;
        this
    }

    /// A fast shutdown: whoever is connected is thrown out, and nobody comes in.
    pub async fn stop(&mut self) {
        let id = self.server.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().await.expect("sending the signal");
        assert!(sent.success());
        self.server.wait().await.expect("its end");
    }

    /// Starts what was stopped, where it was.
    pub async fn start_again(&mut self) {
        self.server = launch(&self.bin, self.owner, self.home.path(), self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = PgConnection::connect(&self.url).await {
            assert!(Instant::now() < until, "Postgres does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Where the data of the throw-away cluster lie.
async fn shared_data() -> PathBuf {
    let admin = PgConnectOptions::from_str(&super::postgres_url()).expect("SPRAG_TEST_POSTGRES_URL");
    let mut connection = admin.connect().await.expect("the throw-away Postgres");
    let place: String = sqlx::query_scalar("SELECT current_setting('data_directory')")
        .fetch_one(&mut connection)
        .await
        .expect("its directory");
    connection.close().await.expect("closing Postgres");
    place.into()
}

/// A command of that user, at home in `home`.
fn own(program: &Path, (uid, gid): (u32, u32), home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env("HOME", home).env("LC_ALL", "C").kill_on_drop(true);
    if fs::metadata("/proc/self").map_or(uid, |own| own.uid()) != uid {
        command.uid(uid).gid(gid);
    }
    command.stdin(Stdio::null());
    command
}

fn launch(bin: &Path, owner: (u32, u32), home: &Path, port: u16) -> Child {
    let mut command = own(&bin.join("postgres"), owner, home);
    command.arg("-D").arg(home.join("data")).arg("-k").arg(home);
    for setting in ["listen_addresses=127.0.0.1", &format!("port={port}"), "fsync=off"] {
        command.args(["-c", setting]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starting Postgres")
}
