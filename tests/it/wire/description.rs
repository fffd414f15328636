//! What everybody may ask, and that the description and the router agree.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, TestHost};

/// What the host answers: a route more or less is a change of the wire.
const ROUTES: &[(&str, &str)] = &[
    ("post", "/registry/register"),
    ("post", "/registry/heartbeat"),
    ("post", "/registry/update-card"),
    ("post", "/workspaces"),
    ("get", "/workspaces"),
    ("get", "/workspaces/{id}"),
    ("patch", "/workspaces/{id}"),
    ("delete", "/workspaces/{id}"),
    ("post", "/workspaces/{id}/token"),
    ("post", "/workspaces/{id}/{command}"),
    ("get", "/workspaces/{id}/claims"),
    ("get", "/claims/{id}"),
    ("get", "/workspaces/{id}/plugins"),
    ("put", "/workspaces/{id}/plugins"),
    ("get", "/effects"),
    ("post", "/effects/{id}/retry"),
    ("delete", "/effects/{id}"),
    ("get", "/brake"),
    ("post", "/brake/release"),
    ("get", "/loops"),
    ("get", "/events"),
    ("get", "/events/{workspace}"),
    ("get", "/events/stream"),
    ("get", "/decisions"),
    ("get", "/decisions/{id}"),
    ("get", "/policies"),
    ("post", "/policies/modules"),
    ("get", "/policies/revisions"),
    ("post", "/policies/revisions"),
    ("post", "/policies/revisions/{number}/activate"),
    ("post", "/policies/rollback"),
    ("get", "/brake"),
    ("post", "/brake/release"),
    ("get", "/loops"),
    ("get", "/health"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
];

#[tokio::test]
async fn every_route_is_described_and_every_described_route_answers() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let document = host.call(Method::GET, "/openapi.json", None, None).await.ok();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            described.insert((method.clone(), path.clone()));
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            answers_as_described(&host, method, path, operation).await;
        }
    }
    let routes: BTreeSet<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(described, routes);
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

/// Asks with the admin token and `{}`: whatever comes back must be described.
async fn answers_as_described(host: &TestHost, method: &str, path: &str, operation: &Value) {
    if path == "/events/stream" {
        return;
    }
    let asked = [("{id}", "x"), ("{workspace}", "x"), ("{number}", "7"), ("{command}", "restart")];
    let asked = asked.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    let verb = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
    for token in [Some(ADMIN), None] {
        let body = (verb != Method::GET).then(|| json!({}));
        let answer = host.call(verb.clone(), &asked, token, body).await;
        let status = answer.status.as_u16().to_string();
        assert_ne!(answer.body["code"], "NO_SUCH_ROUTE", "{method} {path}");
        let described = &operation["responses"][&status];
        assert!(
            described.is_object(),
            "{method} {path} answered {status}, which is not described: {answer:?}"
        );
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        assert!(described["content"][kind].is_object(), "{method} {path} {status} answered {kind}");
    }
}

#[rstest]
#[tokio::test]
async fn everybody_may_ask(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(host.call(Method::GET, path, None, None).await.ok(), json!({ "status": "ok" }), "{path}");
    }
    let (id, token) = host.create(json!({ "name": "one" })).await;
    host.beat(&id, &token).await.ok();
    let metrics = host.call(Method::GET, "/metrics", None, None).await;
    let text = metrics.body.as_str().expect("text");
    for line in [
        "sprag_heartbeats_total 1",
        "sprag_http_requests_total{route=\"/registry/heartbeat\",status=\"200\"} 1",
        "sprag_transitions_total{from=\"provisioning\",to=\"online\",cause=\"heartbeat\"} 1",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(!text.contains(&id) && !text.contains("sprag_sprag"), "{text}");
}
