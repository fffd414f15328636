//! A running host, as the verbs that talk to one reach it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::text;
use crate::outgoing::{self, How, Outgoing, Proxy, next_page};
use crate::secret::{Secret, Source};

/// How long an answer may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The same where the host compiles modules first: longer than its `http.policy_request_ms`.
const COMPILING: Duration = Duration::from_secs(150);

/// Items that a list is asked for at once, the most that a host gives.
const PAGE: usize = 500;

/// The running host to talk to.
#[derive(clap::Args)]
pub(super) struct Host {
    /// The host's address, http or https
    #[arg(long, env = "SPRAG_URL", default_value = "http://127.0.0.1:7171")]
    url: String,
    /// The admin token; or name its file with --admin-token-file
    #[arg(long, env = "SPRAG_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// The file that the host printed at its first start; -: standard input
    #[arg(long, env = "SPRAG_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Certificates (PEM) that the host's is checked against, instead of the system's
    #[arg(long, env = "SPRAG_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long one answer may take: 500ms, 2m, … [default: 30s, 150s where modules are compiled]
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

/// How long an answer may take: the host compiles before it answers below `/policies`.
fn patience(path: &str) -> Duration {
    if path.starts_with("policies/") { COMPILING } else { TIMEOUT }
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        Ok(_) => Err("nothing can be answered within no time".to_owned()),
        Err(error) => Err(format!("{error}; expected a number and a unit, such as 30s")),
    }
}

/// How much of a list.
#[derive(clap::Args)]
pub(super) struct Listed {
    /// At most so many; without it, all that there are
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    host: Host,
}

/// The host's refusal, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{status}{}: {detail}", .code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub(super) struct Refused {
    pub status: StatusCode,
    pub code: Option<String>,
    detail: String,
}

/// An answer, and what its head says.
struct Answered {
    body: Value,
    headers: HeaderMap,
}

impl Host {
    /// Asks, with what `fill` adds; the answer's JSON.
    ///
    /// # Errors
    /// No token; no answer in time; an answer that is a [`Refused`], in its own words.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        fill: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Value> {
        let url = self.address(path)?;
        Ok(self.asking(patience(path))?.ask(method, url, fill).await?.body)
    }

    fn address(&self, path: &str) -> anyhow::Result<Url> {
        let base = outgoing::base(&self.url).context("--url (SPRAG_URL)")?;
        let url = format!("{}/{path}", base.as_str().trim_end_matches('/'));
        url.parse().with_context(|| format!("{url:?} is no URL"))
    }

    fn asking(&self, patience: Duration) -> anyhow::Result<Asking> {
        let patience = self.timeout.unwrap_or(patience);
        let how =
            How { ca_file: self.ca_file.as_deref(), proxy: Proxy::Environment, timeout: Some(patience) };
        let base = outgoing::base(&self.url).context("--url (SPRAG_URL)")?;
        Ok(Asking { client: Outgoing::to(&base, &how)?, token: self.token()?, patience })
    }

    fn token(&self) -> anyhow::Result<Secret> {
        let read = match self.token_sources() {
            (Some(token), _) => Source::Given("--admin-token (SPRAG_ADMIN_TOKEN)").secret(token.as_bytes()),
            (None, Some(file)) => Source::file_or_stdin(file.to_owned()).read(),
            (None, None) => bail!("say who you are: --admin-token-file FILE, or SPRAG_ADMIN_TOKEN"),
        };
        Ok(read?)
    }

    /// Of two variables the token's is taken; `flags` sees to it that what stands on the line wins.
    pub(super) fn token_sources(&self) -> (Option<&str>, Option<&Path>) {
        (self.admin_token.as_deref(), self.admin_token_file.as_deref())
    }
}

impl Listed {
    /// Prints a list, page by page, a line for each item.
    ///
    /// # Errors
    /// As [`Host::call`].
    pub(super) async fn print(
        &self,
        path: &str,
        wanted: &[(&str, &str)],
        line: impl Fn(&Value) -> String,
    ) -> anyhow::Result<ExitCode> {
        let most = self.limit.unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let asking = self.host.asking(TIMEOUT)?;
        let mut url = self.host.address(path)?;
        url.query_pairs_mut().extend_pairs(wanted).append_pair("limit", &PAGE.min(most).to_string());
        let mut shown = 0;
        loop {
            let answer = asking.ask(Method::GET, url.clone(), |r| r).await?;
            let items = answer.body.as_array().context("the answer is no list")?;
            let lines: String = items.iter().take(most - shown).map(&line).collect();
            super::print(&lines)?;
            shown += items.len().min(most - shown);
            // A host behind a path of a proxy's does not know of it: only what follows it is taken.
            let next = next_page(&url, &answer.headers)?.and_then(|next| next.query().map(str::to_owned));
            match next {
                Some(query) if shown < most => {
                    anyhow::ensure!(url.query() != Some(&query), "the next page of {url} is that page");
                    url.set_query(Some(&query));
                }
                _ => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn host(&self) -> &Host {
        &self.host
    }
}

/// Who asks, and how.
struct Asking {
    client: Outgoing,
    token: Secret,
    patience: Duration,
}

impl Asking {
    async fn ask(
        &self,
        method: Method,
        url: Url,
        fill: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Answered> {
        let request = self.client.request(method, url.clone()).bearer_auth(self.token.reveal());
        let failed = |error: reqwest::Error| match error.is_timeout() && !error.is_connect() {
            true => {
                anyhow::anyhow!("no answer within {} (--timeout)", humantime::format_duration(self.patience))
            }
            false => anyhow::anyhow!("{}", text::cell(&self.client.why(error))),
        };
        let response = fill(request).send().await.map_err(failed).with_context(|| format!("asking {url}"))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes =
            response.bytes().await.map_err(failed).with_context(|| format!("reading the answer of {url}"))?;
        let body: Value = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(error) if status.is_success() => {
                return Err(error).with_context(|| format!("{url} answered {status} and no JSON"));
            }
            Err(_) => Value::Null,
        };
        if status.is_success() {
            return Ok(Answered { body, headers });
        }
        let detail = body["detail"].as_str().or(body["error"].as_str()).unwrap_or("no detail");
        let code = body["code"].as_str().map(text::cell);
        Err(Refused { status, code, detail: text::cell(detail) }.into())
    }
}
