//! The real `sprag serve` as a process that can be stopped or killed.

use std::path::Path;
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

impl Process {
    /// Starts a host with the shipped policies on a free port and waits until it serves.
    pub async fn start(database_url: &str, state_dir: &Path, config: &str) -> Self {
        let config = format!("policy_dir = {:?}\n{config}", policy_dir());
        Self::start_in(database_url, state_dir, &config, Some(ADMIN), &[]).await
    }

    /// [`Process::start`] on this address, where a host before it may have been.
    pub async fn start_at(listen: &str, database_url: &str, state_dir: &Path, config: &str) -> Self {
        let config = format!("policy_dir = {:?}\n{config}", policy_dir());
        Self::start_in_at(listen, database_url, state_dir, &config, Some(ADMIN), &[]).await
    }

    /// [`Process::start`] with variables of its own.
    pub async fn start_with(
        database_url: &str,
        state_dir: &Path,
        config: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let config = format!("policy_dir = {:?}\n{config}", policy_dir());
        Self::start_in(database_url, state_dir, &config, Some(ADMIN), env).await
    }

    /// Starts a host with exactly this configuration.
    pub async fn start_in(
        database_url: &str,
        state_dir: &Path,
        config: &str,
        admin: Option<&str>,
        env: &[(&str, &str)],
    ) -> Self {
        Self::start_in_at("127.0.0.1:0", database_url, state_dir, config, admin, env).await
    }

    /// [`Process::start_in`] on this address.
    pub async fn start_in_at(
        listen: &str,
        database_url: &str,
        state_dir: &Path,
        config: &str,
        admin: Option<&str>,
        env: &[(&str, &str)],
    ) -> Self {
        Self::launch(Command::new(sprag_bin()), listen, database_url, state_dir, config, admin, env).await
    }

    /// [`Process::start`] by another program, which runs what comes after its arguments.
    pub async fn start_under(wrapper: &[&str], database_url: &str, state_dir: &Path, config: &str) -> Self {
        let config = format!("policy_dir = {:?}\n{config}", policy_dir());
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(sprag_bin());
        Self::launch(command, "127.0.0.1:0", database_url, state_dir, &config, Some(ADMIN), &[]).await
    }

    async fn launch(
        mut command: Command,
        listen: &str,
        database_url: &str,
        state_dir: &Path,
        config: &str,
        admin: Option<&str>,
        env: &[(&str, &str)],
    ) -> Self {
        let file = state_dir.join("sprag.toml");
        std::fs::write(&file, config).expect("writing the configuration");
        command.args(["serve", "--listen", listen, "--log-format", "json", "--config"]).arg(&file);
        command.arg("--state-dir").arg(state_dir).env("SPRAG_DATABASE_URL", database_url);
        command.envs(env.iter().copied());
        if let Some(admin) = admin {
            command.env("SPRAG_ADMIN_TOKEN", admin);
        }
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
        let admin = match admin {
            Some(admin) => admin.to_owned(),
            None => std::fs::read_to_string(state_dir.join("admin-token")).expect("the admin token"),
        };
        let admin = admin.trim().to_owned();
        Self { child, url, client: crate::support::client(), admin, log }
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
