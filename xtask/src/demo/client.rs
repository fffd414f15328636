//! The little of HTTP that an operator needs.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An operator of the host.
#[derive(Clone)]
pub struct Client {
    http: ureq::Agent,
    base: String,
    token: String,
}

/// What the host said.
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl Client {
    /// `base` without a slash at its end.
    pub fn new(base: &str, token: &str) -> Self {
        Self { http: agent(Some(TIMEOUT)), base: base.to_owned(), token: token.to_owned() }
    }

    /// Whether the host takes requests.
    pub fn is_ready(&self) -> bool {
        self.http.get(self.at("/readyz")).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// One POST; any status is an answer, only a lost one is an error. The same goes for the others.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let request = self.http.post(self.at(path)).header("authorization", self.bearer());
        read(request.send_json(body)).with_context(|| format!("no answer to POST {path}"))
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        let request = self.http.get(self.at(path)).header("authorization", self.bearer());
        read(request.call()).with_context(|| format!("no answer to GET {path}"))
    }

    pub fn delete(&self, path: &str) -> Result<Answer> {
        let request = self.http.delete(self.at(path)).header("authorization", self.bearer());
        read(request.call()).with_context(|| format!("no answer to DELETE {path}"))
    }

    /// Workspaces that are not removed, 500 at most.
    pub fn workspaces(&self) -> Result<Vec<Value>> {
        let answer = self.get("/workspaces?limit=500")?;
        match (answer.code, answer.body) {
            (200, Value::Array(rows)) => Ok(rows),
            (code, body) => bail!("the host did not list workspaces: {}", Answer { code, body }.shown()),
        }
    }

    /// Hands every event there is and will be to `hear`, until the host is gone.
    pub fn events(&self, mut hear: impl FnMut(&Value)) -> Result<()> {
        let request = agent(None).get(self.at("/events/stream"));
        // Before the first there is none: from the beginning.
        let request = request.header("authorization", self.bearer()).header("last-event-id", "0");
        let stream = request.call().context("no answer to GET /events/stream")?;
        for line in BufReader::new(stream.into_body().into_reader()).lines() {
            if let Some(data) = line?.strip_prefix("data:") {
                hear(&serde_json::from_str(data)?);
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn agent(patience: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(patience).build().into()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer> {
    let mut answer = answer?;
    let code = answer.status().as_u16();
    Ok(Answer { code, body: answer.body_mut().read_json().unwrap_or(Value::Null) })
}

impl Answer {
    /// `409 CLAIM_OPEN` and the like.
    pub fn shown(&self) -> String {
        let code = self.body["code"].as_str().or_else(|| self.body["error"].as_str()).unwrap_or_default();
        format!("{} {code}", self.code).trim_end().to_owned()
    }
}
