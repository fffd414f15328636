//! The rule in Cedar, parsed once: the workspace is the resource, the heartbeat
//! and the settings are the context, each candidate is an action and so a
//! request of its own.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, anyhow};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, Request,
    RestrictedExpression as Value,
};
use sprag::facts::Setting;

use super::inputs::Case;
use super::{Engine, Word};

const RULE: &str = include_str!("heartbeat.cedar");

/// Cedar has no floats.
const MILLIONTHS: f64 = 1e6;

pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    /// The codes, in the order in which they win.
    codes: Vec<(PolicyId, String)>,
    workspace: EntityTypeName,
    agent: EntityTypeName,
    action: EntityTypeName,
}

impl Cedar {
    pub fn prepare() -> Result<Self> {
        let policies: PolicySet = RULE.parse()?;
        let mut codes = Vec::new();
        for code in ["runtime-wedged", "error-rate-high"] {
            let policy = policies.policies().find(|policy| policy.annotation("id") == Some(code));
            let policy = policy.ok_or_else(|| anyhow!("no policy {code}"))?;
            codes.push((policy.id().clone(), code.to_owned()));
        }
        Ok(Self {
            authorizer: Authorizer::new(),
            policies,
            codes,
            workspace: "Workspace".parse()?,
            agent: "Agent".parse()?,
            action: "Action".parse()?,
        })
    }

    fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
    }
}

impl Engine for Cedar {
    fn name(&self) -> &'static str {
        "Cedar (cedar-policy)"
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        let id = &case.question.workspace.id;
        let workspace = Self::uid(&self.workspace, id);
        let entity = Entity::new(workspace.clone(), workspace_facts(case)?, HashSet::new())?;
        let entities = Entities::from_entities([entity], None)?;
        let context = context(case)?;
        let word = |candidate: &sprag::machine::Status| {
            let request = Request::new(
                Self::uid(&self.agent, id),
                Self::uid(&self.action, candidate.as_str()),
                workspace.clone(),
                context.clone(),
                None,
            )?;
            let response = self.authorizer.is_authorized(&request, &self.policies, &entities);
            let reasons: HashSet<_> = response.diagnostics().reason().collect();
            let first = self.codes.iter().find(|(policy, _)| reasons.contains(policy));
            Ok(first.map_or(Word::Abstain, |(_, code)| Word::Allow(code.clone())))
        };
        case.question.candidates.iter().map(word).collect()
    }
}

fn workspace_facts(case: &Case) -> Result<HashMap<String, Value>> {
    let workspace = &case.question.workspace;
    let labels = workspace.labels.iter().map(|(name, value)| (name.clone(), text(value)));
    let mut facts = vec![
        ("kind", text(&workspace.kind)),
        ("runtime", text(&workspace.runtime)),
        ("status", text(workspace.status.as_str())),
        ("status_since", whole(workspace.status_since)),
        ("active_tasks", whole(workspace.active_tasks.into())),
        ("ancestor_paused", Value::new_bool(workspace.ancestor_paused)),
        ("persistent_volume", Value::new_bool(workspace.persistent_volume)),
        ("labels", Value::new_record(labels)?),
    ];
    facts.extend(workspace.provider.as_deref().map(|provider| ("provider", text(provider))));
    facts.extend(workspace.instance_id.as_deref().map(|id| ("instance_id", text(id))));
    facts.extend(workspace.last_heartbeat_at.map(|at| ("last_heartbeat_at", whole(at))));
    Ok(owned(facts).collect())
}

fn context(case: &Case) -> Result<Context> {
    let heartbeat = case.heartbeat();
    let readiness = &heartbeat.readiness;
    let mut ready = Vec::new();
    ready.extend(readiness.mcp_server_present.map(|is| ("mcp_server_present", Value::new_bool(is))));
    ready.extend(readiness.model_present.map(|is| ("model_present", Value::new_bool(is))));
    ready.extend(readiness.loaded_mcp_tools.map(|tools| ("loaded_mcp_tools", whole(tools.into()))));
    let cause = vec![
        ("readiness", Value::new_record(owned(ready))?),
        ("error_rate", millionths(heartbeat.error_rate)),
        ("sample_error", text(&heartbeat.sample_error)),
        ("active_tasks", whole(heartbeat.active_tasks.into())),
        ("uptime", whole(heartbeat.uptime)),
        ("runtime_state", text(&heartbeat.runtime_state)),
        ("native_status", Value::new_bool(heartbeat.native_status)),
    ];
    let settings = case.settings.iter().map(|(name, value)| (name.clone(), setting(value)));
    let facts = vec![
        ("now", whole(case.question.now)),
        ("cause", Value::new_record(owned(cause))?),
        ("settings", Value::new_record(settings)?),
    ];
    Ok(Context::from_pairs(owned(facts))?)
}

fn owned(facts: Vec<(&str, Value)>) -> impl Iterator<Item = (String, Value)> {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value))
}

fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn whole(number: u64) -> Value {
    Value::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn millionths(rate: f64) -> Value {
    Value::new_long((rate * MILLIONTHS).round() as i64)
}

fn setting(setting: &Setting) -> Value {
    match setting {
        Setting::Flag(flag) => Value::new_bool(*flag),
        Setting::Number(number) => millionths(*number),
        Setting::Text(value) => text(value),
        Setting::Duration(millis) => whole(*millis),
    }
}
