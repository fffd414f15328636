//! One delivery of each kind of effect. Each may happen twice, and does no more
//! than once would: a stop names a box, a restart its claim, a delivery and a
//! notice carry a key.

use serde_json::json;

use super::{Delivered, Worker, plugins};
use crate::claims::{CommandError, Commanded};
use crate::facts::{Action, Command, CommandKind, Reason};
use crate::machine::Status;
use crate::provision::{BoxStatus, Call, DispatchError, Fence, Plugin};
use crate::store::{Effect, OwedStop, STOP, Snapshot, StoreError};

impl Worker {
    pub(super) async fn once(&self, effect: &Effect) -> Result<Delivered, StoreError> {
        if effect.kind == STOP {
            return self.stop(effect).await;
        }
        match serde_json::from_value::<Action>(effect.body["action"].clone()) {
            Ok(Action::ReconcilePlugins) => self.reconcile(effect).await,
            Ok(Action::Restart) => self.restart(effect).await,
            Ok(Action::StopInstance) => self.stop_strays(effect).await,
            Ok(Action::Notify(subject)) => self.notify(effect, &subject).await,
            Err(_) => {
                Ok(Delivered::Hopeless(format!("its body is no {} that this version knows", effect.kind)))
            }
        }
    }

    /// A box that nobody could stop, or whose workspace is removed.
    async fn stop(&self, effect: &Effect) -> Result<Delivered, StoreError> {
        let Ok(owed) = serde_json::from_value::<OwedStop>(effect.body.clone()) else {
            return Ok(Delivered::Elsewhere("its body is no owed stop that this version knows".to_owned()));
        };
        self.stop_box(effect, &owed.provider, &owed.instance_id).await
    }

    async fn stop_box(
        &self,
        effect: &Effect,
        provider: &str,
        instance_id: &str,
    ) -> Result<Delivered, StoreError> {
        if let Err(unknown) = self.dispatcher.check(provider) {
            return Ok(Delivered::Elsewhere(unknown.to_string()));
        }
        // A refusal finishes its key too, and must not be the last word; stopping twice is stopping once.
        let key = format!("{}.{}.{instance_id}", effect.id, effect.attempts);
        let Some(call) = self.call(effect, key).await? else { return Ok(Delivered::Done) };
        Ok(match self.dispatcher.stop(provider, &call, instance_id).await {
            Ok(_) => Delivered::Done,
            Err(DispatchError::Stale { accepted }) => Delivered::Failed(format!("overtaken by {accepted}")),
            Err(e) => Delivered::Failed(e.to_string()),
        })
    }

    /// Whatever runs of a workspace that should have nothing running.
    async fn stop_strays(&self, effect: &Effect) -> Result<Delivered, StoreError> {
        let Some(row) = self.store.snapshot(&effect.workspace_id).await? else { return Ok(Delivered::Done) };
        let down = [Status::Paused, Status::Hibernated, Status::Removed];
        if row.claim_id.is_some() || !down.contains(&row.workspace.status) {
            return Ok(Delivered::Noted("it may run again; left alone".to_owned()));
        }
        let Some(provider) = row.workspace.provider else { return Ok(Delivered::Done) };
        let key = format!("{}.{}.fence", effect.id, effect.attempts);
        let Some(call) = self.call(effect, key).await? else { return Ok(Delivered::Done) };
        let running: Vec<BoxStatus> = match self.dispatcher.fence(&provider, &call).await {
            Ok(running) => running,
            Err(e) => return Ok(Delivered::Failed(e.to_string())),
        };
        for stray in running {
            let stopped = self.stop_box(effect, &provider, &stray.instance_id).await?;
            if !matches!(stopped, Delivered::Done) {
                return Ok(stopped);
            }
        }
        Ok(Delivered::Done)
    }

    /// What a workspace should have, into the box that it has now. A delivery
    /// that fails is not repeated here: it is asked for again, once in a window.
    async fn reconcile(&self, effect: &Effect) -> Result<Delivered, StoreError> {
        let Some(row) = self.store.snapshot(&effect.workspace_id).await? else { return Ok(Delivered::Done) };
        if row.claim_id.is_some() {
            return Ok(Delivered::Failed("a claim is open on it".to_owned()));
        }
        let workspace = row.workspace;
        let (Some(provider), Some(instance)) = (&workspace.provider, &workspace.instance_id) else {
            return Ok(Delivered::Noted("it has no box".to_owned()));
        };
        let declared = self.store.declared_plugins(&effect.workspace_id).await?;
        if let Err(e) = plugins::check(&workspace.kind, &declared, &self.config.privileged_plugins) {
            return Ok(Delivered::Hopeless(e.to_string()));
        }
        let declared: Vec<_> =
            declared.into_iter().map(|p| Plugin { name: p.name, version: p.version }).collect();
        // A refusal finishes its key: another box, and a person's retry, need another.
        let parked_at = effect.ended_at.map_or(String::new(), |at| format!(".{at}"));
        let key = format!("{}.{instance}{parked_at}", effect.id);
        let Some(call) = self.call(effect, key).await? else { return Ok(Delivered::Done) };
        let error = match self.dispatcher.deliver(provider, &call, instance, &declared).await {
            Ok(()) => return Ok(Delivered::Done),
            Err(DispatchError::Stale { accepted }) => {
                return Ok(Delivered::Failed(format!("overtaken by {accepted}")));
            }
            Err(error) => error.to_string(),
        };
        // A command may have taken the box away meanwhile; then it is for the next one.
        let row = self.store.snapshot(&effect.workspace_id).await?;
        let same =
            |row: &Snapshot| row.claim_id.is_none() && row.workspace.instance_id.as_ref() == Some(instance);
        Ok(if row.as_ref().is_some_and(same) { Delivered::Hopeless(error) } else { Delivered::Failed(error) })
    }

    /// By a claim whose id is the effect's: a second delivery finds it there. It
    /// was owed for the row as it was: one that has come back meanwhile needs none.
    async fn restart(&self, effect: &Effect) -> Result<Delivered, StoreError> {
        let command =
            Command { command: CommandKind::Restart, actor: "recovery".to_owned(), ..Command::remove() };
        let at = effect.body["version"].as_i64();
        let asked = self.claims.command_once(&effect.id, &effect.workspace_id, command, at).await;
        Ok(match asked {
            Ok(Commanded::Claimed(_) | Commanded::Unknown) => Delivered::Done,
            Ok(Commanded::NoEdge(none)) => Delivered::Noted(none.to_string()),
            Ok(Commanded::NoProvider { unknown, .. }) => Delivered::Elsewhere(unknown.to_string()),
            Ok(Commanded::Denied { decision, .. }) => {
                Delivered::Noted(format!("denied, decision {}", decision.id))
            }
            Ok(Commanded::Busy { claim_id, .. }) => {
                Delivered::Noted(format!("claim {claim_id} is under way and starts it anew"))
            }
            Ok(Commanded::Outran) => match self.store.snapshot(&effect.workspace_id).await? {
                Some(row) if at.is_some_and(|at| at != row.version) => {
                    Delivered::Noted(format!("it is {} since; left alone", row.workspace.status))
                }
                _ => Delivered::Failed("it changed each time it was judged".to_owned()),
            },
            Err(CommandError::Store(error)) => return Err(error),
            Err(e) => Delivered::Failed(e.to_string()),
        })
    }

    async fn notify(&self, effect: &Effect, subject: &str) -> Result<Delivered, StoreError> {
        let reason: Option<Reason> = serde_json::from_value(effect.body["reason"].clone()).ok();
        let detail = reason.as_ref().and_then(|r| r.detail.clone()).unwrap_or_default();
        tracing::warn!(workspace.id = effect.workspace_id, notice = subject, "{detail}");
        let Some(webhook) = &self.webhook else {
            return Ok(Delivered::Noted("no notify.url is configured; it is in the log".to_owned()));
        };
        let body = json!({
            "type": format!("workspace.{subject}"),
            "timestamp": crate::clock::rfc3339(effect.created_at),
            "data": {
                "workspace_id": effect.workspace_id,
                "subject": subject,
                "reason": reason,
                "decision_id": effect.body["decision_id"],
            },
        });
        Ok(match webhook.send(&effect.id, &body).await {
            Ok(()) => Delivered::Done,
            Err(why) => Delivered::Failed(why),
        })
    }

    /// Under the row's next fence; None where there is no such row.
    async fn call(&self, effect: &Effect, key: String) -> Result<Option<Call>, StoreError> {
        let fence = self.store.next_fence(&effect.workspace_id).await?;
        let workspace_id = effect.workspace_id.clone();
        Ok(fence.map(|(epoch, seq)| Call { workspace_id, fence: Fence { epoch, seq }, key }))
    }
}
