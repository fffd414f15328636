//! The agent in a box: registers, then heartbeats until its box ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::journal::BoxName;
use super::rules::StartBody;

/// Answers by status; 0 where none came.
type Heard = Arc<Mutex<BTreeMap<u16, u64>>>;

pub(super) fn spawn(name: &BoxName, spec: &StartBody, every: Duration, heard: Heard) -> AbortHandle {
    let agent = Agent { id: name.workspace.clone(), spec: spec.clone(), heard };
    tokio::spawn(agent.live(every)).abort_handle()
}

struct Agent {
    id: String,
    spec: StartBody,
    heard: Heard,
}

impl Agent {
    async fn live(self, every: Duration) {
        let readiness = json!({ "mcp_server_present": true, "model_present": true, "loaded_mcp_tools": ["list_workspaces"] });
        let card = json!({ "id": self.id, "url": "http://127.0.0.1:9", "agent_card": {} });
        while self.say("register", &merged(&card, &readiness)).await != 200 {
            sleep(every).await;
        }
        let mut uptime = 0;
        loop {
            sleep(every).await;
            uptime += 1;
            let beat = json!({ "workspace_id": self.id, "error_rate": 0.0, "active_tasks": 1, "uptime_seconds": uptime });
            self.say("heartbeat", &merged(&beat, &readiness)).await;
        }
    }

    async fn say(&self, what: &str, body: &Value) -> u16 {
        let url = format!("{}/registry/{what}", self.spec.registry_url.trim_end_matches('/'));
        let sent = client().post(url).bearer_auth(&self.spec.token).json(body).send().await;
        let status = sent.map_or(0, |answer| answer.status().as_u16());
        *self.heard.lock().expect("the agents' answers").entry(status).or_default() += 1;
        status
    }
}

/// One for all agents, which share its connections.
fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(crate::support::client)
}

fn merged(one: &Value, other: &Value) -> Value {
    let fields = one.as_object().into_iter().chain(other.as_object()).flatten();
    Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
}
