//! An answer that comes before the body was read: the next request on the
//! connection is answered, or the answer said that it closes.

use std::time::Duration;

use rstest::rstest;
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost};

/// As often as the fault was seen.
const TIMES: usize = 40;

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn host() -> (TestDb, TestHost) {
    let db = TestDb::new(Backend::Sqlite).await;
    let http = HttpConfig { body_bytes: 10_000, ..HttpConfig::default() };
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    (db, host)
}

/// An HTTP/1 client that keeps its connection.
struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

/// The status of an answer, and whether it says that the connection closes.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    closes: bool,
}

impl Client {
    async fn connect(host: &TestHost) -> Self {
        let socket = TcpStream::connect(host.address()).await.expect("a connection");
        Self { socket, read: Vec::new() }
    }

    /// Sends, unless the host has hung up meanwhile: then what it answered still counts.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next final answer, whole; None if the connection ends before.
    async fn answer(&mut self) -> Option<Seen> {
        timeout(PATIENCE, self.next()).await.expect("an answer, or an end, in time")
    }

    async fn next(&mut self) -> Option<Seen> {
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            let whole = text.split_once("\r\n\r\n").and_then(|(head, rest)| {
                let field = |name: &str| {
                    head.lines()
                        .find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned))
                };
                let length = field("content-length:").map_or(0, |n| n.trim().parse().expect("a length"));
                let closes = field("connection:").is_some_and(|value| value.contains("close"));
                (rest.len() >= length).then(|| (head.len() + 4 + length, head[9..12].to_owned(), closes))
            });
            match whole {
                Some((length, status, closes)) => {
                    self.read.drain(..length);
                    if !status.starts_with('1') {
                        return Some(Seen { status: status.parse().expect("a status"), closes });
                    }
                }
                None => {
                    if self.socket.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
            }
        }
    }
}

fn head(line: &str, token: &str, more: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{more}\r\n").into_bytes()
}

/// A body as it goes over the wire, and the field that announces it.
fn framed(chunked: bool, bytes: usize) -> (String, Vec<u8>) {
    let body = vec![b' '; bytes];
    if !chunked {
        return (format!("content-length: {bytes}\r\n"), body);
    }
    let mut wire = Vec::new();
    for piece in body.chunks(1_000) {
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    ("transfer-encoding: chunked\r\n".to_owned(), wire)
}

#[rstest]
#[case::no_token("POST /workspaces", "nobody", 401)]
#[case::no_route("POST /nowhere", ADMIN, 404)]
#[case::no_method("PUT /workspaces", ADMIN, 405)]
#[case::unknown_parameter("POST /workspaces?bogus=1", ADMIN, 400)]
#[case::an_agent_without("POST /registry/heartbeat", "", 401)]
#[case::a_module_of_nobody("POST /policies/modules", "nobody", 401)]
#[case::ignored_by_a_get("GET /health", ADMIN, 200)]
#[tokio::test]
async fn a_small_rest_keeps_the_connection(
    #[case] line: &str,
    #[case] token: &str,
    #[case] status: u16,
    #[values(false, true)] chunked: bool,
    #[values(2, 9_000)] bytes: usize,
) {
    let (_db, host) = host().await;
    let (field, body) = framed(chunked, bytes);
    let mut client = Client::connect(&host).await;
    for n in 0..TIMES {
        client.send(&head(line, token, &field)).await;
        // Its body comes with the head, or a little later.
        if n % 2 == 1 {
            sleep(Duration::from_millis(2)).await;
        }
        client.send(&body).await;
        let seen = client.answer().await.unwrap_or_else(|| panic!("request {n} was closed in silence"));
        assert_eq!(seen.status, status, "request {n}");
        // A machine may be too busy to send the rest in time: then it is said.
        if seen.closes {
            client = Client::connect(&host).await;
        }
    }
}

/// Whatever is sent: in the end it is said that the connection closes, or it goes on.
#[rstest]
#[case::no_token("POST /workspaces", "nobody", 401)]
#[case::no_route("POST /nowhere", ADMIN, 404)]
#[case::no_method("PUT /workspaces", ADMIN, 405)]
#[case::too_large("POST /workspaces", ADMIN, 413)]
#[tokio::test]
async fn a_large_rest_says_that_it_closes(
    #[case] line: &str,
    #[case] token: &str,
    #[case] status: u16,
    #[values(false, true)] chunked: bool,
) {
    let (_db, host) = host().await;
    let (field, body) = framed(chunked, 1_000_000);
    for n in 0..TIMES / 4 {
        let mut client = Client::connect(&host).await;
        client.send(&head(line, token, &field)).await;
        client.send(&body).await;
        let seen = client.answer().await.unwrap_or_else(|| panic!("request {n} was closed in silence"));
        assert_eq!(seen, Seen { status, closes: true }, "request {n}");
        assert_eq!(client.answer().await, None, "and it does close");
    }
}

/// What is cut off does not lie about until it counts as idle.
#[rstest]
#[case::too_large("content-length: 1000000000\r\n", "abc", 413)]
#[case::too_slow("content-length: 5\r\n", "abc", 408)]
#[case::slow_chunks("transfer-encoding: chunked\r\n", "1\r\n", 408)]
#[case::no_chunk("transfer-encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n", 400)]
#[case::no_chunk_of_this_world("transfer-encoding: chunked\r\n", "fffffffffffffffffff\r\n", 400)]
#[tokio::test]
async fn who_is_cut_off_is_closed(#[case] field: &str, #[case] body: &str, #[case] status: u16) {
    let db = TestDb::new(Backend::Sqlite).await;
    let http = HttpConfig { body_bytes: 10_000, body_read_ms: 200, ..HttpConfig::default() };
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    for line in ["POST /workspaces", "POST /registry/heartbeat"] {
        let mut client = Client::connect(&host).await;
        client.send(&head(line, ADMIN, field)).await;
        client.send(body.as_bytes()).await;
        assert_eq!(client.answer().await, Some(Seen { status, closes: true }), "{line}");
        assert_eq!(client.answer().await, None, "{line}: and it does close");
    }
}

/// Such a client sends its body only when it is told to; one that is refused may
/// send it or not, so there is no going on.
#[rstest]
#[case::refused("POST /workspaces", "nobody", 401, true)]
#[case::no_route("POST /nowhere", ADMIN, 404, true)]
#[case::taken("POST /workspaces", ADMIN, 400, false)]
#[tokio::test]
async fn a_client_that_asks_first(
    #[case] line: &str,
    #[case] token: &str,
    #[case] status: u16,
    #[case] closes: bool,
    #[values(false, true)] chunked: bool,
) {
    let (_db, host) = host().await;
    let (field, body) = framed(chunked, 100);
    for n in 0..TIMES / 4 {
        let mut client = Client::connect(&host).await;
        client.send(&head(line, token, &format!("{field}expect: 100-continue\r\n"))).await;
        if !closes {
            client.send(&body).await;
        }
        let seen = client.answer().await.unwrap_or_else(|| panic!("request {n} was closed in silence"));
        assert_eq!(seen, Seen { status, closes }, "request {n}");
        if !closes {
            client.send(&head("GET /health", ADMIN, "")).await;
            assert_eq!(client.answer().await, Some(Seen { status: 200, closes: false }), "request {n}");
        }
    }
}

/// A rest that does not come holds up the answer for a second or so, not for ever.
#[tokio::test]
async fn a_rest_that_does_not_come_is_not_waited_for() {
    let (_db, host) = host().await;
    let mut client = Client::connect(&host).await;
    client.send(&head("POST /nowhere", ADMIN, "content-length: 5\r\n")).await;
    assert_eq!(client.answer().await, Some(Seen { status: 404, closes: true }));
    // Drop by drop it does not last longer either.
    let mut client = Client::connect(&host).await;
    client.send(&head("POST /nowhere", ADMIN, "transfer-encoding: chunked\r\n")).await;
    let (mut reading, mut writing) = client.socket.into_split();
    let drops = async {
        while writing.write_all(b"1\r\n \r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut text = Vec::new();
    let answered = async {
        while !String::from_utf8_lossy(&text).contains("connection: close") {
            assert!(reading.read_buf(&mut text).await.expect("an answer") > 0, "closed in silence");
        }
    };
    timeout(PATIENCE, async {
        tokio::select! { () = drops => panic!("closed in silence"), () = answered => {} }
    })
    .await
    .expect("an answer in time");
}

/// A client that says that it sends no more still reads: its last requests are answered.
#[rstest]
#[case::one("GET /workspaces", 1)]
#[case::pipelined("GET /workspaces", 5)]
#[tokio::test]
async fn who_hangs_up_halfway_is_answered(#[case] line: &str, #[case] requests: usize) {
    let (_db, host) = host().await;
    for n in 0..TIMES / 4 {
        let mut client = Client::connect(&host).await;
        client.send(&head(line, ADMIN, "").repeat(requests)).await;
        client.socket.shutdown().await.expect("half a hang-up");
        for _ in 0..requests {
            let seen = client.answer().await.unwrap_or_else(|| panic!("{n}: no answer"));
            assert_eq!(seen.status, 200);
        }
        assert_eq!(client.answer().await, None, "and then it is over");
    }
}

/// Half a body and then nothing more is an error at once, not after a time-out.
#[tokio::test]
async fn half_a_body_and_no_more_is_said() {
    let (_db, host) = host().await;
    let mut client = Client::connect(&host).await;
    client.send(&head("POST /workspaces", ADMIN, "content-length: 99\r\n")).await;
    client.send(b"{").await;
    client.socket.shutdown().await.expect("half a hang-up");
    let seen = client.answer().await.expect("an answer");
    assert_eq!(seen.status, 400);
}
