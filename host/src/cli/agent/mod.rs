//! `sprag agent`: the sample agent. It registers, heartbeats, and says of itself
//! what a control file tells it to say, so that a fleet can be played with and
//! an author of agents sees how little there is to it.
//!
//! It ends with 0 when its workspace was removed or it gets SIGTERM, with 2 when
//! the host does not want it, and with whatever code `crash` names.

mod control;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::text::cell;
use crate::outgoing::{self, How, Outgoing, Proxy};
use crate::secret::{Secret, SecretError, Source};
use control::Control;
use report::Report;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause after a request that failed, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The token comes from SPRAG_TOKEN alone: arguments can be seen by everybody.
#[derive(clap::Args)]
pub struct Args {
    /// The host's address
    #[arg(long, env = "SPRAG_URL", default_value = "http://127.0.0.1:7171")]
    url: String,
    /// Certificates (PEM) that the host's is checked against, instead of the system's
    #[arg(long, env = "SPRAG_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The workspace that this agent belongs to
    #[arg(long, env = "SPRAG_WORKSPACE_ID", value_name = "ID")]
    workspace_id: String,
    /// The box that it runs in
    #[arg(long, env = "SPRAG_INSTANCE_ID", value_name = "ID")]
    instance_id: Option<String>,
    /// The workspace's kind; one of `platform` reports its plugins as its tools
    #[arg(long, env = "SPRAG_KIND", default_value = "workspace")]
    kind: String,
    /// What to say of itself: JSON, read before every heartbeat (docs/operating.md)
    #[arg(long, env = "SPRAG_CONTROL_FILE", value_name = "FILE")]
    control_file: Option<PathBuf>,
    /// The plugins that it was given
    #[arg(long, env = "SPRAG_PLUGINS_FILE", value_name = "FILE")]
    plugins_file: Option<PathBuf>,
    /// Milliseconds from one heartbeat to the next
    #[arg(long, env = "SPRAG_HEARTBEAT_MS", value_name = "MS", default_value_t = 5_000)]
    heartbeat_ms: u64,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut agent = Agent::new(args)?;
    let ended = tokio::select! {
        ended = agent.live() => ended?,
        _ = interrupt.recv() => End::Told,
        _ = terminate.recv() => End::Told,
    };
    agent.say(&format!("ends: {}", ended.why()));
    Ok(match ended {
        End::Crash(code) => ExitCode::from(code),
        End::Told | End::Removed => ExitCode::SUCCESS,
    })
}

/// Why an agent ends well.
enum End {
    Told,
    Removed,
    Crash(u8),
}

impl End {
    fn why(&self) -> String {
        match self {
            End::Told => "it was told to".to_owned(),
            End::Removed => "its workspace was removed".to_owned(),
            End::Crash(code) => format!("its control file says that it crashes with {code}"),
        }
    }
}

struct Agent<'a> {
    args: &'a Args,
    client: Outgoing,
    register: Url,
    heartbeat: Url,
    token: Option<Secret>,
    control: Control,
    began: Instant,
    /// What the host said last, to say only what is new.
    status: String,
}

impl<'a> Agent<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let base = outgoing::base(&args.url).context("--url (SPRAG_URL)")?;
        let at = |path: &str| {
            let url = format!("{}/registry/{path}", base.as_str().trim_end_matches('/'));
            Url::parse(&url).with_context(|| format!("{url:?} is no URL"))
        };
        let token = match Source::Variable("SPRAG_TOKEN".to_owned()).read() {
            Ok(token) => Some(token),
            Err(SecretError::Absent { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let how =
            How { ca_file: args.ca_file.as_deref(), proxy: Proxy::Environment, timeout: Some(PATIENCE) };
        Ok(Self {
            args,
            client: Outgoing::to(&base, &how)?,
            register: at("register")?,
            heartbeat: at("heartbeat")?,
            token,
            control: Control::default(),
            began: Instant::now(),
            status: "unknown".to_owned(),
        })
    }

    async fn live(&mut self) -> anyhow::Result<End> {
        if let Some(end) = self.registered().await? {
            return Ok(end);
        }
        loop {
            sleep(self.interval()).await;
            self.look();
            if let Some(code) = self.control.crash {
                return Ok(End::Crash(code));
            }
            if self.control.silent {
                continue;
            }
            if let Some(end) = self.beat().await? {
                return Ok(end);
            }
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.args.heartbeat_ms.max(10))
    }

    /// Reads the control file; one that can't be read changes nothing.
    fn look(&mut self) {
        let Some(file) = &self.args.control_file else { return };
        match Control::read(file) {
            Ok(control) => self.control = control,
            Err(error) => self.say(&format!("goes on as before: {error:#}")),
        }
    }

    fn report(&self) -> Report {
        Report::of(&self.control, &self.args.kind, self.args.plugins_file.as_deref())
    }

    /// Registers, as often as it takes. A gate that is closed is no reason to
    /// give up: a later heartbeat may pass it.
    async fn registered(&mut self) -> anyhow::Result<Option<End>> {
        loop {
            self.look();
            if let Some(code) = self.control.crash {
                return Ok(Some(End::Crash(code)));
            }
            if self.control.silent {
                sleep(self.interval()).await;
                continue;
            }
            let mut body = self.report().readiness();
            body["id"] = self.args.workspace_id.clone().into();
            body["url"] = "http://127.0.0.1:9".into();
            body["agent_card"] = json!({ "name": "sprag agent", "instance_id": self.args.instance_id });
            let (status, answer) = self.post(self.register.clone(), &body).await?;
            match status {
                StatusCode::OK => {
                    if let Some(token) = answer["auth_token"].as_str() {
                        self.token = Some(Source::Given("the host's token").secret(token.as_bytes())?);
                    }
                    self.notice(&answer);
                    return Ok(None);
                }
                StatusCode::BAD_REQUEST if answer["code"] == "NOT_READY" => {
                    self.notice(&answer);
                    // Without a token it can't heartbeat, and none is handed out here.
                    if self.token.is_some() {
                        return Ok(None);
                    }
                    sleep(self.interval()).await;
                }
                // Paused or hibernated: a registration does not change that.
                StatusCode::CONFLICT => {
                    self.notice(&answer);
                    sleep(self.interval()).await;
                }
                StatusCode::GONE => return Ok(Some(End::Removed)),
                _ => return Err(refused("register", status, &answer)),
            }
        }
    }

    async fn beat(&mut self) -> anyhow::Result<Option<End>> {
        let report = self.report();
        let body = report.heartbeat(&self.control, &self.args.workspace_id, self.began.elapsed());
        let (status, answer) = self.post(self.heartbeat.clone(), &body).await?;
        match status {
            StatusCode::OK => {
                self.notice(&answer);
                Ok(None)
            }
            StatusCode::GONE => Ok(Some(End::Removed)),
            _ => Err(refused("heartbeat", status, &answer)),
        }
    }

    /// Sends until there is an answer that a repeat would not change.
    async fn post(&self, url: Url, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let mut pause = PAUSE;
        loop {
            let mut request = self.client.request(Method::POST, url.clone()).json(body);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.reveal());
            }
            let why = match request.send().await {
                Ok(answer) if !passing(answer.status()) => {
                    let status = answer.status();
                    return Ok((status, answer.json().await.unwrap_or_default()));
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => self.client.why(error),
            };
            self.say(&format!("tries again in {} ms: {why}", pause.as_millis()));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn notice(&mut self, answer: &Value) {
        let code = answer["code"].as_str().map(|code| format!(" ({code})")).unwrap_or_default();
        let status = format!("{}{code}", answer["workspace_status"].as_str().unwrap_or("unknown"));
        if status != self.status {
            self.say(&format!("is {status}"));
            self.status = status;
        }
    }

    fn say(&self, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        crate::cli::say(&format!("{seconds:>8.1}s  {} {}", cell(&self.args.workspace_id), cell(what)));
    }
}

/// Whether the same request may fare better later.
fn passing(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || again.contains(&status)
}

fn refused(what: &str, status: StatusCode, answer: &Value) -> anyhow::Error {
    let detail = cell(answer["detail"].as_str().unwrap_or_default());
    let hint = match status {
        StatusCode::UNAUTHORIZED => "; SPRAG_TOKEN must hold a live token of this workspace",
        _ => "",
    };
    anyhow::anyhow!("the host refused the {what}: {status} {detail}{hint}")
}
