//! The agents: keep-alive connections that each send one request, wait for its
//! answer and send the next. One thread and no HTTP library, so that as little
//! as can be of the machine goes to the clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::fill::Fleet;

/// Longest answer that a bench may get.
const ANSWER_BYTES: usize = 4 << 10;

/// One phase's requests: the same to either route.
pub struct Load {
    host: SocketAddr,
    /// One per workspace, ready to be sent.
    requests: std::sync::Arc<Vec<Vec<u8>>>,
    connections: usize,
}

/// What one phase came to.
#[derive(Default)]
pub struct Tally {
    counted: Duration,
    /// Sorted, in µs, of what was counted.
    latencies: Vec<u32>,
    /// What the whole machine worked, clients and database and all, counted or not.
    busy: Duration,
    /// Workspaces whose request was answered, counted or not.
    pub answered: Vec<usize>,
}

impl Tally {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.counted.as_secs_f64()
    }

    /// The machine's work for one request, in µs: what a rate is made of, without the waiting.
    pub fn busy_micros(&self) -> f64 {
        self.busy.as_secs_f64() * 1e6 / self.answered.len() as f64
    }

    /// The quantile `q`, 0 to 1.
    pub fn latency_ms(&self, q: f64) -> f64 {
        let place = (self.latencies.len() as f64 * q) as usize;
        self.latencies.get(place).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    }
}

impl Load {
    pub fn new(host: SocketAddr, fleet: &Fleet, path: &str, connections: usize) -> Self {
        let requests = (0..fleet.len()).map(|i| request(fleet, i, path)).collect();
        Self { host, requests: std::sync::Arc::new(requests), connections }
    }

    /// Sends for `warm` and then for `counted`; every answer must be a `200`.
    pub fn run(&self, warm: Duration, counted: Duration) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (begin, before) = (Instant::now() + warm, busy()?);
            let mut agents = JoinSet::new();
            for first in 0..self.connections {
                let stream = TcpStream::connect(self.host).await.context("connecting")?;
                stream.set_nodelay(true)?;
                let requests = self.requests.clone();
                agents.spawn(agent(stream, requests, first, self.connections, begin, begin + counted));
            }
            let mut tally = Tally { counted, ..Tally::default() };
            while let Some(done) = agents.join_next().await {
                let (latencies, answered) = done??;
                tally.latencies.extend(latencies);
                tally.answered.extend(answered);
            }
            tally.busy = busy()?.saturating_sub(before);
            tally.latencies.sort_unstable();
            Ok(tally)
        })
    }
}

/// What the processors did so far but idle, from `/proc/stat`, whose unit is the
/// clock tick of 10 ms.
fn busy() -> Result<Duration> {
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no line of cpu")?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else { bail!("too few numbers: {line}") };
    Ok(Duration::from_millis((user + nice + system + irq + softirq) * TICK_MS))
}

/// The workspaces `first`, `first + step`, … in turn, until `end`.
async fn agent(
    mut stream: TcpStream,
    requests: std::sync::Arc<Vec<Vec<u8>>>,
    first: usize,
    step: usize,
    begin: Instant,
    end: Instant,
) -> Result<(Vec<u32>, Vec<usize>)> {
    let (mut latencies, mut answered) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; ANSWER_BYTES];
    for place in (first..requests.len()).step_by(step).cycle() {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        stream.write_all(&requests[place]).await?;
        answer(&mut stream, &mut buffer).await?;
        answered.push(place);
        let now = Instant::now();
        // What is answered within the time counts, whenever it was sent.
        if (begin..end).contains(&now) {
            latencies.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok((latencies, answered))
}

/// Reads one whole answer; anything but a `200` is an error that shows it.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the host hung up within an answer");
        filled += read;
        let Some(head) = buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without a length")?.parse()?;
        if filled < head + 4 + length {
            continue;
        }
        if !text.starts_with("HTTP/1.1 200 ") {
            bail!("answered {}", String::from_utf8_lossy(&buffer[..filled]));
        }
        return Ok(());
    }
}

fn request(fleet: &Fleet, place: usize, path: &str) -> Vec<u8> {
    let (body, token) = (fleet.body(place), fleet.token(place));
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
