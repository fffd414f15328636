//! A stop answers what is in flight and takes nothing new.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use sprag::advance::Between;
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::db::TestDb;
use crate::support::host::{Setup, TestHost, healthy, read};

/// Holds every step between its judgement and its write until it is let go.
#[derive(Default)]
struct Gate {
    reached: Notify,
    open: Notify,
}

impl Gate {
    /// Waits until a step stands at the gate.
    async fn reached(&self) {
        timeout(Duration::from_secs(20), self.reached.notified()).await.expect("a step at the gate");
    }
}

impl Between for Gate {
    fn judged<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {
            self.reached.notify_one();
            self.open.notified().await;
        })
    }
}

#[rstest]
#[tokio::test]
async fn what_is_in_flight_is_answered(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let gate = Arc::new(Gate::default());
    let setup = Setup { between: Some(gate.clone()), ..Setup::default() };
    let mut host = TestHost::start(&db, setup).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let request = host.client.post(format!("{}/registry/heartbeat", host.url)).bearer_auth(token);
    let beat =
        tokio::spawn(async move { read(request.json(&healthy(&id)).send().await.expect("an answer")).await });
    gate.reached().await;
    host.begin_stop();
    let fresh = crate::support::client();
    while fresh.get(format!("{}/health", host.url)).send().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.open.notify_one();
    assert_eq!(beat.await.expect("the request").ok()["workspace_status"], "online");
    timeout(Duration::from_secs(5), host.stopped()).await.expect("the host ends with its last request");
}

/// What never ends is cut off after `shutdown_ms`.
#[tokio::test]
async fn a_stop_has_an_end() {
    let db = TestDb::new(Backend::Sqlite).await;
    let gate = Arc::new(Gate::default());
    let http = HttpConfig { shutdown_ms: 200, ..HttpConfig::default() };
    let setup = Setup { between: Some(gate.clone()), http, ..Setup::default() };
    let mut host = TestHost::start(&db, setup).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let request = host.client.post(format!("{}/registry/heartbeat", host.url)).bearer_auth(token);
    let beat = tokio::spawn(async move { request.json(&healthy(&id)).send().await });
    gate.reached().await;
    timeout(Duration::from_secs(5), host.stopped()).await.expect("an end");
    assert!(beat.await.expect("the task").is_err(), "cut off, not answered");
}

/// A handler that takes too long is answered for.
#[tokio::test]
async fn a_request_has_an_end() {
    let db = TestDb::new(Backend::Sqlite).await;
    let http = HttpConfig { request_ms: 200, ..HttpConfig::default() };
    let setup = Setup { between: Some(Arc::new(Gate::default())), http, ..Setup::default() };
    let host = TestHost::start(&db, setup).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    assert_eq!(host.beat(&id, &token).await.problem(), (503, "TIMED_OUT"));
}
