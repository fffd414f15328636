//! The inputs: an online workspace's heartbeats, and what each must come to.

use std::collections::BTreeMap;

use sprag::facts::{Cause, Heartbeat, Question, Readiness, Setting, Settings, Workspace};
use sprag::machine::Status;

use super::Word;

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    pub question: Question,
    pub settings: Settings,
    /// One per candidate.
    pub expected: Vec<Word>,
}

impl Case {
    /// What the agent said.
    pub fn heartbeat(&self) -> &Heartbeat {
        match &self.question.cause {
            Cause::Heartbeat(heartbeat) => heartbeat,
            other => unreachable!("inputs() makes heartbeats, not {other:?}"),
        }
    }

    /// A setting that is a number.
    pub fn number(&self, name: &str) -> f64 {
        match self.settings.get(name) {
            Some(Setting::Number(number)) => *number,
            other => unreachable!("inputs() sets {name}, not {other:?}"),
        }
    }
}

const NOW: u64 = 1_800_000_000_000;

/// Healthy, failing, wedged and native ones, and both sides of the threshold.
pub fn cases() -> Vec<Case> {
    let healthy = Heartbeat {
        readiness: Readiness {
            mcp_server_present: Some(true),
            model_present: Some(true),
            loaded_mcp_tools: Some(12),
        },
        error_rate: 0.01,
        sample_error: String::new(),
        active_tasks: 2,
        uptime: 86_400_000,
        runtime_state: String::new(),
        native_status: false,
    };
    let rate = |error_rate| Heartbeat {
        error_rate,
        sample_error: "connection refused".to_owned(),
        ..healthy.clone()
    };
    let wedged = |heartbeat| Heartbeat { runtime_state: "wedged".to_owned(), ..heartbeat };
    let native = |heartbeat| Heartbeat { native_status: true, ..heartbeat };
    let (high, stuck) = (Some("error-rate-high"), Some("runtime-wedged"));
    [
        (healthy.clone(), None),
        (rate(0.8), high),
        (wedged(healthy.clone()), stuck),
        (native(rate(0.9)), None),
        (rate(0.25), None),
        (rate(0.5), high),
        (wedged(rate(1.0)), stuck),
        (native(healthy.clone()), None),
        (rate(0.499_999), None),
        (rate(1.0), high),
        (native(wedged(rate(0.7))), stuck),
        (rate(0.0), None),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (heartbeat, degraded))| case(i, heartbeat, degraded))
    .collect()
}

fn case(i: usize, heartbeat: Heartbeat, degraded: Option<&str>) -> Case {
    let workspace = Workspace {
        id: format!("0199a1b2-c3d4-7e5f-8a6b-{i:012}"),
        kind: "workspace".to_owned(),
        runtime: "claude-code".to_owned(),
        provider: Some("fly".to_owned()),
        instance_id: Some(format!("i-{i:08}")),
        status: Status::Online,
        status_since: NOW - 3_600_000,
        last_heartbeat_at: Some(NOW - 15_000),
        active_tasks: 2,
        ancestor_paused: false,
        persistent_volume: true,
        labels: BTreeMap::from([("team".to_owned(), "search".to_owned())]),
    };
    let word = |code: Option<&str>| code.map_or(Word::Abstain, |code| Word::Allow(code.to_owned()));
    Case {
        question: Question {
            now: NOW,
            workspace,
            cause: Cause::Heartbeat(heartbeat),
            candidates: vec![Status::Failed, Status::Degraded],
        },
        settings: BTreeMap::from([
            ("degrade-at".to_owned(), Setting::Number(0.5)),
            ("recover-below".to_owned(), Setting::Number(0.1)),
        ]),
        expected: vec![Word::Abstain, word(degraded)],
    }
}
