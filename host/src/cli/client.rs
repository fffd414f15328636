//! A running host, as the verbs that talk to one reach it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// The running host to talk to.
#[derive(clap::Args)]
pub(super) struct Host {
    /// The host's address
    #[arg(long, env = "SPRAG_URL", default_value = "http://127.0.0.1:7171")]
    url: String,
    /// The admin token; or name its file with --admin-token-file
    #[arg(long, env = "SPRAG_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// The file that the host printed at its first start
    #[arg(long, env = "SPRAG_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

impl Host {
    /// Asks, with what `fill` adds; the answer's JSON.
    ///
    /// # Errors
    /// No token; no answer; an answer that is a problem, in its own words.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        fill: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Value> {
        let token = match (&self.admin_token, &self.admin_token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .with_context(|| format!("reading {}", file.display()))?
                .trim()
                .to_owned(),
            (None, None) => bail!("say who you are: --admin-token-file FILE, or SPRAG_ADMIN_TOKEN"),
        };
        let url = format!("{}/{path}", self.url.trim_end_matches('/'));
        let request = reqwest::Client::new().request(method, &url).bearer_auth(token);
        let response = fill(request).send().await.with_context(|| format!("asking {url}"))?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("reading the answer of {url}"))?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = body["detail"].as_str().or(body["error"].as_str()).unwrap_or("no detail");
        let code = body["code"].as_str().map(|code| format!(" ({code})")).unwrap_or_default();
        bail!("{status}{code}: {detail}")
    }
}
