//! Walks a plan: forwards from where the journal ends, and back where a step
//! failed. It decides how the claim ends; `open` writes that.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::doing::{Doing, Over};
use super::open::OpenClaim;
use super::plan::{self, Plan, Planned, Step, Undo};
use super::{Host, Point};
use crate::facts::{Cause, Reason};
use crate::machine::{CauseKind, Status};
use crate::store::{
    Claim, ClaimKind, ClaimState, Ended, Ending, Hold, JournaledStep, OwedStop, StepState, StoreError,
};

/// How a walk ends.
pub(super) enum Verdict {
    Commit,
    /// Everything that could be undone is; `reason` is why.
    Back {
        reason: Reason,
        owed: Vec<OwedStop>,
    },
}

/// Why a walk stops before its end.
pub(super) enum Halt {
    /// The claim is another's, or superseded.
    Lost,
    /// Something of it was written by a later version: it is left to those who know it.
    Foreign,
    /// The database or a provider does not answer: the lease will lapse, and the next holder fences first.
    GiveUp,
    /// The host is stopping.
    Stopping,
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "a claim is left to its lease");
        Halt::GiveUp
    }
}

/// Carries a claim out, from wherever it is, to its end.
pub(super) fn carry_out(host: Arc<Host>, hold: Hold, taken_over: bool) -> BoxFuture<'static, ()> {
    // A box, because a saga opens claims of its own, which are carried out by this.
    Box::pin(async move {
        let open = OpenClaim::new(host.clone(), hold.clone());
        let lost = CancellationToken::new();
        let renewal = AbortOnDropHandle::new(tokio::spawn(renew(host.clone(), hold.clone(), lost.clone())));
        let mut saga = Saga { doing: Doing::new(&host, open.hold()), host: &host };
        let walked = tokio::select! {
            walked = saga.walk(taken_over) => walked,
            () = lost.cancelled() => Err(Halt::Lost),
            () = host.stop.cancelled() => Err(Halt::Stopping),
        };
        match walked {
            Ok((verdict, claim, status)) => finish(&host, open, &claim, status, verdict).await,
            Err(Halt::Lost) => open.lost(),
            Err(Halt::GiveUp | Halt::Foreign) => open.give_up(),
            Err(Halt::Stopping) => {
                // A renewal that came after it would undo the release.
                drop(renewal);
                open.release().await;
            }
        }
        host.ended.notify_waiters();
    })
}

/// Renews the lease until it is lost. A database that does not answer is asked again.
async fn renew(host: Arc<Host>, hold: Hold, lost: CancellationToken) {
    let lease = host.config.lease_ms;
    loop {
        sleep(Duration::from_millis((lease / 3).max(10))).await;
        if matches!(host.store.renew_claim(&hold, lease).await, Ok(false)) {
            lost.cancel();
            return;
        }
    }
}

async fn finish(host: &Arc<Host>, open: OpenClaim, claim: &Claim, status: Status, verdict: Verdict) {
    let Some(ending) = ending(claim, status, verdict) else { return open.give_up() };
    let workspace_id = claim.workspace_id.clone();
    Point::Ending.reached(&claim.kind);
    let Some(Ended::Done { spoken }) = open.end(&ending).await else { return };
    Point::Ended.reached(&claim.kind);
    host.metrics.claim_ended(&claim.kind, ending.state.as_str());
    tracing::info!(
        claim.id = claim.id,
        claim.epoch = claim.epoch,
        claim.state = ending.state.as_str(),
        workspace.id = workspace_id,
        "a {} ended",
        claim.kind
    );
    host.ended.notify_waiters();
    // The new box has spoken before the claim ended: nobody waits for its next
    // heartbeat. What a box said that is stopped again counts for nothing.
    let spoken = spoken.filter(|_| ending.state == ClaimState::Committed);
    let Some(cause) = spoken.and_then(|said| serde_json::from_str::<Cause>(&said).ok()) else { return };
    if let Err(error) = host.advance.workspace(&workspace_id, &cause, None).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            error,
            workspace.id = workspace_id,
            "judging what a new box said; it will say it again"
        );
    }
}

/// What is written at the end. None: the table has no way back, which it always has.
fn ending(claim: &Claim, status: Status, verdict: Verdict) -> Option<Ending<'_>> {
    let done = |step: Step| is_over(claim, step) && was_done(claim, step);
    // Begun is enough: whatever became of it, the row's box is not that one any more.
    let stopped = last(claim, Step::StopOld).is_some();
    match verdict {
        Verdict::Commit => {
            let provider = if done(Step::WriteProvider) { &claim.new_provider } else { &claim.old_provider };
            let started = done(Step::StartNew);
            let instance_id = match (started, stopped) {
                (true, _) => claim.new_instance_id.as_deref(),
                (false, true) => None,
                (false, false) => claim.old_instance_id.as_deref(),
            };
            let (state, transition) = (ClaimState::Committed, None);
            // Whoever spoke for the workspace before a box of its own was started has no say any more.
            let sole = started && !creates(claim);
            let provider = provider.as_deref();
            Some(Ending { state, transition, provider, instance_id, sole, owed: Vec::new() })
        }
        Verdict::Back { reason, owed } => {
            let may_run = last(claim, Step::StopNew) == Some(StepState::Exhausted) || !owed.is_empty();
            let untrue = creates(claim) || cannot_be_undone(claim) || may_run;
            let (state, to) = match untrue {
                true => (ClaimState::Failed, Status::Failed),
                false => (ClaimState::RolledBack, claim.prior_status),
            };
            let edge = status.edge(CauseKind::ClaimEnded, "").ok()?;
            let transition = Some((edge.back_to(to).ok()?, reason));
            let instance_id = if stopped { None } else { claim.old_instance_id.as_deref() };
            let provider = claim.old_provider.as_deref();
            Some(Ending { state, transition, provider, instance_id, sole: false, owed })
        }
    }
}

fn creates(claim: &Claim) -> bool {
    claim.kind == ClaimKind::Create.as_str()
}

/// What the claim does. None: not everything about it is of this version.
fn plan_of(claim: &Claim) -> Option<Plan> {
    let known = |line: &JournaledStep| line.step.parse::<Step>().is_ok() && line.state != StepState::Unknown;
    let kind = claim.kind.parse().ok().filter(|_| claim.steps.iter().all(known))?;
    Some(plan::plan_of(kind))
}

/// One whose plan is not known is not undone either.
fn cannot_be_undone(claim: &Claim) -> bool {
    plan_of(claim).is_none_or(|plan| {
        let mut cannot = plan.iter().filter(|planned| planned.undo == Undo::Cannot);
        cannot.any(|planned| was_done(claim, planned.step))
    })
}

/// The last line of the journal about this step.
fn last(claim: &Claim, step: Step) -> Option<StepState> {
    claim.steps.iter().rev().find(|line| line.step == step.as_str()).map(|line| line.state)
}

fn is_over(claim: &Claim, step: Step) -> bool {
    matches!(last(claim, step), Some(StepState::Done | StepState::Skipped | StepState::Exhausted))
}

fn was_done(claim: &Claim, step: Step) -> bool {
    matches!(last(claim, step), Some(StepState::Done | StepState::Exhausted))
}

struct Saga<'a> {
    host: &'a Arc<Host>,
    doing: Doing<'a>,
}

impl Saga<'_> {
    /// The verdict, the claim as it then is, and the status that it holds the row in.
    async fn walk(&mut self, taken_over: bool) -> Result<(Verdict, Claim, Status), Halt> {
        let (mut claim, status) = self.read().await?;
        self.doing.is_of(&claim.kind);
        if taken_over {
            if let Some(verdict) = self.fence_off(&claim).await? {
                let (claim, status) = self.read().await?;
                return Ok((verdict, claim, status));
            }
            (claim, _) = self.read().await?;
        }
        let verdict = match failure(&claim) {
            Some(reason) => self.back(reason).await?,
            None => self.forth(&claim).await?,
        };
        let (claim, _) = self.read().await?;
        Ok((verdict, claim, status))
    }

    async fn read(&self) -> Result<(Claim, Status), Halt> {
        let hold = self.doing.hold();
        let claim = self.host.store.claim(&hold.claim_id).await?.ok_or(Halt::Lost)?;
        if claim.state != ClaimState::Open || claim.epoch != hold.epoch {
            return Err(Halt::Lost);
        }
        if plan_of(&claim).is_none() {
            tracing::warn!(
                claim.id = claim.id,
                claim.kind = claim.kind,
                "left to a host that knows all of it"
            );
            return Err(Halt::Foreign);
        }
        let row = self.host.store.snapshot(&hold.workspace_id).await?.ok_or(Halt::Lost)?;
        Ok((claim, row.workspace.status))
    }

    async fn forth(&mut self, claim: &Claim) -> Result<Verdict, Halt> {
        for Planned { step, .. } in plan_of(claim).ok_or(Halt::Foreign)? {
            if is_over(claim, *step) {
                continue;
            }
            if let Over::Failed(reason) = self.doing.step(claim, *step).await? {
                return self.back(reason).await;
            }
        }
        Ok(Verdict::Commit)
    }

    /// Undoes, last first, what was done or may have been.
    async fn back(&mut self, reason: Reason) -> Result<Verdict, Halt> {
        let (claim, _) = self.read().await?;
        for Planned { step, undo } in plan_of(&claim).ok_or(Halt::Foreign)?.iter().rev() {
            let begun = last(&claim, *step).is_some_and(|state| state != StepState::Skipped);
            let Undo::By(undo) = undo else { continue };
            if begun && !is_over(&claim, *undo) {
                self.doing.undo(&claim, *undo).await?;
            }
        }
        // What an undoing step could not stop is owed with its line in the journal.
        Ok(Verdict::Back { reason, owed: Vec::new() })
    }

    /// Before anything else of a takeover: where a box may have been started, no
    /// call of an older epoch can happen any more. A start that was under way
    /// either has happened, and its box is adopted, or never will. A stop that is
    /// under way needs no fence: it names a box that this claim stops as well.
    async fn fence_off(&mut self, claim: &Claim) -> Result<Option<Verdict>, Halt> {
        if let Some(unknown) = self.host.cannot_start(claim).filter(|_| !is_over(claim, Step::StartNew)) {
            return self.unreachable(claim, &unknown.to_string());
        }
        if let Some(unknown) = self.host.cannot_stop(claim).filter(|_| !is_over(claim, Step::StopOld)) {
            // In the end the stop is owed, and the claim goes on.
            self.left_to_others(claim, &unknown.to_string())?;
        }
        let (Some(provider), Some(new)) = (&claim.new_provider, &claim.new_instance_id) else {
            return Ok(None);
        };
        let Some(running) = self.doing.fence(provider).await? else {
            return self.unreachable(claim, &format!("provider {provider} did not answer"));
        };
        if running.contains(new) {
            self.doing.adopt(claim).await?;
        }
        Ok(None)
    }

    /// A host that opened the claim may have what this one has not; not for ever.
    fn left_to_others(&self, claim: &Claim, why: &str) -> Result<(), Halt> {
        if claim.takeovers >= self.host.config.takeovers {
            return Ok(());
        }
        tracing::warn!(claim.id = claim.id, workspace.id = claim.workspace_id, "left to its lease: {why}");
        Err(Halt::GiveUp)
    }

    /// A provider that can't be fenced, or is not known here: later again, or by another host;
    /// in the end the outbox owes what may run.
    fn unreachable(&self, claim: &Claim, why: &str) -> Result<Option<Verdict>, Halt> {
        self.left_to_others(claim, why)?;
        let stop = |provider: &Option<String>, instance: &Option<String>| {
            Some(OwedStop { provider: provider.clone()?, instance_id: instance.clone()? })
        };
        let mut owed: Vec<_> = stop(&claim.new_provider, &claim.new_instance_id).into_iter().collect();
        if last(claim, Step::StopOld).is_some() {
            owed.extend(stop(&claim.old_provider, &claim.old_instance_id));
        }
        let detail = format!("{why}, over {} takeovers", claim.takeovers);
        Ok(Some(Verdict::Back { reason: Reason::new("provider-unreachable", detail), owed }))
    }
}

/// Why the claim is on its way back already, if it is.
fn failure(claim: &Claim) -> Option<Reason> {
    let failed = claim.steps.iter().rev().find(|line| line.state == StepState::Failed)?;
    let detail = failed.detail.clone().unwrap_or_else(|| "no more is known".to_owned());
    Some(Reason::new(format!("{}-failed", failed.step.replace('_', "-")), detail))
}
