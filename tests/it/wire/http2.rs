//! HTTP/2 has the bounds that HTTP/1 has, and clients of it that ask and do not
//! read, or ask and take back, cost little.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::HttpConfig;
use sprag::store::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost};
use crate::support::process::Launch;

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;

const ACK: u8 = 1;
const END: u8 = 1;
const END_HEADERS: u8 = 4;

/// A client that writes its frames itself.
struct Client(TcpStream);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    /// Takes `window` bytes of each answer.
    async fn connect(address: &str, window: u32) -> Self {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let mut this = Self(socket);
        this.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sending");
        const INITIAL_WINDOW: [u8; 2] = [0, 4];
        this.send(SETTINGS, 0, 0, &[&INITIAL_WINDOW[..], &window.to_be_bytes()].concat()).await;
        this
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // The host may have hung up: then what it said still counts.
        let _ = self.0.write_all(&frame(kind, flags, stream, payload)).await;
    }

    /// A `GET`, by HPACK's static table.
    async fn get(&mut self, stream: u32, path: &str, more: &[(String, String)]) {
        self.send(HEADERS, END | END_HEADERS, stream, &get(path, more)).await;
    }

    /// The next frame but those of the connection's upkeep; None at its end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match (frame.kind, frame.flags & ACK) {
                (PING, 0) => self.send(PING, ACK, 0, &frame.payload).await,
                (SETTINGS, 0) => self.send(SETTINGS, ACK, 0, &[]).await,
                (HEADERS | DATA | GO_AWAY | RESET, _) => return Some(frame),
                _ => {}
            }
        }
    }

    /// Whether the answer is a 200, and its body.
    async fn answer(&mut self, stream: u32) -> (bool, String) {
        let read = async {
            let (mut fine, mut body) = (false, Vec::new());
            loop {
                let frame = self.next().await.expect("an answer");
                assert!(![GO_AWAY, RESET].contains(&frame.kind), "cut off");
                if frame.stream != stream {
                    continue;
                }
                match frame.kind {
                    HEADERS => fine = is_200(&frame),
                    _ => body.extend(frame.payload),
                }
                if frame.flags & END != 0 {
                    return (fine, String::from_utf8(body).expect("text"));
                }
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }
}

/// `:status: 200` of the static table.
fn is_200(headers: &Frame) -> bool {
    headers.payload[0] == 0x88
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn get(path: &str, more: &[(String, String)]) -> Vec<u8> {
    let mut fields = b"\x82\x86".to_vec();
    let text = |fields: &mut Vec<u8>, text: &str| {
        fields.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
        fields.extend_from_slice(text.as_bytes());
    };
    for (name, value) in [(&b"\x04"[..], path), (b"\x01", "x"), (b"\x0f\x08", &format!("Bearer {ADMIN}"))] {
        fields.extend_from_slice(name);
        text(&mut fields, value);
    }
    for (name, value) in more {
        fields.push(0);
        text(&mut fields, name);
        text(&mut fields, value);
    }
    fields
}

async fn host(http: HttpConfig) -> (TestDb, TestHost) {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::start(&db, Setup { http, ..Setup::default() }).await;
    (db, host)
}

fn fields(number: usize, length: usize) -> Vec<(String, String)> {
    (0..number).map(|n| (format!("x-{n}"), "v".repeat(length))).collect()
}

/// `http.headers` and `http.header_bytes`, as on HTTP/1.
#[tokio::test]
async fn a_head_has_the_same_bounds() {
    let (_db, host) = host(HttpConfig { header_bytes: 8_192, headers: 64, ..HttpConfig::default() }).await;
    let mut client = Client::connect(host.address(), 65_535).await;
    // `authorization` is one as well.
    client.get(1, "/workspaces", &fields(63, 1)).await;
    assert_eq!(client.answer(1).await, (true, "[]".to_owned()));
    client.get(3, "/workspaces", &fields(64, 1)).await;
    let (fine, body) = client.answer(3).await;
    let problem: Value = serde_json::from_str(&body).expect("a problem");
    assert_eq!(
        (fine, &problem["status"], &problem["code"]),
        (false, &json!(431), &json!("TOO_MANY_HEADERS"))
    );
    assert!(problem["detail"].as_str().expect("words").contains("64"), "{problem}");
    client.get(5, "/workspaces", &fields(60, 120)).await;
    assert!(!client.answer(5).await.0, "8,192 bytes and no more");
    // And it goes on.
    client.get(7, "/workspaces", &[]).await;
    assert!(client.answer(7).await.0);
}

async fn metrics(host: &TestHost) -> String {
    let asked = host.client.get(format!("{}/metrics", host.url)).send().await.expect("an answer");
    asked.text().await.expect("text")
}

/// Held answers, as the host counts them.
async fn held(host: &TestHost) -> usize {
    let text = metrics(host).await;
    let line = text.lines().find_map(|line| line.strip_prefix("sprag_http_answer_bytes "));
    line.expect("the metric").parse().expect("a number")
}

/// Many large answers are asked for at once, and none is read.
#[rstest]
#[case::by_one_connection(1, 16, 1_000_000, 100_000_000)]
#[case::by_many(10, 4, 100_000_000, 2_000_000)]
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_are_bounded(
    #[case] connections: usize,
    #[case] each: u32,
    #[case] answer_bytes_per_connection: usize,
    #[case] answer_bytes: usize,
) {
    let http = HttpConfig { answer_bytes, answer_bytes_per_connection, ..HttpConfig::default() };
    let (_db, host) = host(http).await;
    let card = json!({ "text": "x".repeat(60_000) });
    for n in 0..10 {
        let (id, token) = host.create(json!({ "name": format!("w{n}") })).await;
        let body = json!({ "workspace_id": id, "agent_card": card });
        host.agent("/registry/update-card", Some(&token), body).await.ok();
    }
    let one = host.get("/workspaces").await.header("content-length").parse::<usize>().expect("a length");
    assert!(one > 600_000, "{one} bytes");

    let (mut clients, mut given) = (Vec::new(), 0);
    for _ in 0..connections {
        let mut client = Client::connect(host.address(), 0).await;
        for n in 0..each {
            client.get(2 * n + 1, "/workspaces", &[]).await;
        }
        // Each is answered at once, whether with what it asked for or not.
        let heads = async {
            let mut seen = 0;
            while seen < each {
                let frame = client.next().await.expect("an answer");
                if frame.kind == HEADERS {
                    seen += 1;
                    given += usize::from(is_200(&frame));
                }
            }
        };
        timeout(PATIENCE, heads).await.expect("answers in time");
        clients.push(client);
    }
    // A connection's first is always given; the others as far as there is room.
    let room =
        (answer_bytes / one + connections).min(connections * (answer_bytes_per_connection / one).max(1));
    let asked = connections * usize::try_from(each).expect("a few");
    assert!(room < asked && (connections..=room).contains(&given), "{given} of {asked}, room for {room}");
    assert_eq!(held(&host).await, given * one);
    // Who got none is counted as such.
    let counted = async |status: u16| -> usize {
        let line = format!("sprag_http_requests_total{{route=\"/workspaces\",status=\"{status}\"}} ");
        let metrics = metrics(&host).await;
        metrics.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
    };
    assert_eq!((counted(200).await, counted(503).await), (given + 1, asked - given));
    // Others do not notice.
    for _ in 0..3 {
        assert_eq!(host.get("/workspaces").await.ok().as_array().expect("a list").len(), 10);
    }
    drop(clients);
    let freed = async {
        while held(&host).await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("nothing is held for who is gone");
}

/// Asks and takes back, faster than a host can work; and answers pings that nobody sent.
#[rstest]
#[case::rapid_reset(true)]
#[case::pongs(false)]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_plays_with_it_fills_no_log(
    #[case] resets: bool,
    #[values("", "info", "sprag=info,warn")] log: &str,
) {
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let env: &[_] = if log.is_empty() { &[] } else { &[("SPRAG_LOG", log)] };
    let host = Launch { env, ..Launch::of(&db.url, state.path()) }.start().await;
    let quiet = || {
        let log = host.log();
        let levels = ["\"WARN\"", "\"ERROR\""];
        log.lines()
            .filter(|line| line.contains("h2") || line.contains("http"))
            .filter(|line| levels.iter().any(|l| line.contains(l)))
            .count()
    };
    let before = quiet();
    for _ in 0..10 {
        let mut client = Client::connect(host.url.trim_start_matches("http://"), 65_535).await;
        let mut frames = Vec::new();
        for n in 0..200 {
            if resets {
                let cancel = 8_u32.to_be_bytes();
                frames.extend(frame(HEADERS, END | END_HEADERS, 2 * n + 1, &get("/workspaces", &[])));
                frames.extend(frame(RESET, 0, 2 * n + 1, &cancel));
            } else {
                frames.extend(frame(PING, ACK, 0, b"unasked!"));
            }
        }
        let _ = client.0.write_all(&frames).await;
        if resets {
            // It is cut off, with a reason.
            let end = async {
                let mut told = false;
                while let Some(frame) = client.next().await {
                    told |= frame.kind == GO_AWAY;
                }
                told
            };
            assert!(timeout(PATIENCE, end).await.expect("an end in time"), "cut off without a word");
        } else {
            client.get(1, "/health", &[]).await;
            assert!(client.answer(1).await.0);
        }
    }
    let warned = quiet() - before;
    assert!(warned <= 1, "{warned} lines:\n{}", host.log());
    if resets {
        assert_eq!(warned, 1, "and it is said:\n{}", host.log());
    }
}
