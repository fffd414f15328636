//! The log by pages, and the stream.

use std::time::Duration;

use futures::StreamExt;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::time::timeout;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost};

#[rstest]
#[tokio::test]
async fn newest_first_by_pages(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let (other, _) = host.create(json!({ "name": "two" })).await;
    host.beat(&id, &token).await.ok();
    let page = host.get("/events?limit=2").await;
    let next = page.header("link").split(['<', '>']).nth(1).expect("a next page").to_owned();
    let first = page.ok();
    assert_eq!((&first[0]["type"], &first[0]["from"]), (&json!("WORKSPACE_ONLINE"), &json!("provisioning")));
    assert!(first[0]["decision_id"].is_string() && first[0]["reason"]["code"].is_string());
    assert_eq!(first[1]["workspace_id"], other);
    let page = host.get(&next).await;
    assert_eq!(page.header("link"), "");
    let second = page.ok();
    assert_eq!((second.as_array().unwrap().len(), &second[0]["workspace_id"]), (1, &json!(id)));
    assert_eq!((&second[0]["cause"], &second[0]["version"]), (&json!("created"), &json!(1)));

    assert_eq!(host.get(&format!("/events/{id}")).await.ok().as_array().unwrap().len(), 2);
    assert_eq!(host.get("/events/nobody").await.problem(), (404, "WORKSPACE_NOT_FOUND"));
    let refused = host.get("/events?before=yesterday").await;
    assert_eq!((refused.problem(), &refused.body["field"]), ((400, "BAD_CURSOR"), &json!("before")));
}

/// A client of the stream.
pub(super) struct Stream {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Stream {
    pub(super) async fn open(host: &TestHost, query: &str, last: Option<&str>) -> Self {
        let mut request = host.client.get(format!("{}/events/stream{query}", host.url)).bearer_auth(ADMIN);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event: its id, its type and its data. None: the stream ended.
    pub(super) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = block.lines().find_map(|l| l.strip_prefix(name));
                    line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
                };
                if field("data").is_empty() {
                    continue;
                }
                let data = serde_json::from_str(&field("data")).expect("JSON");
                return Some((field("id"), field("event"), data));
            }
            let chunk =
                timeout(Duration::from_secs(20), self.bytes.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.expect("bytes")).expect("text"));
        }
    }
}

#[rstest]
#[tokio::test]
async fn the_stream_resumes(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": "before the stream" })).await;
    let mut stream = Stream::open(&host, "", None).await;
    host.beat(&id, &token).await.ok();
    let (mut first, mut kind, mut data) = stream.next().await.expect("an event");
    // What was there before the stream is not sent; what came after it is. Postgres
    // may be late in showing the one, and then it comes before the other.
    if backend == Backend::Postgres && kind == "WORKSPACE_PROVISIONING" {
        (first, kind, data) = stream.next().await.expect("an event");
    }
    assert_eq!(
        (kind.as_str(), &data["id"], &data["workspace_id"]),
        ("WORKSPACE_ONLINE", &json!(first), &json!(id))
    );
    drop(stream);

    let (missed, _) = host.create(json!({ "name": "while away" })).await;
    let mut stream = Stream::open(&host, "", Some(&first)).await;
    let (_, kind, data) = stream.next().await.expect("an event");
    assert_eq!((kind.as_str(), &data["workspace_id"]), ("WORKSPACE_PROVISIONING", &json!(missed)));
    let card = json!({ "workspace_id": id, "agent_card": {} });
    host.agent("/registry/update-card", Some(&token), card).await.ok();
    assert_eq!(stream.next().await.expect("an event").1, "AGENT_CARD_UPDATED");

    let wrong = host.client.get(format!("{}/events/stream", host.url)).bearer_auth(ADMIN);
    let wrong = wrong.header("last-event-id", "yesterday").send().await.unwrap();
    assert_eq!(wrong.status(), 400);
}

#[rstest]
#[tokio::test]
async fn the_stream_of_one_workspace_sees_other_hosts(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let (host, other) = (TestHost::plain(&db).await, TestHost::plain(&db).await);
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut stream = Stream::open(&host, &format!("?workspace={id}"), None).await;
    other.create(json!({ "name": "two" })).await;
    other.beat(&id, &token).await.ok();
    let (_, mut kind, mut data) = stream.next().await.expect("an event");
    if backend == Backend::Postgres && kind == "WORKSPACE_PROVISIONING" {
        (_, kind, data) = stream.next().await.expect("an event");
    }
    assert_eq!((kind.as_str(), &data["workspace_id"]), ("WORKSPACE_ONLINE", &json!(id)));
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_host() {
    let db = TestDb::new(Backend::Sqlite).await;
    let http = HttpConfig { streams: 1, ..HttpConfig::default() };
    let mut host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    let mut stream = Stream::open(&host, "", None).await;
    let refused = host.get("/events/stream").await;
    assert_eq!(refused.problem(), (503, "BUSY"));
    assert_eq!(refused.header("retry-after"), "1");
    timeout(Duration::from_secs(5), host.stopped()).await.expect("a stream does not hold the host up");
    assert!(stream.next().await.is_none());
}
