//! The field's own agent, as far as its protocol goes: written from docs/agents.md. It
//! finds itself in its environment, registers once and does not look back, and says
//! what it has on one connection, which it keeps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::host::Answer;

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct FieldAgent {
    /// Host and port of `PLATFORM_URL`.
    platform: String,
    pub id: String,
    configs: Option<PathBuf>,
    pub token: Option<String>,
    connection: Option<SendRequest<Body>>,
    /// How often it had to connect.
    pub connections: usize,
    /// Answers that said that the connection closes.
    pub farewells: usize,
}

impl FieldAgent {
    /// One that looks at its environment as it starts.
    pub fn of(environment: &BTreeMap<String, String>) -> Self {
        let said = |name: &str| environment.get(name).unwrap_or_else(|| panic!("no {name}")).clone();
        let configs = environment.get("CONFIGS_DIR").map(PathBuf::from);
        let kept = configs.as_ref().and_then(|dir| std::fs::read_to_string(dir.join(".auth_token")).ok());
        Self {
            platform: said("PLATFORM_URL").trim_start_matches("http://").to_owned(),
            id: said("WORKSPACE_ID"),
            configs,
            token: kept.map(|token| token.trim().to_owned()),
            connection: None,
            connections: 0,
            farewells: 0,
        }
    }

    /// One that was started by hand, without a token.
    pub fn by_hand(url: &str, id: &str) -> Self {
        let said = [("PLATFORM_URL", url), ("WORKSPACE_ID", id)];
        Self::of(&said.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    pub async fn register(&mut self, url: &str) -> Answer {
        let body = json!({ "id": self.id, "url": url, "agent_card": { "name": "a", "url": url } });
        let answer = self.post("/registry/register", &body).await;
        if let Some(token) = answer.body["auth_token"].as_str() {
            if let Some(dir) = &self.configs {
                std::fs::write(dir.join(".auth_token"), token).expect("keeping the token");
            }
            self.token = Some(token.to_owned());
        }
        answer
    }

    pub async fn beat(&mut self, mut said: Value) -> Answer {
        said["workspace_id"] = json!(self.id);
        self.post("/registry/heartbeat", &said).await
    }

    pub async fn update_card(&mut self, card: Value) -> Answer {
        let body = json!({ "workspace_id": self.id, "agent_card": card });
        self.post("/registry/update-card", &body).await
    }

    /// What the host knows of it.
    pub async fn itself(&mut self) -> Answer {
        let path = format!("/workspaces/{}", self.id);
        self.ask(Method::GET, &path, Vec::new()).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, body.to_string().into_bytes()).await
    }

    /// Its next request, on the connection that it has unless it was told that this one closes.
    pub async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        const SILENCE: &str = "the connection was closed in silence";
        let mut request = Request::builder().method(method).uri(path).header("host", &self.platform);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").body(Body::from(body));
        let kept = self.connection.take();
        self.connections += usize::from(kept.is_none());
        let asked = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(&self.platform).await,
            };
            connection.ready().await.expect(SILENCE);
            let response = connection.send_request(request.expect("a request")).await.expect(SILENCE);
            (connection, response)
        };
        let (connection, response) = timeout(PATIENCE, asked).await.expect("an answer in time");
        let (head, body) = response.into_parts();
        let text = to_bytes(Body::new(body), usize::MAX).await.expect("a body");
        match head.headers.get("connection") {
            Some(said) if said == "close" => self.farewells += 1,
            _ => self.connection = Some(connection),
        }
        let body = serde_json::from_slice(&text)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&text).into_owned()));
        Answer { status: head.status, headers: head.headers, body }
    }
}

async fn connect(address: &str) -> SendRequest<Body> {
    let socket = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = handshake(TokioIo::new(socket)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}
