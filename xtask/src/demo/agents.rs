//! The simulated agents: each a thread that follows its script round and round,
//! a heartbeat a second, and says when the host's answer changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::demo::client::{Answer, Client};
use crate::process;

const BEAT: Duration = Duration::from_secs(1);
/// How soon an agent notices that the demo ends.
const NAP: Duration = Duration::from_millis(50);

/// How an agent feels, and so what it reports.
#[derive(Clone, Copy)]
pub enum Mood {
    Healthy,
    /// That share of its operations fails.
    Failing(f64),
    /// Its runtime is stuck.
    Wedged,
    /// Its management tools are not loaded.
    Toolless,
    /// It does not report.
    Silent,
}

/// One agent: its moods, each for a number of beats, from the beginning again after the last.
pub struct Role {
    pub name: &'static str,
    pub kind: Option<&'static str>,
    pub script: &'static [(Mood, u32)],
}

/// Who plays.
pub const CAST: [Role; 6] = [
    Role { name: "steady-eddie", kind: None, script: &[(Mood::Healthy, 60)] },
    Role {
        name: "flaky-fiona",
        kind: None,
        script: &[
            (Mood::Healthy, 6),
            (Mood::Failing(0.72), 7),
            (Mood::Failing(0.3), 4),
            (Mood::Failing(0.02), 12),
        ],
    },
    Role {
        name: "wedged-walter",
        kind: None,
        script: &[(Mood::Healthy, 10), (Mood::Wedged, 8), (Mood::Healthy, 15)],
    },
    Role {
        name: "platform-pia",
        kind: Some("platform"),
        script: &[(Mood::Toolless, 9), (Mood::Healthy, 40)],
    },
    Role {
        name: "borderline-bob",
        kind: None,
        script: &[
            (Mood::Failing(0.49), 8),
            (Mood::Failing(0.5), 6),
            (Mood::Failing(0.1), 4),
            (Mood::Failing(0.09), 9),
        ],
    },
    Role { name: "silent-sam", kind: None, script: &[(Mood::Healthy, 12), (Mood::Silent, 60)] },
];

impl Mood {
    fn shown(self) -> String {
        match self {
            Self::Healthy => "healthy".to_owned(),
            Self::Failing(rate) => format!("error rate {rate}"),
            Self::Wedged => "its runtime is wedged".to_owned(),
            Self::Toolless => "its management tools are not loaded".to_owned(),
            Self::Silent => "says nothing more for a while".to_owned(),
        }
    }

    fn readiness(self) -> Value {
        let tools = !matches!(self, Self::Toolless);
        json!({
            "mcp_server_present": tools,
            "model_present": true,
            "loaded_mcp_tools": if tools { vec!["fleet_list", "fleet_restart"] } else { Vec::new() },
        })
    }

    fn heartbeat(self, id: &str, uptime: Duration) -> Value {
        let rate = if let Self::Failing(rate) = self { rate } else { 0.0 };
        let mut body = self.readiness();
        body["workspace_id"] = id.into();
        body["error_rate"] = rate.into();
        body["sample_error"] = if rate > 0.0 { "tool call timed out".into() } else { "".into() };
        body["active_tasks"] = 1.into();
        body["uptime_seconds"] = uptime.as_secs().into();
        body["current_task"] = "demo".into();
        body["runtime_state"] = if matches!(self, Self::Wedged) { "wedged".into() } else { "".into() };
        body
    }
}

/// One agent on stage.
pub struct Agent {
    pub role: &'static Role,
    pub id: String,
    pub client: Client,
    pub began: Instant,
}

impl Agent {
    /// Plays until the demo ends or the workspace is removed.
    pub fn play(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut seen = "provisioning".to_owned();
            if let Err(error) = self.act(&mut seen)
                && !process::interrupted()
            {
                self.say(&format!("{error:#}"));
            }
        })
    }

    fn act(&mut self, seen: &mut String) -> Result<()> {
        self.register(seen)?;
        for &(mood, beats) in self.role.script.iter().cycle() {
            if matches!(mood, Mood::Silent) {
                self.say(&mood.shown());
            }
            for _ in 0..beats {
                if !rest() {
                    return Ok(());
                }
                if matches!(mood, Mood::Silent) {
                    continue;
                }
                let body = mood.heartbeat(&self.id, self.began.elapsed());
                let answer = self.client.post("/registry/heartbeat", &body)?;
                COUNT.fetch_add(1, Ordering::Relaxed);
                self.notice(seen, mood, &answer);
                if answer.code == 410 {
                    self.say("leaves: its workspace was removed");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn register(&mut self, seen: &mut String) -> Result<()> {
        let mood = self.role.script[0].0;
        let mut body = mood.readiness();
        body["id"] = self.id.clone().into();
        body["url"] = format!("http://127.0.0.1:9/{}", self.role.name).into();
        body["agent_card"] = json!({ "name": self.role.name });
        let answer = self.client.post("/registry/register", &body)?;
        if let Some(token) = answer.body["auth_token"].as_str() {
            self.client = self.client.with_token(token);
        }
        self.notice(seen, mood, &answer);
        Ok(())
    }

    /// Says so when the answer is another than the last.
    fn notice(&self, seen: &mut String, mood: Mood, answer: &Answer) {
        let now = match answer.body["workspace_status"].as_str() {
            Some(status) if answer.code == 200 => status.to_owned(),
            _ => format!("refused: {}", answer.shown()),
        };
        if now != *seen {
            let decision =
                answer.body["decision_id"].as_str().map(|id| format!(", decision {id}")).unwrap_or_default();
            self.say(&format!("{:<32} {}{decision}", format!("{seen} -> {now}"), mood.shown()));
            *seen = now;
        }
    }

    fn say(&self, what: &str) {
        println!("{:>6.1}s  {:<15} {what}", self.began.elapsed().as_secs_f64(), self.role.name);
    }
}

/// Heartbeats sent by all agents.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many heartbeats were answered so far.
pub fn heartbeats() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Waits for the next beat; false where the demo ends.
fn rest() -> bool {
    let until = Instant::now() + BEAT;
    while Instant::now() < until {
        if process::interrupted() {
            return false;
        }
        thread::sleep(NAP);
    }
    true
}
