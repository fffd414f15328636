//! The rule as an expression of CEL, compiled once.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};
use cel::{Context, Program, Value};
use sprag::facts::Setting;

use super::inputs::Case;
use super::{Engine, Word};

/// One word per candidate: a code, or nothing to abstain.
const RULE: &str = "candidates.map(candidate,
    candidate == 'degraded' && workspace.status == 'online'
        ? (cause.runtime_state == 'wedged' ? 'runtime-wedged'
            : !cause.native_status && cause.error_rate >= settings['degrade-at'] ? 'error-rate-high'
            : '')
        : '')";

pub struct Cel {
    program: Program,
    /// The standard functions; the facts are a scope of their own below it.
    root: Context<'static, 'static>,
}

impl Cel {
    pub fn prepare() -> Result<Self> {
        let program = Program::compile(RULE).map_err(|e| anyhow!("{e}"))?;
        Ok(Self { program, root: Context::default() })
    }
}

impl Engine for Cel {
    fn name(&self) -> &'static str {
        "CEL (cel)"
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        let mut context = self.root.new_inner_scope();
        for (name, value) in facts(case) {
            context.add_variable_from_value(name, value);
        }
        let Value::List(words) = self.program.execute(&context)? else { bail!("no list of verdicts") };
        let word = |word: &Value| match word {
            Value::String(code) if code.is_empty() => Ok(Word::Abstain),
            Value::String(code) => Ok(Word::Allow(code.to_string())),
            other => Err(anyhow!("{other:?} is no verdict")),
        };
        words.iter().map(word).collect()
    }
}

fn facts(case: &Case) -> [(&'static str, Value); 5] {
    let (question, workspace, heartbeat) = (&case.question, &case.question.workspace, case.heartbeat());
    let readiness = &heartbeat.readiness;
    let workspace = map([
        ("id", workspace.id.as_str().into()),
        ("kind", workspace.kind.as_str().into()),
        ("runtime", workspace.runtime.as_str().into()),
        ("provider", workspace.provider.as_deref().into()),
        ("instance_id", workspace.instance_id.as_deref().into()),
        ("status", workspace.status.as_str().into()),
        ("status_since", workspace.status_since.into()),
        ("last_heartbeat_at", workspace.last_heartbeat_at.into()),
        ("active_tasks", workspace.active_tasks.into()),
        ("ancestor_paused", workspace.ancestor_paused.into()),
        ("persistent_volume", workspace.persistent_volume.into()),
        ("labels", map(workspace.labels.iter().map(|(name, value)| (name.as_str(), value.as_str().into())))),
    ]);
    let readiness = map([
        ("mcp_server_present", readiness.mcp_server_present.into()),
        ("model_present", readiness.model_present.into()),
        ("loaded_mcp_tools", readiness.loaded_mcp_tools.into()),
    ]);
    let cause = map([
        ("readiness", readiness),
        ("error_rate", heartbeat.error_rate.into()),
        ("sample_error", heartbeat.sample_error.as_str().into()),
        ("active_tasks", heartbeat.active_tasks.into()),
        ("uptime", heartbeat.uptime.into()),
        ("runtime_state", heartbeat.runtime_state.as_str().into()),
        ("native_status", heartbeat.native_status.into()),
    ]);
    let candidates: Vec<_> = question.candidates.iter().map(|status| status.as_str()).collect();
    [
        ("now", question.now.into()),
        ("workspace", workspace),
        ("cause", cause),
        ("settings", map(case.settings.iter().map(|(name, value)| (name.as_str(), setting(value))))),
        ("candidates", candidates.into()),
    ]
}

fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    fields.into_iter().collect::<HashMap<_, _>>().into()
}

fn setting(setting: &Setting) -> Value {
    match setting {
        Setting::Flag(flag) => (*flag).into(),
        Setting::Number(number) => (*number).into(),
        Setting::Text(text) => text.as_str().into(),
        Setting::Duration(millis) => (*millis).into(),
    }
}
