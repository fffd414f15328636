//! Strays: boxes that run and that no row names. A registry that was lost, restored
//! or replaced leaves some, and so does a start whose answer nobody got. Providers are
//! asked for all that they run; what no row names is kept and shown, and stopped after
//! a grace where it carries this registry's identity.
//!
//! A stray that speaks is the policies' to judge (`stray-box`) and is stopped there
//! and then. This loop finds those that say nothing, or that nobody knows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream;

use super::config::LoopsConfig;
use super::driver::{Tally, Tick};
use super::trust::Trust;
use crate::claims::naming::epoch_of;
use crate::metrics::Metrics;
use crate::provision::{BoxState, Call, DispatchError, Dispatcher, Fence, ListedBox};
use crate::store::{BrakeLimits, SeenBox, Sighted, Store, StoreError, Stray, StrayTaken, Unnamed};

/// A tick may come a little earlier than the last one did.
const EARLY: u64 = 20;

/// How often one stop is tried at once under a newer fence.
const OVERTAKEN: u32 = 3;

/// Strays that one host stops at once.
const STOPS_AT_ONCE: usize = 8;

/// The lists, and then the stops: each is answered or given up within seconds.
const LIMIT: Duration = Duration::from_secs(240);

pub(super) struct Strays {
    pub(super) store: Store,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) trust: Arc<Trust>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) config: LoopsConfig,
    pub(super) limits: BrakeLimits,
}

impl Tick for Strays {
    fn name(&self) -> &'static str {
        "strays"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.config.strays_ms)
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        Box::pin(async {
            let mut tally = Tally::default();
            if let Err(distrust) = self.trust.vouch(Some(self.store.now().await?)) {
                tally.skip(distrust.0);
                return Ok(tally);
            }
            self.store.registry_id().await?;
            let every = self.config.strays_ms;
            if self.store.strays_turn(every - every / EARLY).await? {
                let answered = self.look(&mut tally).await?;
                self.stop_all(&answered, &mut tally).await?;
            } else {
                tally.skip("counted-by-another");
            }
            self.metrics.strays(self.store.stray_counts().await?);
            Ok(tally)
        })
    }
}

impl Strays {
    /// Asks every provider what it runs; those that have said so.
    async fn look(&self, tally: &mut Tally) -> Result<Vec<String>, StoreError> {
        let providers = self.dispatcher.names();
        self.store.forget_strays_beside(&providers).await?;
        let lists = providers.iter().map(|provider| self.running(provider));
        let mut answered = Vec::new();
        for (provider, running) in providers.iter().zip(join_all(lists).await) {
            let Some(running) = running else {
                tally.skip("provider-error");
                continue;
            };
            let seen: Vec<_> = running.into_iter().map(seen).collect();
            let (mut sighted, new) = self.store.sighted(provider, &seen).await?;
            if !new.is_empty() && !self.keep(provider, new, &mut sighted).await? {
                tally.skip("provider-error");
            }
            tally.looked += u64::try_from(seen.len()).unwrap_or(u64::MAX);
            told(provider, &sighted, tally);
            answered.push(provider.clone());
        }
        Ok(answered)
    }

    /// What a provider runs now. None: it does not say.
    async fn running(&self, provider: &str) -> Option<Vec<ListedBox>> {
        match self.dispatcher.list(provider).await {
            Ok(mut listed) => {
                listed.retain(|one| one.state == BoxState::Running);
                Some(listed)
            }
            Err(error) => {
                tracing::warn!(provider, "no answer about what it runs: {error}");
                None
            }
        }
    }

    /// Keeps what still runs, now that no row has named it; false: the provider does not say.
    async fn keep(
        &self,
        provider: &str,
        mut new: Vec<Unnamed>,
        sighted: &mut Sighted,
    ) -> Result<bool, StoreError> {
        let Some(running) = self.running(provider).await else { return Ok(false) };
        let running: HashSet<_> = running.iter().map(|one| (&*one.workspace_id, &*one.instance_id)).collect();
        new.retain(|one| running.contains(&one.names()));
        self.store.keep_strays(provider, new, sighted).await?;
        Ok(true)
    }

    async fn stop_all(&self, answered: &[String], tally: &mut Tally) -> Result<(), StoreError> {
        if !self.config.strays_stop {
            return Ok(());
        }
        let LoopsConfig { strays_grace_ms: grace, strays_quiet_ms: quiet, .. } = self.config;
        self.store.ask_brake_for_strays(grace, quiet, &self.limits).await?;
        let due = self.store.due_strays(grace, quiet, self.config.rows).await?;
        // What was not listed just now may be something else by now.
        let due = due.into_iter().filter(|stray| answered.contains(&stray.provider));
        let mut stops = stream::iter(due.map(|stray| self.stop(stray))).buffer_unordered(STOPS_AT_ONCE);
        while let Some(stopped) = stops.next().await {
            match stopped? {
                None => tally.flipped += 1,
                Some(why) => tally.skip(why),
            }
        }
        Ok(())
    }

    /// Why it was not stopped, if so.
    async fn stop(&self, stray: Stray) -> Result<Option<&'static str>, StoreError> {
        let LoopsConfig { strays_grace_ms: grace, strays_quiet_ms: quiet, .. } = self.config;
        let attempts = match self.store.take_stray(&stray, grace, quiet, &self.limits).await? {
            StrayTaken::Yes(attempts) => attempts,
            StrayTaken::No => return Ok(Some("moved")),
            StrayTaken::Held(_) => return Ok(Some("braked")),
        };
        match self.stopped(&stray, attempts).await? {
            Ok(()) => {
                self.store.stray_stopped(&stray).await?;
                tracing::warn!(
                    provider = stray.provider,
                    workspace.id = stray.workspace_id,
                    instance.id = stray.instance_id,
                    reason = stray.why,
                    "stopped a box that no row names"
                );
                Ok(None)
            }
            Err(why) => {
                tracing::warn!(
                    provider = stray.provider,
                    workspace.id = stray.workspace_id,
                    instance.id = stray.instance_id,
                    "a box that no row names is not stopped: {why}"
                );
                self.store.stray_not_stopped(&stray, &why).await?;
                Ok(Some("not-stopped"))
            }
        }
    }

    /// Stops it, under a fence that its provider accepts. The row's own counter may be
    /// older than that, or there may be no row: then what the provider says counts.
    async fn stopped(&self, stray: &Stray, attempts: u32) -> Result<Result<(), String>, StoreError> {
        let id = &stray.workspace_id;
        let mut guess = Fence { epoch: stray.epoch.unwrap_or_default(), seq: 1 };
        let mut why = String::new();
        for turn in 0..OVERTAKEN {
            let drawn = self.store.next_fence(id).await?;
            let fence = drawn.map_or(guess, |(epoch, seq)| Fence { epoch, seq });
            let key = format!("{}.{attempts}.{turn}", stray.id);
            let call = Call { workspace_id: id.clone(), fence, key };
            match self.dispatcher.stop_once(&stray.provider, &call, &stray.instance_id).await {
                Ok(_) => return Ok(Ok(())),
                Err(DispatchError::Stale { accepted }) => {
                    why = format!("overtaken by {accepted}");
                    guess = Fence { seq: accepted.seq.saturating_add(1), ..accepted };
                    if drawn.is_some() {
                        self.store.catch_up(id, accepted.epoch, accepted.seq).await?;
                    }
                }
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(Err(why))
    }
}

fn seen(listed: ListedBox) -> SeenBox {
    SeenBox {
        epoch: epoch_of(&listed.workspace_id, &listed.instance_id),
        workspace_id: listed.workspace_id,
        instance_id: listed.instance_id,
        registry_id: listed.registry_id,
    }
}

fn told(provider: &str, sighted: &Sighted, tally: &mut Tally) {
    tally.skip_some("named", sighted.named);
    tally.skip_some("owed", sighted.owed);
    tally.skip_some("found", sighted.found);
    tally.skip_some("gone", sighted.gone);
    tally.skip_some("too-many", sighted.too_many);
    if sighted.restored {
        tracing::error!(
            provider,
            "boxes of this registry are newer than its database: it was restored from an older copy, or \
             another host works on a copy of it. For now no box is stopped that no row names"
        );
    } else if sighted.found > 0 {
        tracing::warn!(provider, found = sighted.found, "boxes run that no row names");
    }
    if sighted.too_many > 0 {
        tracing::warn!(provider, left_out = sighted.too_many, "too many boxes that no row names");
    }
}
