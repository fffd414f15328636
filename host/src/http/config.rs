//! The bounds of the wire. Each has a name, a default and a key of the same
//! name under `[http]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Limits;

/// What one client may take, and all together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Bytes of a request's body; one more is a `413`.
    pub body_bytes: usize,
    /// The same for a registration and a heartbeat, of which people's fields may be long.
    pub agent_body_bytes: usize,
    /// Agents' bodies larger than `body_bytes` in memory at once; one more waits for its turn.
    pub large_bodies: usize,
    /// Whether agents may register link-local addresses, among which clouds have their
    /// machines' secrets.
    pub link_local_urls: bool,
    /// Bytes of a request's head; one more is a `431`. At least 8192.
    pub header_bytes: usize,
    /// Header fields of a request; one more is a `431`.
    pub headers: usize,
    /// How long a new connection may take to send its first head, in milliseconds.
    pub header_read_ms: u64,
    /// How long a request's body may take to arrive after its head; longer is a `408`.
    pub body_read_ms: u64,
    /// How long a request may take from its head to its answer; longer is a `503`.
    pub request_ms: u64,
    /// The same where modules are compiled (`/policies…`).
    pub policy_request_ms: u64,
    /// Bytes of answers that wait to be read, of one connection; its first always
    /// has room, one more that has none is a `503`.
    pub answer_bytes_per_connection: usize,
    /// The same of all connections together.
    pub answer_bytes: usize,
    /// How long a connection may lie idle, or not read what it asked for; it is
    /// closed within twice that time.
    pub idle_ms: u64,
    /// Requests in the works at once; one more is a `503`.
    pub concurrency: usize,
    /// Requests whose bodies are awaited at once, which are not in the works
    /// meanwhile; one more is a `503`.
    pub bodies: usize,
    /// Connections open at once; more wait to be accepted.
    pub connections: usize,
    /// Requests at once within one HTTP/2 connection.
    pub requests_per_connection: u32,
    /// Event streams open at once; one more is a `503`.
    pub streams: usize,
    /// How long a stop waits for what is in flight.
    pub shutdown_ms: u64,
    /// Bytes of an uploaded module: `limits.module_bytes`, set by whoever reads the configuration.
    #[serde(skip)]
    pub module_bytes: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 10,
            agent_body_bytes: 1 << 20,
            large_bodies: 64,
            link_local_urls: false,
            header_bytes: 16 << 10,
            headers: 64,
            header_read_ms: 10_000,
            body_read_ms: 10_000,
            request_ms: 15_000,
            policy_request_ms: 120_000,
            answer_bytes_per_connection: 16 << 20,
            answer_bytes: 256 << 20,
            idle_ms: 75_000,
            concurrency: 4_096,
            bodies: 16_384,
            connections: 8_192,
            requests_per_connection: 32,
            streams: 64,
            shutdown_ms: 10_000,
            module_bytes: Limits::default().module_bytes,
        }
    }
}

impl HttpConfig {
    pub(super) fn header_read(&self) -> Duration {
        Duration::from_millis(self.header_read_ms)
    }

    pub(super) fn body_read(&self) -> Duration {
        Duration::from_millis(self.body_read_ms)
    }

    pub(super) fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    pub(super) fn policy_request(&self) -> Duration {
        Duration::from_millis(self.policy_request_ms)
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    pub(super) fn shutdown(&self) -> Duration {
        Duration::from_millis(self.shutdown_ms)
    }
}
