//! What the sweeps share: rows are taken, all of them judged, the brake is asked
//! about those that would go down, and only then is anything written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::driver::Tally;
use super::trust::Trust;
use crate::advance::{Advance, Found, Look, Settled};
use crate::facts::{Cause, Timestamp};
use crate::store::{
    BrakeLimits, BrakeState, ByProvider, Down, Due, FLEET, Snapshot, Still, Store, StoreError, Sweep,
    provider_scope,
};

/// Rows that were heard of meanwhile, moved by one statement.
const REARMED_AT_ONCE: u32 = 2_000;

/// How long a tick spends on those before it looks for what is due.
const REARMING: Duration = Duration::from_secs(10);

/// A row that was taken is due again this share of the interval before the next
/// tick, which may come a little earlier than the last one did.
const EARLY: u64 = 20;

/// What was judged is written within this time or not at all, in milliseconds of the database's.
const FRESH_MS: u64 = 5_000;

/// Steps that one sweep writes at once.
const WRITES_AT_ONCE: usize = 8;

/// What every sweep stands on.
pub(super) struct Sweeper {
    pub(super) store: Store,
    pub(super) advance: Advance,
    pub(super) trust: Arc<Trust>,
    pub(super) limits: BrakeLimits,
    pub(super) rows: u32,
}

/// What one taking brought.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) due: Vec<Due>,
    /// There may be more.
    pub(super) full: bool,
}

/// What a sweep goes by.
pub(super) struct Evidence {
    /// What speaks for going down.
    pub(super) asked: Vec<Asked>,
    /// Of how many rows of each provider it was chosen.
    pub(super) of: ByProvider,
    /// There may be more.
    pub(super) full: bool,
}

impl Evidence {
    /// Every row of a batch, each because of what is known of it.
    pub(super) fn of_all(Batch { due, full }: Batch, cause: impl Fn(&Due) -> Cause) -> Self {
        let mut of = ByProvider::new();
        let asked = due.into_iter().map(|due| {
            count(&mut of, due.facts.workspace.provider.as_deref());
            let cause = cause(&due);
            Asked::of(due.facts, due.taken_at, cause)
        });
        Self { asked: asked.collect(), of, full }
    }
}

/// Counts one row of this provider.
pub(super) fn count(of: &mut ByProvider, provider: Option<&str>) {
    *of.entry(provider.map(str::to_owned)).or_default() += 1;
}

/// One row, and why it is looked at.
pub(super) struct Asked {
    facts: Snapshot,
    cause: Cause,
    still: Still,
}

impl Asked {
    pub(super) fn of(facts: Snapshot, taken_at: Timestamp, cause: Cause) -> Self {
        Self { still: still(&facts, taken_at), facts, cause }
    }
}

/// What must be so when the step is written.
pub(super) fn still(facts: &Snapshot, taken_at: Timestamp) -> Still {
    Still {
        last_heartbeat_at: facts.workspace.last_heartbeat_at,
        instance_id: facts.workspace.instance_id.clone(),
        taken_at,
        until: taken_at + FRESH_MS,
        down: None,
    }
}

impl Sweeper {
    /// Takes what is due, unless this host has reason to suspect itself; it is
    /// due again at the next tick, `every_ms` from now.
    pub(super) async fn take(
        &self,
        sweep: Sweep,
        after_ms: u64,
        every_ms: u64,
        tally: &mut Tally,
    ) -> Result<Batch, StoreError> {
        self.take_some(sweep, after_ms, every_ms, self.rows, tally).await
    }

    /// [`Sweeper::take`], no more than so many rows.
    pub(super) async fn take_some(
        &self,
        sweep: Sweep,
        after_ms: u64,
        every_ms: u64,
        rows: u32,
        tally: &mut Tally,
    ) -> Result<Batch, StoreError> {
        if let Err(distrust) = self.trust.vouch(None) {
            tally.skip(distrust.0);
            return Ok(Batch::default());
        }
        let begun = Instant::now();
        let (all, at_once) = (u64::from(REARMED_AT_ONCE), REARMED_AT_ONCE);
        while self.store.recall(sweep, after_ms, every_ms, at_once).await? >= all
            && begun.elapsed() < REARMING
        {}
        while self.store.rearm(sweep, after_ms, every_ms, at_once).await? >= all && begun.elapsed() < REARMING
        {
        }
        let again_ms = every_ms - every_ms / EARLY;
        let taken = self.store.take_due(sweep, after_ms, again_ms, rows).await?;
        let looked = taken.due.len() + taken.unreadable.len();
        tally.looked += u64::try_from(looked).unwrap_or(u64::MAX);
        for error in taken.unreadable {
            tracing::error!(error = &error as &dyn std::error::Error, "a row is left as it is");
            tally.skip("unreadable");
        }
        let full = looked >= usize::try_from(rows).unwrap_or(usize::MAX);
        let newest = taken.due.iter().map(|due| due.taken_at).max();
        if let (Some(now), Err(distrust)) = (newest, self.trust.vouch(newest)) {
            tracing::warn!(reason = distrust.0, now, "this sweep is left out");
            tally.skip_many(distrust.0, taken.due.len());
            return Ok(Batch::default());
        }
        Ok(Batch { due: taken.due, full })
    }

    /// Judges all of them, and writes what policies and brake let go down.
    pub(super) async fn flip(
        &self,
        sweep: Sweep,
        after_ms: u64,
        Evidence { asked, of, full }: Evidence,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let mut down = Vec::new();
        for Asked { facts, cause, mut still } in asked {
            // What does not live yet is no share of what lives.
            if facts.workspace.status.lives() {
                let provider = facts.workspace.provider.clone();
                still.down = Some(Down { provider, limits: self.limits });
            }
            let look = self.advance.look(facts, &cause, &still).await;
            match tolerated(look, tally)? {
                None => {}
                Some(Look::Claimed) => tally.skip("claimed"),
                Some(Look::NoEdge) => tally.skip("no-edge"),
                Some(Look::Found(found)) if found.moves().is_some() => down.push(*found),
                Some(Look::Found(found)) => {
                    let settled = self.advance.settle(*found).await;
                    self.settled(tolerated(settled, tally)?, tally);
                }
            }
        }
        tally.more = full;
        if down.is_empty() {
            return Ok(());
        }
        // What does not live yet is held where the brake holds, and asks for nothing.
        let mut held = Held::default();
        if down.iter().any(|found| !found.lives()) {
            held = self.held().await?;
        }
        let mut wanted = wanted(&down);
        if !wanted.is_empty() {
            if full {
                self.foresee(sweep, after_ms, &of, &mut wanted).await?;
            }
            held.0.extend(self.store.ask_brake(&wanted, &self.limits).await?);
        }
        let (braked, free): (Vec<_>, Vec<_>) =
            down.into_iter().partition(|found| held.includes(found.provider()));
        if !braked.is_empty() {
            tally.skip_many("braked", braked.len());
            // What is held waits for its turn, and not for this host to go through all of it.
            tally.more = false;
        }
        self.write(free, tally).await
    }

    /// Where the brake lets nothing down just now.
    pub(super) async fn held(&self) -> Result<Held, StoreError> {
        let states = self.store.brake_states().await?.into_iter();
        Ok(Held(states.filter(|(_, state)| *state == BrakeState::Held).map(|(scope, _)| scope).collect()))
    }

    async fn write(&self, down: Vec<Found>, tally: &mut Tally) -> Result<(), StoreError> {
        let mut refused = ByProvider::new();
        let settle = down.into_iter().map(|found| async {
            let provider = found.provider().map(str::to_owned);
            (provider, self.advance.settle(found).await)
        });
        let mut settled = futures::stream::iter(settle).buffer_unordered(WRITES_AT_ONCE);
        while let Some((provider, settled)) = settled.next().await {
            let settled = tolerated(settled, tally)?;
            if settled == Some(Settled::Braked) {
                count(&mut refused, provider.as_deref());
            }
            self.settled(settled, tally);
        }
        if !refused.is_empty() {
            // The others of this fleet were faster: together it is too much.
            self.store.ask_brake(&refused, &self.limits).await?;
            tally.more = false;
        }
        Ok(())
    }

    fn settled(&self, settled: Option<Settled>, tally: &mut Tally) {
        match settled {
            None => {}
            Some(Settled::Moved { .. }) => tally.flipped += 1,
            Some(Settled::Held) => tally.skip("held"),
            Some(Settled::Outran) => tally.skip("outran"),
            Some(Settled::Braked) => tally.skip("braked"),
        }
    }

    /// Adds what waits behind this batch, as far as it is like the batch.
    async fn foresee(
        &self,
        sweep: Sweep,
        after_ms: u64,
        of: &ByProvider,
        wanted: &mut ByProvider,
    ) -> Result<(), StoreError> {
        let brakes = self.store.brakes(&self.limits).await?;
        let live = brakes.iter().find(|brake| brake.scope == FLEET).map_or(0, |brake| brake.live);
        let enough = self.limits.bound(live).saturating_mul(2).saturating_add(1);
        let (of_all, all_wanted) = (of.values().sum::<u64>(), wanted.values().sum::<u64>());
        for (provider, waiting) in self.store.waiting(sweep, after_ms, enough).await? {
            // Of a provider that the batch had none of, the whole batch has to do.
            let (would, of) = match of.get(&provider) {
                Some(of) => (wanted.get(&provider).copied().unwrap_or(0), *of),
                None => (all_wanted, of_all),
            };
            if would > 0 {
                *wanted.entry(provider).or_default() += (waiting * would).div_ceil(of);
            }
        }
        Ok(())
    }
}

/// The scopes in which nothing goes down.
#[derive(Default)]
pub(super) struct Held(BTreeSet<String>);

impl Held {
    pub(super) fn includes(&self, provider: Option<&str>) -> bool {
        self.0.contains(FLEET) || provider.is_some_and(|p| self.0.contains(&provider_scope(p)))
    }
}

/// One row's trouble is not the others'; a database that is away is everybody's.
pub(super) fn tolerated<T>(
    looked: Result<T, StoreError>,
    tally: &mut Tally,
) -> Result<Option<T>, StoreError> {
    match looked {
        Ok(looked) => Ok(Some(looked)),
        Err(error) if error.is_unavailable() => Err(error),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a row is left as it is");
            tally.skip("failed");
            Ok(None)
        }
    }
}

/// How many of those that live would go down, by provider.
fn wanted(down: &[Found]) -> ByProvider {
    let mut wanted = ByProvider::new();
    for found in down.iter().filter(|found| found.lives()) {
        count(&mut wanted, found.provider());
    }
    wanted
}
