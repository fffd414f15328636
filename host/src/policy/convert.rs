//! Between the host's words (`facts`) and the interface's, by exhaustive
//! matches: a new status, cause or verdict does not compile until it is here.

use super::bindings::{about, cooldown, guard, recovery, types};
use super::{Hook, PolicyError, SettingSpec, Threshold};
use crate::facts::{
    Action, Cause, CommandKind, CooldownQuestion, Outcome, Question, Readiness, Reason, RecoveryQuestion,
    Ruling, Setting, Settings, Trigger, Verdict, Workspace,
};
use crate::machine::Status;

/// The parts of a question that need memory of their own; the rest is borrowed.
pub struct Lowered<'a> {
    question: &'a Question,
    labels: Vec<(&'a str, &'a str)>,
    settings: Vec<(&'a str, types::SettingParam<'a>)>,
    candidates: Vec<types::Status>,
}

impl<'a> Lowered<'a> {
    pub fn new(question: &'a Question, settings: &'a Settings) -> Self {
        Self {
            question,
            labels: question.workspace.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            settings: settings.iter().map(|(name, value)| (name.as_str(), lower_setting(value))).collect(),
            candidates: question.candidates.iter().map(|s| lower_status(*s)).collect(),
        }
    }

    pub fn request(&self) -> guard::Request<'_> {
        guard::Request {
            now: self.question.now,
            workspace: lower_workspace(&self.question.workspace, &self.labels),
            cause: lower_cause(&self.question.cause),
            settings: &self.settings,
            candidates: &self.candidates,
        }
    }
}

fn lower_workspace<'a>(w: &'a Workspace, labels: &'a [(&'a str, &'a str)]) -> types::Workspace<'a> {
    types::Workspace {
        id: &w.id,
        kind: &w.kind,
        runtime: &w.runtime,
        provider: w.provider.as_deref(),
        instance_id: w.instance_id.as_deref(),
        status: lower_status(w.status),
        status_since: w.status_since,
        last_heartbeat_at: w.last_heartbeat_at,
        active_tasks: w.active_tasks,
        ancestor_paused: w.ancestor_paused,
        persistent_volume: w.persistent_volume,
        labels,
    }
}

/// The same for the two other hooks.
pub struct LoweredFacts<'a> {
    workspace: &'a Workspace,
    labels: Vec<(&'a str, &'a str)>,
    settings: Vec<(&'a str, types::SettingParam<'a>)>,
    reasons: Vec<types::ReasonParam<'a>>,
}

impl<'a> LoweredFacts<'a> {
    pub fn new(workspace: &'a Workspace, settings: &'a Settings, outcome: Option<&'a Outcome>) -> Self {
        let denials = match outcome {
            Some(Outcome::Held { denials }) => denials.as_slice(),
            _ => &[],
        };
        Self {
            workspace,
            labels: workspace.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            settings: settings.iter().map(|(name, value)| (name.as_str(), lower_setting(value))).collect(),
            reasons: denials.iter().map(|denial| lower_reason(&denial.reason)).collect(),
        }
    }

    pub fn recovery<'b>(&'b self, question: &'b RecoveryQuestion<'_>) -> recovery::Request<'b> {
        let outcome = match question.outcome {
            Outcome::Moved { to, reason, .. } => recovery::Outcome::Moved(recovery::Move {
                origin: lower_status(self.workspace.status),
                target: lower_status(*to),
                reason: lower_reason(reason),
            }),
            Outcome::Held { .. } => recovery::Outcome::Held(&self.reasons),
        };
        recovery::Request {
            now: question.now,
            workspace: lower_workspace(self.workspace, &self.labels),
            cause: lower_cause(question.cause),
            outcome,
            settings: &self.settings,
        }
    }

    pub fn cooldown<'b>(&'b self, question: &'b CooldownQuestion<'_>) -> cooldown::Request<'b> {
        cooldown::Request {
            now: question.now,
            workspace: lower_workspace(self.workspace, &self.labels),
            action: match question.action {
                Action::ReconcilePlugins => types::ActionParam::ReconcilePlugins,
                Action::Restart => types::ActionParam::Restart,
                Action::StopInstance => types::ActionParam::StopInstance,
                Action::Notify(subject) => types::ActionParam::Notify(subject),
            },
            settings: &self.settings,
            last_fired_at: question.last_fired_at,
            fired: question.fired,
        }
    }
}

fn lower_reason(reason: &Reason) -> types::ReasonParam<'_> {
    types::ReasonParam { code: &reason.code, detail: reason.detail.as_deref() }
}

fn lift_reason(
    reason: types::ReasonResult,
    check: &impl Fn(&Reason) -> Result<(), PolicyError>,
) -> Result<Reason, PolicyError> {
    let reason = Reason { code: reason.code, detail: reason.detail };
    check(&reason).map(|()| reason)
}

pub fn lift_trigger(
    trigger: recovery::Trigger,
    check: impl Fn(&Reason) -> Result<(), PolicyError>,
) -> Result<Trigger, PolicyError> {
    let action = match trigger.action {
        types::ActionResult::ReconcilePlugins => Action::ReconcilePlugins,
        types::ActionResult::Restart => Action::Restart,
        types::ActionResult::StopInstance => Action::StopInstance,
        types::ActionResult::Notify(subject) => Action::Notify(subject),
    };
    Ok(Trigger { action, reason: lift_reason(trigger.reason, &check)? })
}

pub fn lift_ruling(
    ruling: cooldown::Ruling,
    check: impl Fn(&Reason) -> Result<(), PolicyError>,
) -> Result<Ruling, PolicyError> {
    Ok(match ruling {
        cooldown::Ruling::Ready => Ruling::Ready,
        cooldown::Ruling::WaitUntil((until, reason)) => {
            Ruling::WaitUntil { until, reason: lift_reason(reason, &check)? }
        }
    })
}

pub fn lower_status(status: Status) -> types::Status {
    match status {
        Status::Provisioning => types::Status::Provisioning,
        Status::AwaitingAgent => types::Status::AwaitingAgent,
        Status::Online => types::Status::Online,
        Status::Degraded => types::Status::Degraded,
        Status::Offline => types::Status::Offline,
        Status::Failed => types::Status::Failed,
        Status::Paused => types::Status::Paused,
        Status::Hibernated => types::Status::Hibernated,
        Status::Removed => types::Status::Removed,
    }
}

pub fn lift_status(status: types::Status) -> Status {
    match status {
        types::Status::Provisioning => Status::Provisioning,
        types::Status::AwaitingAgent => Status::AwaitingAgent,
        types::Status::Online => Status::Online,
        types::Status::Degraded => Status::Degraded,
        types::Status::Offline => Status::Offline,
        types::Status::Failed => Status::Failed,
        types::Status::Paused => Status::Paused,
        types::Status::Hibernated => Status::Hibernated,
        types::Status::Removed => Status::Removed,
    }
}

fn lower_readiness(r: &Readiness) -> types::Readiness {
    types::Readiness {
        mcp_server_present: r.mcp_server_present,
        model_present: r.model_present,
        loaded_mcp_tools: r.loaded_mcp_tools,
    }
}

fn lower_cause(cause: &Cause) -> types::Cause<'_> {
    match cause {
        Cause::Registered(r) => types::Cause::Registered(lower_readiness(r)),
        Cause::Heartbeat(h) => types::Cause::Heartbeat(types::Heartbeat {
            readiness: lower_readiness(&h.readiness),
            error_rate: h.error_rate,
            sample_error: &h.sample_error,
            active_tasks: h.active_tasks,
            uptime: h.uptime,
            runtime_state: &h.runtime_state,
            native_status: h.native_status,
        }),
        Cause::Silence { for_ } => types::Cause::Silence(*for_),
        Cause::Probed(p) => {
            types::Cause::Probed(types::Probe { instance_id: &p.instance_id, running: p.running })
        }
        Cause::ProvisioningFor { for_ } => types::Cause::ProvisioningFor(*for_),
        Cause::IdleFor { for_ } => types::Cause::IdleFor(*for_),
        Cause::Commanded(c) => types::Cause::Commanded(types::Command {
            kind: lower_command(c.command),
            actor: &c.actor,
            target_provider: c.target_provider.as_deref(),
            force: c.force,
            confirm_data_loss: c.confirm_data_loss,
        }),
    }
}

fn lower_command(kind: CommandKind) -> types::CommandKind {
    match kind {
        CommandKind::Restart => types::CommandKind::Restart,
        CommandKind::SwitchProvider => types::CommandKind::SwitchProvider,
        CommandKind::Pause => types::CommandKind::Pause,
        CommandKind::Resume => types::CommandKind::Resume,
        CommandKind::Hibernate => types::CommandKind::Hibernate,
        CommandKind::Wake => types::CommandKind::Wake,
        CommandKind::Remove => types::CommandKind::Remove,
    }
}

/// The interface's kind of a cause, as an interest names it.
pub fn cause_kind(cause: &Cause) -> about::CauseKind {
    match cause {
        Cause::Registered(_) => about::CauseKind::Registered,
        Cause::Heartbeat(_) => about::CauseKind::Heartbeat,
        Cause::Silence { .. } => about::CauseKind::Silence,
        Cause::Probed(_) => about::CauseKind::Probed,
        Cause::ProvisioningFor { .. } => about::CauseKind::ProvisioningFor,
        Cause::IdleFor { .. } => about::CauseKind::IdleFor,
        Cause::Commanded(_) => about::CauseKind::Commanded,
    }
}

/// The same name that a recorded cause carries as its `kind`.
pub fn cause_name(kind: about::CauseKind) -> &'static str {
    match kind {
        about::CauseKind::Registered => "registered",
        about::CauseKind::Heartbeat => "heartbeat",
        about::CauseKind::Silence => "silence",
        about::CauseKind::Probed => "probed",
        about::CauseKind::ProvisioningFor => "provisioning_for",
        about::CauseKind::IdleFor => "idle_for",
        about::CauseKind::Commanded => "commanded",
    }
}

pub fn lift_hook(hook: about::Hook) -> Hook {
    match hook {
        about::Hook::Guard => Hook::Guard,
        about::Hook::Cooldown => Hook::Cooldown,
        about::Hook::Recovery => Hook::Recovery,
    }
}

fn lower_setting(setting: &Setting) -> types::SettingParam<'_> {
    match setting {
        Setting::Flag(v) => types::SettingParam::Flag(*v),
        Setting::Number(v) => types::SettingParam::Number(*v),
        Setting::Text(v) => types::SettingParam::Text(v),
        Setting::Duration(v) => types::SettingParam::Duration(*v),
    }
}

fn lift_setting(setting: types::SettingResult) -> Setting {
    match setting {
        types::SettingResult::Flag(v) => Setting::Flag(v),
        types::SettingResult::Number(v) => Setting::Number(v),
        types::SettingResult::Text(v) => Setting::Text(v),
        types::SettingResult::Duration(v) => Setting::Duration(v),
    }
}

pub fn lift_spec(spec: about::SettingSpec) -> SettingSpec {
    SettingSpec { name: spec.name, summary: spec.summary, default: lift_setting(spec.default) }
}

pub fn lift_threshold(threshold: about::Threshold) -> Threshold {
    Threshold { fact: threshold.fact, setting: threshold.setting }
}

/// Takes a verdict over, if its reason is one.
pub fn lift_verdict(
    verdict: guard::Verdict,
    check: impl Fn(&Reason) -> Result<(), PolicyError>,
) -> Result<Verdict, PolicyError> {
    let reason = |r: types::ReasonResult| lift_reason(r, &check);
    Ok(match verdict {
        guard::Verdict::Allow(r) => Verdict::Allow(reason(r)?),
        guard::Verdict::Deny(r) => Verdict::Deny(reason(r)?),
        guard::Verdict::Abstain => Verdict::Abstain,
    })
}
