//! Does one step: journal, provider, journal. What a provider left open is
//! asked, under a newer fence, and never assumed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::sleep;

use super::plan::Step;
use super::saga::Halt;
use super::{Commanded, Host, Point, naming};
use crate::facts::{Command, CommandKind, Reason};
use crate::provision::{BoxSpec, BoxState, BoxToken, Call, DispatchError, Fence};
use crate::store::{Begin, Begun, Claim, Effects, Hold, OwedStop, StepState, TokenHash};

/// How often a step is begun anew because something newer, not a new holder, came before its call.
const OVERTAKEN: u32 = 5;

/// Children that are asked side by side.
const CHILDREN_AT_ONCE: usize = 16;

/// The pause before a child that has another claim is asked again.
const CHILD_PAUSE: Duration = Duration::from_millis(200);

/// What became of one that was to be taken along.
enum Along {
    Taken,
    /// It is there already, or gone.
    AsItWas,
    /// Why it was left.
    Left(String),
}

type AskedAlong = (String, Result<Along, Halt>);

/// What became of a step.
pub(super) enum Over {
    /// Done, or nothing was to be done, or what it left behind is owed.
    Done,
    Failed(Reason),
}

/// One holder's hands.
pub(super) struct Doing<'a> {
    host: &'a Arc<Host>,
    hold: &'a Hold,
    kind: String,
    /// Of the new box: one for all attempts of this holder.
    token: Option<BoxToken>,
}

impl<'a> Doing<'a> {
    pub(super) fn new(host: &'a Arc<Host>, hold: &'a Hold) -> Self {
        Self { host, hold, kind: String::new(), token: None }
    }

    /// What kind of claim it is, once it has been read.
    pub(super) fn is_of(&mut self, kind: &str) {
        kind.clone_into(&mut self.kind);
    }

    pub(super) fn hold(&self) -> &Hold {
        self.hold
    }

    pub(super) async fn step(&mut self, claim: &Claim, step: Step) -> Result<Over, Halt> {
        match step {
            Step::StopOld => self.stop_old(claim).await,
            Step::WriteProvider => self.put_provider(step, claim.new_provider.as_deref()).await,
            Step::StartNew => self.start_new(claim).await,
            Step::PauseChildren => self.children(step, CommandKind::Pause).await,
            Step::ResumeChildren => self.children(step, CommandKind::Resume).await,
            // No plan has these as a step forwards.
            Step::Fence | Step::StopNew | Step::RestoreProvider => Ok(Over::Done),
        }
    }

    /// Does an undoing step; what it could not stop is owed.
    pub(super) async fn undo(&self, claim: &Claim, step: Step) -> Result<(), Halt> {
        match step {
            Step::StopNew => self.stop_new(claim).await,
            Step::RestoreProvider => self.put_provider(step, claim.old_provider.as_deref()).await.map(drop),
            _ => Ok(()),
        }
    }

    /// The instances of the workspace that run at a provider, once nothing older
    /// can happen there. None: it does not answer.
    pub(super) async fn fence(&self, provider: &str) -> Result<Option<Vec<String>>, Halt> {
        for _ in 0..OVERTAKEN {
            let begun = self.begin(Step::Fence, None).await?;
            match self.host.calling().await?.fence(provider, &self.call(Step::Fence, begun, provider)).await {
                Ok(boxes) => {
                    let running: Vec<_> = boxes.into_iter().map(|b| b.instance_id).collect();
                    let detail = format!("{provider} runs: {}", listed(&running));
                    self.finish(Step::Fence, begun, StepState::Done, &detail, Effects::default()).await?;
                    return Ok(Some(running));
                }
                Err(DispatchError::Stale { accepted }) => {
                    self.overtaken(Step::Fence, begun, accepted).await?
                }
                Err(e) => {
                    self.finish(Step::Fence, begun, StepState::Exhausted, &e.to_string(), Effects::default())
                        .await?;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// The box that an older holder's start has made is the claim's new box.
    pub(super) async fn adopt(&self, claim: &Claim) -> Result<(), Halt> {
        let line = claim.steps.iter().rev().find(|line| line.step == Step::StartNew.as_str());
        let Some(line) = line.filter(|line| line.state == StepState::Begun) else { return Ok(()) };
        let begun = Begun { number: line.number, seq: line.seq };
        self.finish(Step::StartNew, begun, StepState::Done, "it runs; taken over", Effects::default()).await
    }

    async fn stop_old(&self, claim: &Claim) -> Result<Over, Halt> {
        let gone = Effects { box_gone: true, ..Effects::default() };
        let what = (&claim.old_provider, &claim.old_instance_id);
        self.stop_or_owe(Step::StopOld, what, gone).await.map(|()| Over::Done)
    }

    async fn stop_new(&self, claim: &Claim) -> Result<(), Halt> {
        let what = (&claim.new_provider, &claim.new_instance_id);
        self.stop_or_owe(Step::StopNew, what, Effects::default()).await
    }

    /// Stops a box, if there is one. One that may be left is owed here and now:
    /// the end is another transaction, and may be another host's.
    async fn stop_or_owe(
        &self,
        step: Step,
        what: (&Option<String>, &Option<String>),
        effects: Effects<'_>,
    ) -> Result<(), Halt> {
        let (Some(provider), Some(instance)) = what else { return Ok(()) };
        let left = OwedStop { provider: provider.clone(), instance_id: instance.clone() };
        let (begun, stopped) = self.stop(step, &left).await?;
        match stopped {
            Ok(()) => self.finish(step, begun, StepState::Done, instance, effects).await,
            Err(why) => {
                let effects = Effects { left: Some(&left), ..effects };
                self.finish(step, begun, StepState::Exhausted, &why, effects).await
            }
        }
    }

    /// Stops one box; the error says why it may still run.
    async fn stop(&self, step: Step, what: &OwedStop) -> Result<(Begun, Result<(), String>), Halt> {
        let mut begun = self.begin(step, None).await?;
        let mut why = String::new();
        for _ in 0..OVERTAKEN {
            let call = self.call(step, begun, "");
            match self.host.calling().await?.stop(&what.provider, &call, &what.instance_id).await {
                Ok(_) => return Ok((begun, Ok(()))),
                Err(DispatchError::Stale { accepted }) => {
                    why = format!("overtaken by {accepted}");
                    self.overtaken(step, begun, accepted).await?;
                    begun = self.begin(step, None).await?;
                }
                Err(e) => {
                    why = e.to_string();
                    break;
                }
            }
        }
        // It may have been done all the same.
        let running = self.fence(&what.provider).await?;
        let gone = running.is_some_and(|running| !running.contains(&what.instance_id));
        Ok((begun, if gone { Ok(()) } else { Err(why) }))
    }

    async fn put_provider(&self, step: Step, provider: Option<&str>) -> Result<Over, Halt> {
        let begun = self.begin(step, None).await?;
        let effects = Effects { provider: Some(provider), ..Effects::default() };
        self.finish(step, begun, StepState::Done, provider.unwrap_or("none"), effects).await?;
        Ok(Over::Done)
    }

    async fn start_new(&mut self, claim: &Claim) -> Result<Over, Halt> {
        let Some(provider) = &claim.new_provider else { return Ok(Over::Done) };
        // Named by its epoch: what an older holder started has another name.
        let instance = naming::instance_of(&self.hold.workspace_id, self.hold.epoch);
        if let Err(unknown) = self.host.dispatcher.check(provider) {
            let begun = self.begin(Step::StartNew, None).await?;
            return self.not_started(begun, unknown.to_string()).await;
        }
        let token = self.token()?;
        let spec = self.spec(&token).await?;
        for _ in 0..OVERTAKEN {
            let begun = self.begin(Step::StartNew, Some((&instance, &TokenHash::of(&token.0)))).await?;
            let call = self.call(Step::StartNew, begun, "");
            let failed = match self.host.calling().await?.start(provider, &call, &instance, &spec).await {
                Ok(found) if found.state == BoxState::Running => None,
                Ok(_) => Some(format!("{provider} started it, and it has ended already")),
                Err(DispatchError::Stale { accepted }) => {
                    self.overtaken(Step::StartNew, begun, accepted).await?;
                    continue;
                }
                Err(DispatchError::Exhausted { why, .. }) => match self.fence(provider).await? {
                    Some(running) if running.contains(&instance) => None,
                    Some(_) => Some(format!("{provider} did not start it: {why}")),
                    None => Some(format!("{provider} does not say whether it runs: {why}")),
                },
                Err(e) => Some(e.to_string()),
            };
            let Some(why) = failed else {
                self.finish(Step::StartNew, begun, StepState::Done, &instance, Effects::default()).await?;
                return Ok(Over::Done);
            };
            return self.not_started(begun, why).await;
        }
        // Newer calls keep coming: somebody else is at work here.
        Err(Halt::GiveUp)
    }

    async fn not_started(&self, begun: Begun, why: String) -> Result<Over, Halt> {
        self.finish(Step::StartNew, begun, StepState::Failed, &why, Effects::default()).await?;
        Ok(Over::Failed(Reason::new("start-new-failed", why)))
    }

    /// Something newer, not a new holder, came before this call: it is begun anew.
    async fn overtaken(&self, step: Step, begun: Begun, by: Fence) -> Result<(), Halt> {
        let detail = format!("by {by}");
        self.finish(step, begun, StepState::Overtaken, &detail, Effects::default()).await
    }

    /// Each of those below by a claim of its own, some at a time; one that has another claim is
    /// waited for, as long as this claim is ours. Looked for again until there is nobody new:
    /// what has fallen asleep meanwhile has others below it.
    async fn children(&self, step: Step, kind: CommandKind) -> Result<Over, Halt> {
        let begun = self.begin(step, None).await?;
        let Hold { workspace_id, claim_id, .. } = self.hold;
        let (mut asked, mut taken, mut left) = (BTreeSet::new(), 0, Vec::new());
        loop {
            let mut along = match kind {
                CommandKind::Pause => self.host.store.awake_below(workspace_id, claim_id).await?,
                _ => self.host.store.taken_along(workspace_id).await?,
            };
            along.retain(|id| !asked.contains(id));
            if along.is_empty() {
                break;
            }
            asked.extend(along.iter().cloned());
            for (id, became) in self.ask_along(along, kind).await {
                match became? {
                    Along::Taken => taken += 1,
                    Along::AsItWas => {}
                    Along::Left(why) => left.push(format!("{id}: {why}")),
                }
            }
        }
        let mut detail = format!("{taken} taken along");
        if !left.is_empty() {
            detail = format!("{detail}; left: {}", left.join("; "));
        }
        self.finish(step, begun, StepState::Done, &detail, Effects::default()).await?;
        Ok(Over::Done)
    }

    async fn ask_along(&self, along: Vec<String>, kind: CommandKind) -> Vec<AskedAlong> {
        let asked: Vec<BoxFuture<'_, AskedAlong>> = along
            .into_iter()
            .map(|id| {
                let asked = async move {
                    let became = self.along(&id, kind).await;
                    (id, became)
                };
                asked.boxed()
            })
            .collect();
        stream::iter(asked).buffer_unordered(CHILDREN_AT_ONCE).collect().await
    }

    async fn along(&self, id: &str, kind: CommandKind) -> Result<Along, Halt> {
        let command = Command { command: kind, actor: "claim".to_owned(), ..Command::remove() };
        loop {
            let asked = self.host.command(id, &command, Some(self.hold)).await;
            match asked.map_err(|e| {
                tracing::warn!(workspace.id = id, "{e}");
                Halt::GiveUp
            })? {
                Commanded::Claimed(_) => return Ok(Along::Taken),
                Commanded::NoEdge(_) | Commanded::Unknown => return Ok(Along::AsItWas),
                Commanded::NoProvider { unknown, .. } => return Ok(Along::Left(unknown.to_string())),
                Commanded::Denied { decision, .. } => {
                    return Ok(Along::Left(format!("denied, decision {}", decision.id)));
                }
                Commanded::Busy { .. } | Commanded::Outran => sleep(CHILD_PAUSE).await,
            }
        }
    }

    fn token(&mut self) -> Result<BoxToken, Halt> {
        if self.token.is_none() {
            let minted = BoxToken::mint();
            self.token = Some(minted.map_err(|e| {
                tracing::error!("no randomness for a token: {e}");
                Halt::GiveUp
            })?);
        }
        self.token.clone().ok_or(Halt::GiveUp)
    }

    async fn spec(&self, token: &BoxToken) -> Result<BoxSpec, Halt> {
        let view = self.host.store.view(&self.hold.workspace_id).await?.ok_or(Halt::Lost)?;
        Ok(BoxSpec {
            kind: view.workspace.kind,
            runtime: view.workspace.runtime,
            tier: view.tier,
            labels: view.workspace.labels,
            persistent_volume: view.workspace.persistent_volume,
            registry_id: self.host.store.registry_id().await?,
            registry_url: self.host.registry_url.clone(),
            token: token.clone(),
        })
    }

    async fn begin(&self, step: Step, new_box: Option<(&str, &TokenHash)>) -> Result<Begun, Halt> {
        let begin = Begin { step: step.as_str(), new_box, lease_ms: self.host.config.lease_ms };
        let begun = self.host.store.begin_step(self.hold, &begin).await?.ok_or(Halt::Lost)?;
        Point::Begun(step).reached(&self.kind);
        Ok(begun)
    }

    async fn finish(
        &self,
        step: Step,
        begun: Begun,
        state: StepState,
        detail: &str,
        effects: Effects<'_>,
    ) -> Result<(), Halt> {
        Point::Called(step).reached(&self.kind);
        let held =
            self.host.store.finish_step(self.hold, begun.number, state, Some(detail), &effects).await?;
        Point::Finished(step).reached(&self.kind);
        if held { Ok(()) } else { Err(Halt::Lost) }
    }

    /// One key for each step of each holder (and, of a fence, each question).
    fn call(&self, step: Step, begun: Begun, what: &str) -> Call {
        let Hold { claim_id, workspace_id, epoch } = self.hold;
        let key = match step {
            Step::Fence => format!("{claim_id}.{epoch}.{step}.{}.{what}", begun.seq),
            _ => format!("{claim_id}.{epoch}.{step}"),
        };
        Call { workspace_id: workspace_id.clone(), fence: Fence { epoch: *epoch, seq: begun.seq }, key }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
