//! Slow and oversized clients are cut off, and the others do not notice.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost, healthy};

async fn host(http: HttpConfig) -> (TestDb, TestHost) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    (db, host)
}

/// Sends `text` and reads until the host closes, which it must do within 10 s.
async fn raw(host: &TestHost, text: &[u8]) -> String {
    let mut socket = TcpStream::connect(host.address()).await.expect("a connection");
    socket.write_all(text).await.expect("sending");
    let mut answer = Vec::new();
    // A reset says the same as an end.
    let _ = timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await.expect("a close in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_slow_client_is_cut_off_while_others_are_served() {
    let http = HttpConfig { header_read_ms: 300, body_read_ms: 300, idle_ms: 300, ..HttpConfig::default() };
    let (_db, host) = host(http).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let begun = Instant::now();
    let others = async {
        let mut served = 0;
        while begun.elapsed() < Duration::from_millis(800) {
            host.beat(&id, &token).await.ok();
            served += 1;
        }
        assert!(served > 5, "{served} heartbeats while others are slow");
    };
    let body = "POST /registry/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ncontent-length: 99\r\n\r\n{";
    let (nothing, preface, head, body, ()) = tokio::join!(
        raw(&host, b""),
        raw(&host, b"PRI * HTTP/2.0"),
        raw(&host, b"POST /registry/heartbeat HTTP/1.1\r\nhost: x\r\nx-slow: "),
        raw(&host, body.as_bytes()),
        others,
    );
    assert_eq!((nothing.as_str(), preface.as_str(), head.as_str()), ("", "", ""));
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(body.contains("BODY_TOO_SLOW") && body.contains("connection: close"), "{body}");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_db, host) = host(HttpConfig { idle_ms: 200, header_read_ms: 200, ..HttpConfig::default() }).await;
    let answer = raw(&host, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Half a second head does not keep it either.
    let answer = raw(&host, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\nx: ").await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let http = HttpConfig { body_bytes: 500, agent_body_bytes: 1_000, ..HttpConfig::default() };
    let (_db, host) = host(http).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    let mut body = healthy(&id);
    body["sample_error"] = json!("x".repeat(1_000));
    let answer = host.agent("/registry/heartbeat", Some(&token), body.clone()).await;
    assert_eq!(answer.problem(), (413, "BODY_TOO_LARGE"));
    // Without a length it is counted as it comes.
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(body.to_string())]);
    let request = host.client.post(format!("{}/registry/heartbeat", host.url)).bearer_auth(&token);
    let sent = request.body(reqwest::Body::wrap_stream(chunks)).send().await.expect("an answer");
    assert_eq!(sent.status(), 413);
    host.beat(&id, &token).await.ok();
}

#[tokio::test]
async fn a_module_may_be_larger_than_a_body() {
    let http = HttpConfig { body_bytes: 1_000, module_bytes: 5_000, ..HttpConfig::default() };
    let (_db, host) = host(http).await;
    let upload = async |bytes: usize| {
        let request = host.client.post(format!("{}/policies/modules", host.url));
        let sent = request.bearer_auth(crate::support::host::ADMIN).body(vec![0; bytes]).send().await;
        sent.expect("an answer").status().as_u16()
    };
    assert_eq!(upload(4_000).await, 422);
    assert_eq!(upload(6_000).await, 413);
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let (_db, host) = host(HttpConfig { header_bytes: 8_192, headers: 10, ..HttpConfig::default() }).await;
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(20_000));
    assert!(raw(&host, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..20).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert!(
        raw(&host, format!("GET /health HTTP/1.1\r\n{many}\r\n").as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    host.call(Method::GET, "/health", None, None).await.ok();
}

#[tokio::test]
async fn no_room_is_an_answer() {
    let (_db, host) = host(HttpConfig { concurrency: 0, ..HttpConfig::default() }).await;
    let answer = host.call(Method::GET, "/health", None, None).await;
    assert_eq!(answer.problem(), (503, "BUSY"));
    assert_eq!(answer.header("retry-after"), "1");
}

/// Whoever sends a head and no body has no place among the requests in the works.
#[tokio::test]
async fn a_body_that_does_not_come_takes_nobodys_place() {
    let (_db, host) = host(HttpConfig { concurrency: 1, bodies: 2, ..HttpConfig::default() }).await;
    let head = b"POST /registry/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\ncontent-length: 9\r\n\r\n";
    let mut silent = TcpStream::connect(host.address()).await.expect("a connection");
    silent.write_all(head).await.expect("sending");
    tokio::time::sleep(Duration::from_millis(100)).await;
    host.call(Method::GET, "/health", None, None).await.ok();
    let (id, token) = host.create(json!({ "name": "one" })).await;
    host.beat(&id, &token).await.ok();

    let mut second = TcpStream::connect(host.address()).await.expect("a connection");
    second.write_all(head).await.expect("sending");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (body, mut bytes) = (b"{\"a\": 12}", Vec::new());
    let mut third = TcpStream::connect(host.address()).await.expect("a connection");
    third.write_all(head).await.expect("sending");
    let mut refused = String::new();
    while !refused.contains("\"BUSY\"") {
        let read = third.read_buf(&mut bytes).await.expect("an answer");
        assert!(read > 0, "no BUSY: {refused}");
        refused = String::from_utf8_lossy(&bytes).into_owned();
    }
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    host.call(Method::GET, "/health", None, None).await.ok();
    // One that came whole waits for no body; and what was begun can still be ended.
    let mut whole = TcpStream::connect(host.address()).await.expect("a connection");
    whole.write_all(&[head.as_slice(), body].concat()).await.expect("sending");
    assert_eq!(status(&mut whole).await, *b"400");
    silent.write_all(body).await.expect("sending");
    assert_eq!(status(&mut silent).await, *b"400");
}

/// The three digits of the answer that comes.
async fn status(socket: &mut TcpStream) -> [u8; 3] {
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.expect("an answer");
    [answer[9], answer[10], answer[11]]
}

/// One connection at most: the second waits until the first is gone.
#[tokio::test]
async fn connections_are_bounded() {
    let http = HttpConfig { connections: 1, header_read_ms: 500, ..HttpConfig::default() };
    let (_db, host) = host(http).await;
    let silent = TcpStream::connect(host.address()).await.expect("a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    host.call(Method::GET, "/health", None, None).await.ok();
    assert!(begun.elapsed() > Duration::from_millis(300), "it waited for {:?}", begun.elapsed());
    drop(silent);
}

/// By hand: preface, empty SETTINGS, and `GET /health` from HPACK's static table.
#[tokio::test]
async fn http2_is_spoken_too() {
    let (_db, host) = host(HttpConfig::default()).await;
    let mut socket = TcpStream::connect(host.address()).await.expect("a connection");
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let fields = b"\x82\x86\x04\x07/health\x01\x01x";
    let length = u8::try_from(fields.len()).expect("short");
    request.extend_from_slice(&[0, 0, length, 1, 5, 0, 0, 0, 1]);
    request.extend_from_slice(fields);
    socket.write_all(&request).await.expect("sending");
    loop {
        let mut head = [0; 9];
        timeout(Duration::from_secs(10), socket.read_exact(&mut head))
            .await
            .expect("in time")
            .expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        socket.read_exact(&mut payload).await.expect("its payload");
        const HEADERS: u8 = 1;
        if head[3] == HEADERS {
            assert_eq!(payload[0], 0x88, "`:status: 200` of the static table");
            break;
        }
    }
}

#[tokio::test]
async fn what_is_not_there() {
    let (_db, host) = host(HttpConfig::default()).await;
    let problem = host.call(Method::GET, "/nowhere", None, None).await;
    assert_eq!(problem.problem(), (404, "NO_SUCH_ROUTE"));
    // What the field's agents ask of another service, beside a route that takes any word there.
    for path in
        ["/workspaces/x/secrets", "/workspaces/x/state", "/registry/discover/x", "/workspaces/x/", "/"]
    {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let problem = host.call(method.clone(), path, None, None).await;
            assert_eq!(problem.problem(), (404, "NO_SUCH_ROUTE"), "{method} {path}");
        }
    }
    for path in ["/workspaces/x/a2a", "/workspaces/x/notify", "/workspaces/x/delegations/record"] {
        for token in [None, Some("an-agents"), Some(ADMIN)] {
            let problem = host.call(Method::POST, path, token, Some(json!({ "message": 1 }))).await;
            assert_eq!(problem.problem(), (404, "NO_SUCH_ROUTE"), "POST {path}");
        }
    }
    for path in ["/workspaces/x/restart", "/workspaces/x/switch-provider"] {
        let problem = host.call(Method::GET, path, None, None).await;
        assert_eq!((problem.problem(), problem.header("allow")), ((405, "METHOD_NOT_ALLOWED"), "POST"));
    }
    let problem = host.call(Method::PUT, "/registry/heartbeat", None, None).await;
    assert_eq!(problem.problem(), (405, "METHOD_NOT_ALLOWED"));
    assert_eq!(problem.header("allow"), "POST");
}
