//! What an answer of the control plane says, and above all what it does not.

use bytes::BytesMut;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::outgoing::Outgoing;
use crate::provision::{BoxStatus, ProviderError};

/// Bytes of an answer.
const MOST: usize = 4 << 20;

/// Bytes of a service's words that we pass on.
const MOST_WORDS: usize = 500;

/// What we read of a problem document.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    accepted: Option<String>,
}

/// Sends, and reads a success as JSON.
pub async fn json<T: DeserializeOwned>(
    client: &Outgoing,
    request: RequestBuilder,
) -> Result<(T, HeaderMap), ProviderError> {
    let response = sent(client, request).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = body(client, response).await?;
    let read = serde_json::from_slice(&bytes);
    read.map(|value| (value, headers)).map_err(|e| unknown(format!("{status} with an unreadable body: {e}")))
}

/// Sends, and wants nothing but a success.
pub async fn done(client: &Outgoing, request: RequestBuilder) -> Result<(), ProviderError> {
    body(client, sent(client, request).await?).await.map(|_| ())
}

/// The status, if it is that of the box that was asked about.
pub fn about(workspace_id: &str, instance_id: &str, status: BoxStatus) -> Result<BoxStatus, ProviderError> {
    match status.workspace_id == workspace_id && status.instance_id == instance_id {
        true => Ok(status),
        false => Err(unknown(format!("an answer about box {:?}", status.instance_id))),
    }
}

async fn sent(client: &Outgoing, request: RequestBuilder) -> Result<Response, ProviderError> {
    let response = request.send().await.map_err(|e| unknown(client.why(e)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = body(client, response).await?;
    Err(refusal(status, &body))
}

/// What an answer that is no success means.
pub fn refusal(status: StatusCode, body: &[u8]) -> ProviderError {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let accepted = problem.accepted.as_deref().and_then(|text| text.parse().ok());
    let stale = problem.code.as_deref() == Some("STALE_FENCE");
    match (status, accepted) {
        (StatusCode::PRECONDITION_FAILED, Some(accepted)) if stale => ProviderError::Stale { accepted },
        (StatusCode::PRECONDITION_FAILED, None) if stale => {
            unknown("412 STALE_FENCE that does not say what was accepted".to_owned())
        }
        _ if is_final(status) => {
            let code = problem.code.unwrap_or_else(|| format!("HTTP_{}", status.as_u16()));
            let detail = problem.detail.unwrap_or_else(|| status.to_string());
            ProviderError::Refused { code: clipped(code), detail: clipped(detail) }
        }
        _ => unknown(clipped(format!("{status} {}", problem.code.unwrap_or_default()).trim().to_owned())),
    }
}

/// Of these a repeat would be answered the same.
fn is_final(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !again.contains(&status)
}

async fn body(client: &Outgoing, mut response: Response) -> Result<BytesMut, ProviderError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unknown(client.why(e)))? {
        if bytes.len() + chunk.len() > MOST {
            return Err(unknown(format!("an answer of more than {MOST} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MOST_WORDS));
    text
}

pub fn unknown(why: String) -> ProviderError {
    ProviderError::Unknown { why }
}
