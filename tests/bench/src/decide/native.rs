//! The same policy as an ordinary Rust function, no WebAssembly around it.

use anyhow::{Result, bail};
use sprag::facts;
use sprag_heartbeat::{LiveHeartbeat, Settings};
use sprag_policy::prelude::*;

use super::inputs::Case;
use super::{Engine, Word};

pub struct Native;

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native Rust"
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        let request = Request {
            now: case.question.now,
            workspace: workspace(&case.question.workspace),
            cause: Cause::Heartbeat(heartbeat(case.heartbeat())),
            settings: Settings {
                degrade_at: case.number("degrade-at"),
                recover_below: case.number("recover-below"),
            },
            candidates: case.question.candidates.iter().map(|candidate| status(*candidate)).collect(),
        };
        let verdicts = request.candidates.iter().map(|candidate| LiveHeartbeat::decide(&request, *candidate));
        verdicts
            .map(|verdict| match verdict {
                Verdict::Allow(reason) => Ok(Word::Allow(reason.code)),
                Verdict::Abstain => Ok(Word::Abstain),
                Verdict::Deny(reason) => bail!("the heartbeat policy denied: {reason:?}"),
            })
            .collect()
    }
}

fn workspace(w: &facts::Workspace) -> Workspace {
    Workspace {
        id: w.id.clone(),
        kind: w.kind.clone(),
        runtime: w.runtime.clone(),
        provider: w.provider.clone(),
        instance_id: w.instance_id.clone(),
        status: status(w.status),
        status_since: w.status_since,
        last_heartbeat_at: w.last_heartbeat_at,
        active_tasks: w.active_tasks,
        ancestor_paused: w.ancestor_paused,
        persistent_volume: w.persistent_volume,
        labels: w.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

fn heartbeat(h: &facts::Heartbeat) -> Heartbeat {
    Heartbeat {
        readiness: Readiness {
            mcp_server_present: h.readiness.mcp_server_present,
            model_present: h.readiness.model_present,
            loaded_mcp_tools: h.readiness.loaded_mcp_tools,
        },
        error_rate: h.error_rate,
        sample_error: h.sample_error.clone(),
        active_tasks: h.active_tasks,
        uptime: h.uptime,
        runtime_state: h.runtime_state.clone(),
        native_status: h.native_status,
    }
}

fn status(status: sprag::machine::Status) -> Status {
    use sprag::machine::Status as S;
    match status {
        S::Provisioning => Status::Provisioning,
        S::AwaitingAgent => Status::AwaitingAgent,
        S::Online => Status::Online,
        S::Degraded => Status::Degraded,
        S::Offline => Status::Offline,
        S::Failed => Status::Failed,
        S::Paused => Status::Paused,
        S::Hibernated => Status::Hibernated,
        S::Removed => Status::Removed,
    }
}
