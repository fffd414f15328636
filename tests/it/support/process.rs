//! The real `sprag serve` as a process that can be stopped or killed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{policy_dir, sprag_bin};

/// The admin token of every host that a test starts.
pub const ADMIN: &str = "an-admin-token-for-tests";

/// A running host.
pub struct Process {
    child: Child,
    pub url: String,
    pub client: reqwest::Client,
    admin: String,
    log: Arc<Mutex<String>>,
}

/// A host before it starts.
pub struct Launch<'a> {
    pub database_url: &'a str,
    pub state_dir: &'a Path,
    /// `0` as its port: whichever is free.
    pub listen: &'a str,
    pub config: &'a str,
    /// Its policy directory: the shipped policies. None: what `config` says.
    pub policy_dir: Option<PathBuf>,
    /// The admin token. None: the host makes one.
    pub admin: Option<&'a str>,
    pub env: &'a [(&'a str, &'a str)],
    /// Another program and its arguments, which runs what comes after them.
    pub under: &'a [&'a str],
}

impl<'a> Launch<'a> {
    /// With the shipped policies, on a free port.
    pub fn of(database_url: &'a str, state_dir: &'a Path) -> Self {
        Self {
            database_url,
            state_dir,
            listen: "127.0.0.1:0",
            config: "",
            policy_dir: Some(policy_dir()),
            admin: Some(ADMIN),
            env: &[],
            under: &[],
        }
    }

    /// With exactly this configuration.
    pub fn bare(database_url: &'a str, state_dir: &'a Path, config: &'a str) -> Self {
        Self { config, policy_dir: None, ..Self::of(database_url, state_dir) }
    }

    fn command(&self) -> Command {
        let file = self.state_dir.join("sprag.toml");
        let policies = self.policy_dir.as_ref().map(|dir| format!("policy_dir = {dir:?}\n"));
        let config = policies.unwrap_or_default() + self.config;
        std::fs::write(&file, config).expect("writing the configuration");
        let mut words = self.under.iter().map(OsString::from).chain([sprag_bin().into()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(["serve", "--listen", self.listen, "--log-format", "json", "--config"]);
        command.arg(&file).arg("--state-dir").arg(self.state_dir);
        command.env("SPRAG_DATABASE_URL", self.database_url).envs(self.env.iter().copied());
        command.envs(self.admin.map(|admin| ("SPRAG_ADMIN_TOKEN", admin)));
        command
    }

    /// Starts it and waits until it serves.
    pub async fn start(&self) -> Process {
        let mut command = self.command();
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("starting the host");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let url = loop {
            let Some(line) = lines.next_line().await.expect("reading the log") else {
                panic!("the host ended before it served:\n{}", log.lock().expect("the log"));
            };
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            keep(&log, &line);
            if entry["fields"]["message"] == "serving" {
                break format!("http://{}", entry["fields"]["listen"].as_str().expect("an address"));
            }
        };
        // Somebody has to read on, or the host would wait for its log.
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&kept, &line);
            }
        });
        let admin = match self.admin {
            Some(admin) => admin.to_owned(),
            None => std::fs::read_to_string(self.state_dir.join("admin-token")).expect("the admin token"),
        };
        let admin = admin.trim().to_owned();
        Process { child, url, client: crate::support::client(), admin, log }
    }
}

impl Process {
    /// Starts a host with the shipped policies on a free port and waits until it serves.
    pub async fn start(database_url: &str, state_dir: &Path, config: &str) -> Self {
        Launch { config, ..Launch::of(database_url, state_dir) }.start().await
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until it has died by itself, of SIGKILL.
    pub async fn died(mut self, at: &str) {
        use std::os::unix::process::ExitStatusExt as _;
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        let ended = ended
            .unwrap_or_else(|_| panic!("it lives past {at}:\n{}", self.log()))
            .expect("waiting for the host");
        assert_eq!(ended.signal(), Some(9), "{ended}:\n{}", self.log());
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killing the host");
    }

    /// SIGSTOP, and SIGCONT after this long: it believes that no time has passed.
    pub async fn freeze(&self, time: Duration) {
        self.signal("-STOP").await;
        tokio::time::sleep(time).await;
        self.signal("-CONT").await;
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn stop(mut self) {
        self.signal("-TERM").await;
        let ended = self.child.wait().await.expect("waiting for the host");
        assert!(ended.success(), "the host ended with {ended}");
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await.expect("sending the signal");
        assert!(sent.success());
    }

    /// Creates a workspace; its id and token.
    pub async fn create(&self, body: Value) -> (String, String) {
        let made = self.admin(reqwest::Method::POST, "workspaces", Some(body)).await;
        let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key} in {made}")).to_owned();
        (text("id"), text("auth_token"))
    }

    /// An operator's request that must succeed.
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let mut request =
            self.client.request(method, format!("{}/{path}", self.url)).bearer_auth(&self.admin);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("asking the host");
        let status = response.status();
        let answer: Value = response.json().await.expect("reading the answer");
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }
}

fn keep(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().expect("the log");
    log.push_str(line);
    log.push('\n');
}

/// One heartbeat; None where no answer came.
pub async fn beat(
    client: &reqwest::Client,
    url: &str,
    id: &str,
    token: &str,
    uptime: u64,
    error_rate: f64,
) -> Option<(u16, Value)> {
    let body = json!({
        "workspace_id": id, "uptime_seconds": uptime, "error_rate": error_rate,
        "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": 3,
    });
    let sent = client.post(format!("{url}/registry/heartbeat")).bearer_auth(token).json(&body).send().await;
    let response = sent.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.ok()?))
}
