//! A loaded module, and one decision of it.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Instance, InstancePre, TypedFunc};

use super::bindings::{about, cooldown, guard, recovery};
use super::classify::{Phase, classify};
use super::convert::{self, Lowered, LoweredFacts};
use super::engine::{self, Meter};
use super::manifest::{bound_list, bound_string, is_kebab};
use super::sandbox::Inner;
use super::{Hook, Hooks, Limits, Manifest, PolicyError};
use crate::facts::{
    Action, Cause, CooldownQuestion, Question, Reason, RecoveryQuestion, Ruling, Settings, Trigger, Verdict,
    Workspace,
};

const GUARD: &str = "sprag:policy/guard@1.0.0";

/// A compiled, probed module.
pub struct Module {
    sandbox: Arc<Inner>,
    limits: Limits,
    pre: InstancePre<Meter>,
    /// `guard.decide`, whose type was checked when the module was probed.
    decide: Option<ComponentExportIndex>,
    cooldown: Option<cooldown::GuestIndices>,
    recovery: Option<recovery::GuestIndices>,
    digest: String,
    hooks: Hooks,
    manifest: Manifest,
}

impl Module {
    /// Finds out which hooks are exported and asks the module who it is.
    pub(super) async fn probe(
        sandbox: Arc<Inner>,
        limits: Limits,
        digest: String,
        pre: InstancePre<Meter>,
    ) -> Result<Self, PolicyError> {
        let missing = |e: wasmtime::Error| wrong(format!("{e:#}"));
        let about = about::GuestIndices::new(&pre).map_err(missing)?;
        let export = |name: &str| pre.component().get_export_index(None, name);
        let exports = |name: &str| export(name).is_some();
        let hooks = Hooks {
            guard: exports(GUARD),
            cooldown: exports("sprag:policy/cooldown@1.0.0"),
            recovery: exports("sprag:policy/recovery@1.0.0"),
        };
        if !(hooks.guard || hooks.cooldown || hooks.recovery) {
            return Err(wrong("it exports none of guard, cooldown and recovery".to_owned()));
        }
        let guard = hooks.guard.then(|| guard::GuestIndices::new(&pre)).transpose().map_err(missing)?;
        let cooldown =
            hooks.cooldown.then(|| cooldown::GuestIndices::new(&pre)).transpose().map_err(missing)?;
        let recovery =
            hooks.recovery.then(|| recovery::GuestIndices::new(&pre)).transpose().map_err(missing)?;
        let manifest = {
            let limits = &limits;
            let _slot = sandbox.slot(limits).await?;
            let (mut store, instance) = instantiate(&sandbox, limits, &pre).await?;
            if let Some(guard) = &guard {
                guard.load(&mut store, &instance).map_err(missing)?;
            }
            if let Some(cooldown) = &cooldown {
                cooldown.load(&mut store, &instance).map_err(missing)?;
            }
            if let Some(recovery) = &recovery {
                recovery.load(&mut store, &instance).map_err(missing)?;
            }
            let about = about.load(&mut store, &instance).map_err(missing)?;
            let described = about.call_describe(&mut store).await;
            let described = described.map_err(|e| classify(&e, Phase::Call, &mut store, limits))?;
            Manifest::lift(described, hooks, limits)?
        };
        let decide = export(GUARD).and_then(|guard| pre.component().get_export_index(Some(&guard), "decide"));
        Ok(Self { sandbox, limits, pre, decide, cooldown, recovery, digest, hooks, manifest })
    }

    /// `sha256:` and 64 hexadecimal digits of the bytes as they were uploaded.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// Checks given settings against the declared ones (names and types) and
    /// fills in the defaults.
    ///
    /// # Errors
    /// [`PolicyError::BadSetting`] with the name, what was given and what
    /// would be right.
    pub fn settle(&self, given: &Settings) -> Result<Settings, PolicyError> {
        self.manifest.settle(given, &self.limits)
    }

    /// Whether `guard` is to be asked this question at all. A guard that
    /// declares no interest is asked everything.
    pub fn is_interested(&self, question: &Question) -> bool {
        self.hooks.guard && self.manifest.guards(question)
    }

    /// Whether `recovery` is to be asked about a step on this row for this cause.
    pub fn recovers(&self, workspace: &Workspace, cause: &Cause) -> bool {
        self.hooks.recovery && self.manifest.admits(Hook::Recovery, workspace, cause)
    }

    /// Whether `cooldown` is to rule on what such a step sets in motion.
    pub fn cools_down(&self, workspace: &Workspace, cause: &Cause) -> bool {
        self.hooks.cooldown && self.manifest.admits(Hook::Cooldown, workspace, cause)
    }

    /// Asks `recovery.plan` in a new sandbox.
    ///
    /// # Errors
    /// Whatever ended the call, or is wrong with its answer.
    pub async fn plan(
        &self,
        question: &RecoveryQuestion<'_>,
        settings: &Settings,
    ) -> Result<Vec<Trigger>, PolicyError> {
        let limits = &self.limits;
        let recovery = self.recovery.as_ref().ok_or_else(|| wrong("it exports no recovery".to_owned()))?;
        let lowered = LoweredFacts::new(question.workspace, settings, Some(question.outcome));
        let _slot = self.sandbox.slot(&self.limits).await?;
        let (mut store, instance) = instantiate(&self.sandbox, &self.limits, &self.pre).await?;
        let recovery = recovery.load(&mut store, &instance).map_err(|e| wrong(format!("{e:#}")))?;
        let planned = recovery.call_plan(&mut store, lowered.recovery(question)).await;
        let planned = planned.map_err(|e| classify(&e, Phase::Call, &mut store, limits))?;
        bound_list("the triggers", planned.len(), limits)?;
        planned.into_iter().map(|trigger| take_trigger(trigger, limits)).collect()
    }

    /// Asks `cooldown.check` in a new sandbox.
    ///
    /// # Errors
    /// Whatever ended the call, or is wrong with its answer.
    pub async fn rule(
        &self,
        question: &CooldownQuestion<'_>,
        settings: &Settings,
    ) -> Result<Ruling, PolicyError> {
        let limits = &self.limits;
        let cooldown = self.cooldown.as_ref().ok_or_else(|| wrong("it exports no cooldown".to_owned()))?;
        let lowered = LoweredFacts::new(question.workspace, settings, None);
        let _slot = self.sandbox.slot(&self.limits).await?;
        let (mut store, instance) = instantiate(&self.sandbox, &self.limits, &self.pre).await?;
        let cooldown = cooldown.load(&mut store, &instance).map_err(|e| wrong(format!("{e:#}")))?;
        let ruled = cooldown.call_check(&mut store, lowered.cooldown(question)).await;
        let ruled = ruled.map_err(|e| classify(&e, Phase::Call, &mut store, limits))?;
        convert::lift_ruling(ruled, |reason| check_reason(reason, limits))
    }

    /// Asks `guard.decide` in a new sandbox: one verdict per candidate.
    ///
    /// Waits for a sandbox where all are in use. Dropping the future ends the
    /// call and its sandbox.
    ///
    /// # Errors
    /// Whatever ended the call, or is wrong with its answer.
    pub async fn decide(
        &self,
        question: &Question,
        settings: &Settings,
    ) -> Result<Vec<Verdict>, PolicyError> {
        let limits = &self.limits;
        let lowered = Lowered::new(question, settings);
        // Declared before the store, so that it is given back after it.
        let _slot = self.sandbox.slot(&self.limits).await?;
        let (mut store, decide) = self.new_guard().await?;
        match decide.call_async(&mut store, (lowered.request(),)).await {
            Ok((verdicts,)) => check(verdicts, question.candidates.len(), limits),
            Err(error) => Err(classify(&error, Phase::Call, &mut store, limits)),
        }
    }

    /// A new instance and its `guard.decide`, without the check of its type that
    /// `GuestIndices::load` repeats every time (half a microsecond).
    #[allow(unsafe_code)]
    async fn new_guard<'a>(&self) -> Result<(Store<Meter>, Decide<'a>), PolicyError> {
        let none = || wrong("it exports no guard".to_owned());
        let export = self.decide.as_ref().ok_or_else(none)?;
        let (mut store, instance) = instantiate(&self.sandbox, &self.limits, &self.pre).await?;
        let decide = instance.get_func(&mut store, export).ok_or_else(none)?;
        // SAFETY: there is a `Module` only where `probe` has loaded `guard` of this
        // same `pre`, and that checks `decide` for this type.
        Ok((store, unsafe { Decide::new_unchecked(decide) }))
    }
}

type Decide<'a> = TypedFunc<(guard::Request<'a>,), (Vec<guard::Verdict>,)>;

/// It is the type that the generated code has, and checks.
const _: for<'a> fn(&'a guard::Guest) -> Decide<'a> = guard::Guest::func_decide;

/// A subject is a word to count and filter by, like a reason's code.
fn take_trigger(trigger: recovery::Trigger, limits: &Limits) -> Result<Trigger, PolicyError> {
    let trigger = convert::lift_trigger(trigger, |reason| check_reason(reason, limits))?;
    if let Action::Notify(subject) = &trigger.action {
        bound_string("a notice's subject", subject, limits)?;
        if !is_kebab(subject) {
            let what = super::classify::clip(format!("the subject {subject:?} is not in kebab-case"));
            return Err(PolicyError::BadAnswer { what });
        }
    }
    Ok(trigger)
}

async fn instantiate(
    sandbox: &Inner,
    limits: &Limits,
    pre: &InstancePre<Meter>,
) -> Result<(Store<Meter>, Instance), PolicyError> {
    let mut store = engine::store(&sandbox.engine, limits)?;
    match pre.instantiate_async(&mut store).await {
        Ok(instance) => Ok((store, instance)),
        Err(error) => Err(classify(&error, Phase::Instantiate, &mut store, limits)),
    }
}

/// Takes an answer over, if it is one for so many candidates.
fn check(
    verdicts: Vec<guard::Verdict>,
    expected: usize,
    limits: &Limits,
) -> Result<Vec<Verdict>, PolicyError> {
    bound_list("the verdicts", verdicts.len(), limits)?;
    if verdicts.len() != expected {
        return Err(PolicyError::WrongVerdictCount { found: verdicts.len(), expected });
    }
    verdicts.into_iter().map(|v| convert::lift_verdict(v, |reason| check_reason(reason, limits))).collect()
}

fn check_reason(reason: &Reason, limits: &Limits) -> Result<(), PolicyError> {
    bound_string("a reason's code", &reason.code, limits)?;
    bound_string("a reason's detail", reason.detail.as_deref().unwrap_or_default(), limits)?;
    if is_kebab(&reason.code) {
        return Ok(());
    }
    let what = super::classify::clip(format!("the reason code {:?} is not in kebab-case", reason.code));
    Err(PolicyError::BadAnswer { what })
}

fn wrong(why: String) -> PolicyError {
    PolicyError::WrongInterface { why: super::classify::clip(why) }
}
