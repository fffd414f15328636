//! A service that owns the boxes, over HTTP. Its wire is `docs/control-plane.yaml`,
//! which says what the service must do; here is what we make of its answers.
//!
//! Only an answer that can be read and is about the box that was asked for says
//! that something was done, and only a refusal says that nothing was. All else
//! is [`ProviderError::Unknown`].

mod answer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::Serialize;
use serde_json::json;

use super::{Answer, BoxSpec, BoxStatus, Call, ListedBox, Plugin, ProviderError, Provisioner};
use crate::errors;
use crate::outgoing::{self, How, Outgoing, OutgoingError, Proxy, next_page};
use crate::secret::{SecretError, Source};
use answer::unknown;

/// Boxes that we ask for by page, and pages that we follow.
const PAGE: &str = "500";
const MOST_PAGES: usize = 1_000;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const FENCE: &str = "sprag-fence";

/// Where the bearer token comes from.
#[derive(Clone)]
pub enum Secret {
    /// Read at every call, so that it can be replaced while we run.
    File(PathBuf),
    Value(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
            Secret::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// The provider.
#[derive(Debug)]
pub struct ControlPlane {
    client: Outgoing,
    base: Url,
    token: Secret,
}

impl ControlPlane {
    /// `base`: what stands before `/v1/…`. The system's certificates, and no proxy.
    ///
    /// # Errors
    /// A base that is no `http` or `https` URL.
    pub fn new(base: &str, token: Secret) -> Result<Self, OutgoingError> {
        Self::with(base, token, &How { ca_file: None, proxy: Proxy::Configured(None), timeout: None })
    }

    /// [`ControlPlane::new`], with certificates and a proxy of its own.
    ///
    /// # Errors
    /// A base, a CA file or a proxy that is none.
    pub fn with(base: &str, token: Secret, how: &How<'_>) -> Result<Self, OutgoingError> {
        let base = outgoing::base(base)?;
        let client = Outgoing::to(&base, how)?;
        Ok(Self { client, base, token })
    }

    fn url(&self, path: &[&str]) -> Result<Url, ProviderError> {
        let mut url = self.base.clone();
        // These two are not names but directions, and vanish from a path.
        let lost = path.iter().find(|part| matches!(**part, "" | "." | ".."));
        match (lost, url.path_segments_mut()) {
            (None, Ok(mut segments)) => {
                segments.pop_if_empty().push("v1").extend(path);
            }
            (lost, _) => {
                let detail = format!("{:?} can't be in a URL's path", lost.unwrap_or(&""));
                return Err(ProviderError::Refused { code: "bad_name".to_owned(), detail });
            }
        }
        Ok(url)
    }

    async fn bearer(&self) -> Result<HeaderValue, ProviderError> {
        let read = match &self.token {
            Secret::Value(token) => Source::Given("the token").secret(token.as_bytes()),
            Secret::File(path) => {
                let source = Source::File(path.clone());
                let read = tokio::task::spawn_blocking(move || source.read()).await;
                read.map_err(|e| unknown(e.to_string()))?
            }
        };
        let no_token = |e: SecretError| unknown(errors::chain(&e));
        let token = read.map_err(no_token)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| unknown("the token can't be in a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, ProviderError> {
        Ok(self.client.request(method, url).header(AUTHORIZATION, self.bearer().await?))
    }

    /// A request that changes something.
    async fn change(
        &self,
        method: Method,
        path: &[&str],
        call: &Call,
    ) -> Result<RequestBuilder, ProviderError> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, quoted(&call.key)?);
        let fence = HeaderValue::from_str(&call.fence.to_string());
        headers.insert(FENCE, fence.map_err(|e| unknown(e.to_string()))?);
        Ok(self.request(method, self.url(path)?).await?.headers(headers))
    }

    async fn started(&self, call: &Call, id: &str, spec: &BoxSpec) -> Result<BoxStatus, ProviderError> {
        let path = ["workspaces", &call.workspace_id, "boxes", id];
        let request = self.change(Method::PUT, &path, call).await?.json(&SpecBody::of(spec));
        answer::about(&call.workspace_id, id, answer::json(&self.client, request).await?.0)
    }

    async fn stopped(&self, call: &Call, id: &str) -> Result<BoxStatus, ProviderError> {
        let path = ["workspaces", &call.workspace_id, "boxes", id];
        let request = self.change(Method::DELETE, &path, call).await?;
        let status = answer::about(&call.workspace_id, id, answer::json(&self.client, request).await?.0)?;
        match status.state {
            super::BoxState::Stopped => Ok(status),
            super::BoxState::Running => Err(unknown("a stop was answered and the box runs".to_owned())),
        }
    }

    async fn fenced(&self, call: &Call) -> Result<Vec<BoxStatus>, ProviderError> {
        let path = ["workspaces", &call.workspace_id, "fence"];
        let request = self.change(Method::POST, &path, call).await?;
        let boxes: Vec<BoxStatus> = answer::json(&self.client, request).await?.0;
        if boxes.iter().any(|one| one.workspace_id != call.workspace_id) {
            return Err(unknown("a fence was answered with another workspace's boxes".to_owned()));
        }
        Ok(boxes)
    }

    async fn delivered(&self, call: &Call, id: &str, plugins: &[Plugin]) -> Result<(), ProviderError> {
        let path = ["workspaces", &call.workspace_id, "boxes", id, "plugins"];
        let request = self.change(Method::PUT, &path, call).await?.json(&json!({ "plugins": plugins }));
        answer::done(&self.client, request).await
    }

    async fn asked(&self, workspace_id: &str, id: &str) -> Result<BoxStatus, ProviderError> {
        let url = self.url(&["workspaces", workspace_id, "boxes", id])?;
        let request = self.request(Method::GET, url).await?;
        answer::about(workspace_id, id, answer::json(&self.client, request).await?.0)
    }

    async fn all(&self) -> Result<Vec<ListedBox>, ProviderError> {
        let mut url = self.url(&["boxes"])?;
        url.query_pairs_mut().append_pair("limit", PAGE);
        let mut all = Vec::new();
        for _ in 0..MOST_PAGES {
            let request = self.request(Method::GET, url.clone()).await?;
            let (mut page, headers): (Vec<ListedBox>, _) = answer::json(&self.client, request).await?;
            all.append(&mut page);
            match next_page(&url, &headers).map_err(|e| unknown(e.to_string()))? {
                Some(next) => url = next,
                None => return Ok(all),
            }
        }
        Err(unknown(format!("more than {MOST_PAGES} pages of boxes")))
    }
}

impl Provisioner for ControlPlane {
    fn start<'a>(&'a self, call: &'a Call, instance_id: &'a str, spec: &'a BoxSpec) -> Answer<'a, BoxStatus> {
        Box::pin(self.started(call, instance_id, spec))
    }

    fn stop<'a>(&'a self, call: &'a Call, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(self.stopped(call, instance_id))
    }

    fn fence<'a>(&'a self, call: &'a Call) -> Answer<'a, Vec<BoxStatus>> {
        Box::pin(self.fenced(call))
    }

    fn deliver<'a>(&'a self, call: &'a Call, instance_id: &'a str, plugins: &'a [Plugin]) -> Answer<'a, ()> {
        Box::pin(self.delivered(call, instance_id, plugins))
    }

    fn status<'a>(&'a self, workspace_id: &'a str, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(self.asked(workspace_id, instance_id))
    }

    fn list(&self) -> Answer<'_, Vec<ListedBox>> {
        Box::pin(self.all())
    }
}

/// A [`BoxSpec`] on the wire: the one place where its token is written out.
#[derive(Serialize)]
struct SpecBody<'a> {
    kind: &'a str,
    runtime: &'a str,
    tier: Option<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
    persistent_volume: bool,
    registry_id: &'a str,
    registry_url: &'a str,
    token: &'a str,
}

impl<'a> SpecBody<'a> {
    fn of(spec: &'a BoxSpec) -> Self {
        Self {
            kind: &spec.kind,
            runtime: &spec.runtime,
            tier: spec.tier.as_deref(),
            labels: &spec.labels,
            persistent_volume: spec.persistent_volume,
            registry_id: &spec.registry_id,
            registry_url: &spec.registry_url,
            token: &spec.token.0,
        }
    }
}

/// A key as a string of RFC 9651, section 4.1.6.
fn quoted(key: &str) -> Result<HeaderValue, ProviderError> {
    super::check_key(key)?;
    let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_str(&format!("\"{escaped}\"")).map_err(|e| unknown(e.to_string()))
}
