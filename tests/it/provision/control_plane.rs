//! The client against a server that says what a test wants it to say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::provision::control_plane::{ControlPlane, Secret};
use sprag::provision::{Plugin, ProviderError, Provisioner};
use tokio::net::TcpListener;

use super::{REGISTRY, TOKEN, call, running, spec, stopped};

const BEARER: &str = "a-control-plane-token-that-nobody-may-see";

/// A request as it came in.
#[derive(Debug)]
struct Seen {
    line: String,
    headers: axum::http::HeaderMap,
    body: Value,
}

#[derive(Clone, Default)]
struct Stub {
    /// Status, a Link header, body; the last stays.
    answers: Arc<Mutex<Vec<(u16, String, String)>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn answer(State(stub): State<Stub>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    stub.seen.lock().expect("requests").push(Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    });
    let (status, link, body) = {
        let mut answers = stub.answers.lock().expect("answers");
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    };
    let response = Response::builder().status(status).header("location", "/elsewhere").header("link", link);
    response.body(Body::from(body)).expect("a response")
}

async fn stub(answers: &[(u16, &str, &str)]) -> (Stub, ControlPlane) {
    let stub = Stub::default();
    *stub.answers.lock().expect("answers") = answers
        .iter()
        .map(|(status, link, body)| (*status, (*link).to_owned(), (*body).to_owned()))
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/base", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(stub.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    (stub, ControlPlane::new(&url, Secret::Value(BEARER.to_owned())).expect("a client"))
}

fn status(state: &str) -> String {
    json!({ "workspace_id": "w", "instance_id": "a", "state": state }).to_string()
}

impl Stub {
    fn last(&self) -> Seen {
        self.seen.lock().expect("requests").pop().expect("a request")
    }
}

#[tokio::test]
async fn every_call_is_on_the_wire_as_described() {
    let (stub, plane) = stub(&[(200, "", &status("running"))]).await;
    assert_eq!(plane.start(&call("w", "3.4", "k\"1"), "a", &spec()).await, Ok(running("w", "a")));
    let seen = stub.last();
    assert_eq!(seen.line, "PUT /base/v1/workspaces/w/boxes/a");
    assert_eq!(seen.headers["idempotency-key"], "\"k\\\"1\"");
    assert_eq!(seen.headers["sprag-fence"], "3.4");
    assert_eq!(seen.headers["authorization"], format!("Bearer {BEARER}"));
    let expected = json!({
        "kind": "workspace", "runtime": "claude-code", "tier": "small", "labels": { "team": "blue" },
        "persistent_volume": false, "registry_id": REGISTRY, "registry_url": "http://127.0.0.1:9",
        "token": TOKEN,
    });
    assert_eq!(seen.body, expected);

    assert_eq!(plane.status("w", "a").await, Ok(running("w", "a")));
    let seen = stub.last();
    assert_eq!(seen.line, "GET /base/v1/workspaces/w/boxes/a");
    assert!(seen.headers.get("sprag-fence").is_none());

    let plugins = [Plugin { name: "p".to_owned(), version: Some("1".to_owned()) }];
    assert_eq!(plane.deliver(&call("w", "3.5", "k2"), "a", &plugins).await, Ok(()));
    let seen = stub.last();
    assert_eq!(seen.line, "PUT /base/v1/workspaces/w/boxes/a/plugins");
    assert_eq!(seen.body, json!({ "plugins": [{ "name": "p", "version": "1" }] }));
    assert_eq!(seen.headers["sprag-fence"], "3.5");

    stub.answers.lock().expect("answers")[0].2 = status("stopped");
    assert_eq!(plane.stop(&call("w", "3.6", "k3"), "a").await, Ok(stopped("w", "a")));
    let seen = stub.last();
    assert_eq!((seen.line.as_str(), seen.body), ("DELETE /base/v1/workspaces/w/boxes/a", Value::Null));

    stub.answers.lock().expect("answers")[0].2 = format!("[{}]", status("running"));
    assert_eq!(plane.fence(&call("w", "3.7", "k4")).await, Ok(vec![running("w", "a")]));
    let seen = stub.last();
    assert_eq!(seen.line, "POST /base/v1/workspaces/w/fence");
    assert_eq!(seen.headers["idempotency-key"], "\"k4\"");
}

#[tokio::test]
async fn pages_are_followed_here_and_nowhere_else() {
    let page = format!("[{}]", status("running"));
    let next = "</base/v1/boxes?cursor=2>; rel=\"next\"";
    let (stub, plane) = stub(&[(200, next, &page), (200, "", &page)]).await;
    assert_eq!(plane.list().await.expect("a list").len(), 2);
    assert_eq!(stub.last().line, "GET /base/v1/boxes?cursor=2");
    stub.answers.lock().expect("answers")[0].1 = "<http://127.0.0.1:9/>; rel=\"next\"".to_owned();
    assert!(matches!(plane.list().await, Err(ProviderError::Unknown { .. })));
}

#[rstest]
#[case::another_box(200, r#"{"workspace_id":"w","instance_id":"b","state":"running"}"#)]
#[case::another_workspace(200, r#"{"workspace_id":"v","instance_id":"a","state":"running"}"#)]
#[case::no_state(200, r#"{"workspace_id":"w","instance_id":"a"}"#)]
#[case::no_json(200, "<html>")]
#[case::nothing(204, "")]
#[case::a_redirect(307, "")]
#[case::an_error(500, "{}")]
#[case::too_many(429, "{}")]
#[tokio::test]
async fn what_says_nothing_is_unknown(#[case] status: u16, #[case] body: &str) {
    let (stub, plane) = stub(&[(status, "", body)]).await;
    for result in [
        plane.start(&call("w", "1.1", "k"), "a", &spec()).await,
        plane.stop(&call("w", "1.1", "k"), "a").await,
        plane.status("w", "a").await,
    ] {
        assert!(matches!(result, Err(ProviderError::Unknown { .. })), "{result:?}");
    }
    assert_eq!(stub.seen.lock().expect("requests").len(), 3, "a redirect was followed");
}

#[tokio::test]
async fn a_stop_that_left_the_box_running_is_no_stop() {
    let (_, plane) = stub(&[(200, "", &status("running"))]).await;
    let result = plane.stop(&call("w", "1.1", "k"), "a").await;
    assert!(matches!(result, Err(ProviderError::Unknown { .. })), "{result:?}");
}

#[tokio::test]
async fn refusals_and_stale_fences_are_final() {
    let stale = r#"{"code":"STALE_FENCE","accepted":"7.1","detail":"late"}"#;
    let (_, plane) = stub(&[(412, "", stale), (409, "", r#"{"code":"NO_ROOM","detail":"full"}"#)]).await;
    assert_eq!(plane.start(&call("w", "1.1", "k"), "a", &spec()).await, super::stale("7.1"));
    let result = plane.start(&call("w", "1.1", "k"), "a", &spec()).await;
    assert_eq!(result, Err(ProviderError::Refused { code: "NO_ROOM".to_owned(), detail: "full".to_owned() }));
}

/// Nobody there, somebody who hangs up, and an endless answer.
#[tokio::test]
async fn hanging_up_is_unknown_and_shows_no_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a caller");
        drop((stream, listener));
    });
    let plane = ControlPlane::new(&url, Secret::Value(BEARER.to_owned())).expect("a client");
    for _ in 0..2 {
        let result = plane.start(&call("w", "1.1", "k"), "a", &spec()).await;
        let Err(ProviderError::Unknown { why }) = result else { panic!("{result:?}") };
        assert!(!why.contains(BEARER) && !why.contains(TOKEN), "{why}");
    }
    let flood = format!("[{}", " ".repeat(5 << 20));
    let (_, plane) = stub(&[(200, "", &flood)]).await;
    let result = plane.list().await;
    assert!(matches!(&result, Err(ProviderError::Unknown { why }) if why.contains("bytes")), "{result:?}");
}

#[tokio::test]
async fn a_token_may_be_replaced_in_its_file() {
    let (stub, _) = stub(&[(200, "", "[]")]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "first\n").expect("writing");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(stub.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    let plane = ControlPlane::new(&url, Secret::File(file.path().to_owned())).expect("a client");
    plane.list().await.expect("a list");
    assert_eq!(stub.last().headers["authorization"], "Bearer first");
    std::fs::write(file.path(), "second\n").expect("writing");
    plane.list().await.expect("a list");
    assert_eq!(stub.last().headers["authorization"], "Bearer second");
    std::fs::remove_file(file.path()).expect("removing");
    let result = tokio::time::timeout(Duration::from_secs(5), plane.list()).await.expect("in time");
    assert!(matches!(result, Err(ProviderError::Unknown { .. })), "{result:?}");
}
