//! Notices to operators: one signed `POST` each, as Standard Webhooks has it
//! (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, and in
//! `webhook-signature` a `v1,` and the base64 of an HMAC-SHA256 over
//! `ID.TIMESTAMP.BODY`.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode, Url};
use sha2::Sha256;

use super::NotifyConfig;
use crate::clock;
use crate::outgoing::{How, Outgoing, OutgoingError, Proxy};
use crate::secret::{SecretError, Source};

/// How a secret of Standard Webhooks begins; base64 follows.
const SECRET_PREFIX: &str = "whsec_";

/// Bytes of a secret, as the standard has them.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How long a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where notices go. Shows its secret to nobody.
pub struct Webhook {
    url: Url,
    key: Vec<u8>,
    client: Outgoing,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// What is wrong with `[notify]`.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("notify.url is no http or https URL")]
    Url,
    #[error("notify needs one of secret_file and secret_env")]
    Secret,
    #[error("notify: no secret")]
    NoSecret(#[source] SecretError),
    #[error("notify: the secret is not whsec_ and the base64 of 24 to 64 bytes")]
    BadSecret,
    #[error("notify")]
    Client(#[source] OutgoingError),
}

impl Webhook {
    /// None where no URL is configured.
    ///
    /// # Errors
    /// A URL that is none, a secret that is not there or not of the standard's form.
    pub fn of(config: &NotifyConfig) -> Result<Option<Self>, WebhookError> {
        let Some(url) = &config.url else { return Ok(None) };
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or(WebhookError::Url)?;
        let source = match (&config.secret_file, &config.secret_env) {
            (Some(path), None) => Source::File(path.clone()),
            (None, Some(name)) => Source::Variable(name.clone()),
            _ => return Err(WebhookError::Secret),
        };
        let secret = source.read().map_err(WebhookError::NoSecret)?;
        let key = key_of(secret.reveal()).ok_or(WebhookError::BadSecret)?;
        let how = How {
            ca_file: config.ca_file.as_deref(),
            proxy: Proxy::Configured(config.proxy.as_deref()),
            timeout: Some(TIMEOUT),
        };
        let client = Outgoing::to(&url, &how).map_err(WebhookError::Client)?;
        Ok(Some(Self { url, key, client }))
    }

    /// Sends one notice; the same `id` again is the same notice.
    ///
    /// # Errors
    /// What a person may read about it; 410 means that the receiver wants no more.
    pub async fn send(&self, id: &str, body: &serde_json::Value) -> Result<(), String> {
        let body = body.to_string();
        let seconds = clock::now() / 1_000;
        let request = self
            .client
            .request(Method::POST, self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature(&self.key, id, seconds, &body))
            .body(body);
        match request.send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(StatusCode::GONE) => Err("the receiver wants no more (410)".to_owned()),
            Ok(status) => Err(format!("the receiver answered {status}")),
            Err(e) => Err(self.client.why(e)),
        }
    }
}

fn key_of(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    SECRET_BYTES.contains(&key.len()).then_some(key)
}

/// `v1,` and base64 of the HMAC of `ID.SECONDS.BODY`.
fn signature(key: &[u8], id: &str, seconds: u64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests;
