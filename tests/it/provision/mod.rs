//! Providers: one suite for all of them, and what is particular to each.

mod agent;
mod config;
mod conformance;
mod control_plane;
pub mod escapes;
pub mod outside;
mod process;
mod token;

use std::collections::BTreeMap;
use std::time::Duration;

use sprag::provision::{BoxSpec, BoxState, BoxStatus, BoxToken, Call, ListedBox, ProviderError};

/// What every box of these tests is started with.
pub const TOKEN: &str = "a-box-token-that-nobody-may-see";

/// Whose boxes they are.
pub const REGISTRY: &str = "5b1c7a52-0000-4000-8000-000000000001";

/// A call about `workspace`, under a fence as it is written.
pub fn call(workspace: &str, fence: &str, key: &str) -> Call {
    Call { workspace_id: workspace.to_owned(), fence: fence.parse().expect("a fence"), key: key.to_owned() }
}

pub fn spec() -> BoxSpec {
    BoxSpec {
        kind: "workspace".to_owned(),
        runtime: "claude-code".to_owned(),
        tier: Some("small".to_owned()),
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        persistent_volume: false,
        registry_id: REGISTRY.to_owned(),
        registry_url: "http://127.0.0.1:9".to_owned(),
        token: BoxToken(TOKEN.to_owned()),
    }
}

pub fn running(workspace: &str, instance: &str) -> BoxStatus {
    status(workspace, instance, BoxState::Running)
}

/// A running box as its provider lists it.
pub fn listed(workspace: &str, instance: &str) -> ListedBox {
    ListedBox {
        workspace_id: workspace.to_owned(),
        instance_id: instance.to_owned(),
        state: BoxState::Running,
        registry_id: Some(REGISTRY.to_owned()),
    }
}

pub fn stopped(workspace: &str, instance: &str) -> BoxStatus {
    status(workspace, instance, BoxState::Stopped)
}

fn status(workspace: &str, instance: &str, state: BoxState) -> BoxStatus {
    BoxStatus { workspace_id: workspace.to_owned(), instance_id: instance.to_owned(), state }
}

pub fn stale<T>(accepted: &str) -> Result<T, ProviderError> {
    Err(ProviderError::Stale { accepted: accepted.parse().expect("a fence") })
}

/// The code of a refusal; anything else is a failure of the test.
pub fn refused<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> String {
    match result {
        Err(ProviderError::Refused { code, .. }) => code.to_lowercase(),
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits for something that is to come soon.
pub async fn soon<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s: {what}");
}
