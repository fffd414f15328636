//! The little of HTTP that an operator and an agent need.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody who talks to the host: an operator or one agent.
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
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { http: config.into(), base: base.to_owned(), token: token.to_owned() }
    }

    /// The same host, somebody else.
    pub fn with_token(&self, token: &str) -> Self {
        Self { http: self.http.clone(), base: self.base.clone(), token: token.to_owned() }
    }

    /// Whether the host takes requests.
    pub fn is_ready(&self) -> bool {
        self.http.get(format!("{}/readyz", self.base)).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// Creates a workspace: its id and its agent's token.
    pub fn create(&self, name: &str, kind: Option<&str>) -> Result<(String, String)> {
        let mut body = json!({ "name": name, "labels": { "demo": "yes" } });
        if let Some(kind) = kind {
            body["kind"] = kind.into();
        }
        let answer = self.post("/workspaces", &body)?;
        let text = |name: &str| answer.body[name].as_str().map(str::to_owned);
        match (answer.code, text("id"), text("auth_token")) {
            (201, Some(id), Some(token)) => Ok((id, token)),
            _ => bail!("the host did not create {name}: {}", answer.shown()),
        }
    }

    /// One POST; any status is an answer, only a lost one is an error.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let mut answer = self
            .http
            .post(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .send_json(body)
            .with_context(|| format!("no answer to POST {path}"))?;
        let code = answer.status().as_u16();
        Ok(Answer { code, body: answer.body_mut().read_json().unwrap_or(Value::Null) })
    }
}

impl Answer {
    /// `409 PAUSED` and the like.
    pub fn shown(&self) -> String {
        let code = self.body["code"].as_str().or_else(|| self.body["error"].as_str()).unwrap_or_default();
        format!("{} {code}", self.code).trim_end().to_owned()
    }
}
