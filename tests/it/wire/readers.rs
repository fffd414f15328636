//! Clients that ask and do not read are cut off; those that read, however
//! little there is to read, are not.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::events::Stream;
use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost};

/// Long enough for many a check of an idle connection.
const A_WHILE: Duration = Duration::from_secs(10);

async fn hasty() -> (TestDb, TestHost) {
    let http = HttpConfig { idle_ms: 300, header_read_ms: 300, ..HttpConfig::default() };
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    (db, host)
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// HTTP/2 by hand: takes `window` bytes of the answer and no more, but answers
/// every ping. Returns once the host hangs up.
async fn http2_until_closed(host: &TestHost, path: &str, window: u8) {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    let mut socket = TcpStream::connect(host.address()).await.expect("a connection");
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]));
    // GET, http, :path, :authority, authorization; by HPACK's static table.
    let mut fields = b"\x82\x86".to_vec();
    for (name, value) in [(&b"\x04"[..], path), (b"\x01", "x"), (b"\x0f\x08", &format!("Bearer {ADMIN}"))] {
        fields.extend_from_slice(name);
        fields.push(u8::try_from(value.len()).expect("a short value"));
        fields.extend_from_slice(value.as_bytes());
    }
    request.extend(frame(HEADERS, 5, 1, &fields));
    socket.write_all(&request).await.expect("sending");
    let mut answered = false;
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            assert!(answered, "closed before the answer began");
            return;
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        if socket.read_exact(&mut payload).await.is_err() {
            return;
        }
        match (head[3], head[4]) {
            (HEADERS, _) => answered = payload[0] == 0x88,
            (PING, 0) => drop(socket.write_all(&frame(PING, 1, 0, &payload)).await),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_window_that_stays_shut_is_cut_off() {
    let (_db, host) = hasty().await;
    timeout(A_WHILE, http2_until_closed(&host, "/openapi.json", 0)).await.expect("a close in time");
    host.call(Method::GET, "/health", None, None).await.ok();
}

#[tokio::test]
async fn a_stream_that_is_no_longer_read_is_cut_off() {
    let (_db, host) = hasty().await;
    timeout(A_WHILE, http2_until_closed(&host, "/events/stream", 10)).await.expect("a close in time");
    host.call(Method::GET, "/health", None, None).await.ok();
}

/// HTTP/1: hundreds of requests in a row, and not one answer read.
#[tokio::test]
async fn pipelining_without_reading_is_cut_off_and_takes_nobodys_place() {
    let http = HttpConfig { idle_ms: 1_000, header_read_ms: 300, concurrency: 1, ..HttpConfig::default() };
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut socket = socket.connect(host.address().parse().expect("an address")).await.expect("a connection");
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    socket.write_all(&request).await.expect("sending");
    sleep(Duration::from_millis(200)).await;
    let open = async || {
        // A new connection each time, which is the only other one.
        let text =
            crate::support::get(format!("{}/metrics", host.url)).await.expect("an answer").text().await;
        let text = text.expect("text");
        assert!(!text.contains("BUSY"), "a place is held: {text}");
        text.lines().find_map(|line| line.strip_prefix("sprag_http_connections ")?.parse::<u32>().ok())
    };
    assert_eq!(open().await, Some(2));
    let gone = async {
        while open().await != Some(1) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(A_WHILE, gone).await.expect("a close in time");
    drop(socket);
}

#[tokio::test]
async fn a_stream_that_is_read_is_kept_however_silent() {
    let (_db, host) = hasty().await;
    let mut stream = Stream::open(&host, "", None).await;
    sleep(Duration::from_millis(1_500)).await;
    let (id, _) = host.create(json!({ "name": "late" })).await;
    let (_, _, data) = stream.next().await.expect("an event");
    assert_eq!(data["workspace_id"], id);
}

/// Larger than the pieces that answers are sent in.
#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let (_db, host) = hasty().await;
    let card = json!({ "text": "x".repeat(60_000) });
    for name in ["one", "two", "three", "four"] {
        let (id, token) = host.create(json!({ "name": name })).await;
        let body = json!({ "workspace_id": id, "agent_card": card });
        host.agent("/registry/update-card", Some(&token), body).await.ok();
    }
    let answer = host.get("/workspaces").await;
    assert!(answer.header("content-length").parse::<usize>().expect("a length") > 240_000);
    let rows = answer.ok();
    assert_eq!(rows.as_array().expect("a list").iter().filter(|row| row["agent_card"] == card).count(), 4);
}
