//! The rule in Rego, run by regorus: by its interpreter, which is the
//! reference, and by its virtual machine.
//!
//! Both are prepared once and given an input for each decision, built directly
//! as regorus' own values: no JSON text in between.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::RegoVM;
use regorus::{Engine as Rego, Rc, Value};
use sprag::facts::Setting;

use super::inputs::Case;
use super::{Engine, REGORUS, Word};

const RULE: &str = include_str!("heartbeat.rego");
const ENTRY: &str = "data.sprag.verdicts";

/// `regorus::Engine`, as its users run it.
pub struct Interpreter(Rego);

impl Interpreter {
    pub fn prepare() -> Result<Self> {
        Ok(Self(engine()?))
    }
}

impl Engine for Interpreter {
    fn name(&self) -> &'static str {
        REGORUS
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        self.0.set_input(input(case));
        words(&self.0.eval_rule(ENTRY.to_owned())?)
    }
}

/// `regorus::rvm`, the same rule as instructions of its virtual machine.
pub struct Machine(RegoVM);

impl Machine {
    pub fn prepare() -> Result<Self> {
        let policy = engine()?.compile_with_entrypoint(&Rc::from(ENTRY))?;
        let mut machine = RegoVM::new();
        machine.load_program(Compiler::compile_from_policy(&policy, &[ENTRY])?);
        Ok(Self(machine))
    }
}

impl Engine for Machine {
    fn name(&self) -> &'static str {
        "regorus, its RVM"
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        self.0.set_input(input(case));
        words(&self.0.execute().map_err(|e| anyhow::anyhow!("{e}"))?)
    }
}

fn engine() -> Result<Rego> {
    let mut engine = Rego::new();
    engine.add_policy("heartbeat.rego".to_owned(), RULE.to_owned())?;
    Ok(engine)
}

fn words(verdicts: &Value) -> Result<Vec<Word>> {
    let word = |verdict: &Value| {
        Ok(match verdict.as_string()?.as_ref() {
            "abstain" => Word::Abstain,
            code => Word::Allow(code.to_owned()),
        })
    };
    verdicts.as_array().context("no list of verdicts")?.iter().map(word).collect()
}

fn input(case: &Case) -> Value {
    let (question, workspace, heartbeat) = (&case.question, &case.question.workspace, case.heartbeat());
    let readiness = &heartbeat.readiness;
    object([
        ("now", question.now.into()),
        (
            "workspace",
            object([
                ("id", text(&workspace.id)),
                ("kind", text(&workspace.kind)),
                ("runtime", text(&workspace.runtime)),
                ("provider", optional(workspace.provider.as_deref().map(text))),
                ("instance_id", optional(workspace.instance_id.as_deref().map(text))),
                ("status", text(workspace.status.as_str())),
                ("status_since", workspace.status_since.into()),
                ("last_heartbeat_at", optional(workspace.last_heartbeat_at.map(Value::from))),
                ("active_tasks", u64::from(workspace.active_tasks).into()),
                ("ancestor_paused", workspace.ancestor_paused.into()),
                ("persistent_volume", workspace.persistent_volume.into()),
                ("labels", object(workspace.labels.iter().map(|(name, value)| (name.as_str(), text(value))))),
            ]),
        ),
        (
            "cause",
            object([
                (
                    "readiness",
                    object([
                        ("mcp_server_present", optional(readiness.mcp_server_present.map(Value::from))),
                        ("model_present", optional(readiness.model_present.map(Value::from))),
                        (
                            "loaded_mcp_tools",
                            optional(readiness.loaded_mcp_tools.map(|n| u64::from(n).into())),
                        ),
                    ]),
                ),
                ("error_rate", heartbeat.error_rate.into()),
                ("sample_error", text(&heartbeat.sample_error)),
                ("active_tasks", u64::from(heartbeat.active_tasks).into()),
                ("uptime", heartbeat.uptime.into()),
                ("runtime_state", text(&heartbeat.runtime_state)),
                ("native_status", heartbeat.native_status.into()),
            ]),
        ),
        ("settings", object(case.settings.iter().map(|(name, value)| (name.as_str(), setting(value))))),
        ("candidates", question.candidates.iter().map(|c| text(c.as_str())).collect::<Vec<_>>().into()),
    ])
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    fields.into_iter().map(|(name, value)| (text(name), value)).collect::<BTreeMap<_, _>>().into()
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn optional(value: Option<Value>) -> Value {
    value.unwrap_or(Value::Null)
}

fn setting(setting: &Setting) -> Value {
    match setting {
        Setting::Flag(flag) => (*flag).into(),
        Setting::Number(number) => (*number).into(),
        Setting::Text(value) => text(value),
        Setting::Duration(millis) => (*millis).into(),
    }
}
