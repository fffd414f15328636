//! What `--wait` waits for once a claim has started a box: the first word of its
//! agent. The events say what became of it, so nothing that came and went between
//! two looks is missed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::client::Host;

/// How often the events are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Events that one look takes, the newest.
const EVENTS: &str = "100";

/// Whether a claim that committed leaves a boot behind.
pub(super) fn is_awaited(claim: &Value) -> bool {
    let kind = claim["kind"].as_str().unwrap_or_default();
    ["create", "restart", "switch_provider", "resume", "wake"].contains(&kind)
}

/// How a boot stands.
enum Boot {
    Goes,
    Up(String),
    Over(String),
}

/// Waits until the agent whose box `claim` has started is online (exit code 0),
/// or is known not to be, or `patience` is over (1).
pub(super) async fn wait(claim: &Value, host: &Host, patience: Duration) -> anyhow::Result<ExitCode> {
    let id = claim["workspace_id"].as_str().unwrap_or_default();
    let until = Instant::now() + patience;
    loop {
        let newest =
            host.call(Method::GET, &format!("events/{id}"), |r| r.query(&[("limit", EVENTS)])).await?;
        let boot = match moves_since(claim, &newest) {
            Some(moves) => became(&moves),
            // It is further back than one look goes: how the row stands has to do.
            None => stands(&host.call(Method::GET, &format!("workspaces/{id}"), |r| r).await?),
        };
        match boot {
            Boot::Up(how) => {
                super::print(&format!("{id} is {how}\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            Boot::Over(how) => {
                super::print(&format!("{id} is not online: it is {how}\n"))?;
                return Ok(ExitCode::FAILURE);
            }
            Boot::Goes if Instant::now() >= until => {
                let row = host.call(Method::GET, &format!("workspaces/{id}"), |r| r).await?;
                super::print(&format!("{id} is not online after {} s: {}\n", patience.as_secs(), why(&row)))?;
                return Ok(ExitCode::FAILURE);
            }
            Boot::Goes => sleep(LOOK).await,
        }
    }
}

/// The changes of status after the one that the claim was opened with, oldest
/// first. None: that one is not among these events.
fn moves_since<'a>(claim: &Value, newest: &'a Value) -> Option<Vec<&'a Value>> {
    let events = newest.as_array()?;
    let is_first = |event: &&Value| match claim["decision_id"].as_str() {
        Some(decision) => event["decision_id"] == decision && event["to"].is_string(),
        None => event["from"].is_null() && event["to"].is_string(),
    };
    let first = events.iter().find(is_first)?["version"].as_i64()?;
    let later = |event: &&Value| event["to"].is_string() && event["version"].as_i64() > Some(first);
    Some(events.iter().rev().filter(later).collect())
}

/// What a boot came to. One that was begun anew goes on.
fn became(moves: &[&Value]) -> Boot {
    for event in moves {
        let to = event["to"].as_str().unwrap_or_default();
        let because = event["reason"]["detail"].as_str().or(event["reason"]["code"].as_str());
        let said = because.map_or(to.to_owned(), |why| format!("{to}, {why}"));
        match to {
            "provisioning" => {}
            "online" | "degraded" => return Boot::Up(to.to_owned()),
            _ => return Boot::Over(said),
        }
    }
    Boot::Goes
}

fn stands(row: &Value) -> Boot {
    match row["status"].as_str().unwrap_or_default() {
        "provisioning" => Boot::Goes,
        up @ ("online" | "degraded") => Boot::Up(up.to_owned()),
        other => Boot::Over(other.to_owned()),
    }
}

/// Why a boot may take so long.
fn why(row: &Value) -> String {
    let (heard, since) = (row["last_heartbeat_at"].as_str(), row["status_since"].as_str());
    let said = match (heard, since) {
        (Some(heard), Some(since)) if heard >= since => "its agent speaks, and a policy keeps it so",
        _ => "nothing was heard of its agent",
    };
    format!("it is {}, and {said}", row["status"].as_str().unwrap_or("-"))
}

#[cfg(test)]
mod tests;
