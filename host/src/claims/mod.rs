//! The sagas: commands that touch the world outside the database, and end in
//! commit or rollback whatever happens to the host that carries them out.
//!
//! A claim is opened by [`crate::advance`] in the guarded step that sets its
//! status, so whoever loses that race has done nothing at all. From then on it
//! lives in the database: a row that names its holder's epoch, a lease, and a
//! journal. This host carries it out in a task of its own, whatever becomes of
//! the request; if the host dies, another takes the claim over at the next
//! epoch, fences the provider where a box may have been started, and goes on
//! where the journal ends.
//!
//! | File | Holds |
//! |---|---|
//! | `plan` | the words of it: steps, what undoes each, the plan of every command |
//! | `restart`, `switch_provider`, … | one plan each, read top to bottom |
//! | `saga` | walks a plan, forwards and back |
//! | `doing` | does one step: journal, provider, journal |
//! | `naming` | how boxes are called |
//! | `point` | where a claim can be when its host dies |
//! | `open` | the value that stands for an open claim, and must be spent |
//! | `fits` | what a command needs of its row before anything is claimed |
//! | `config` | how long a claim is its holder's |

mod config;
pub mod create;
mod doing;
mod fits;
pub mod hibernate;
pub mod naming;
mod open;
pub mod pause;
pub mod plan;
mod point;
pub mod restart;
pub mod resume;
mod saga;
pub mod switch_provider;
pub mod wake;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use config::ClaimsConfig;
pub use point::Point;

use crate::advance::{Advance, Advanced};
use crate::facts::{Cause, Command, Decision, Workspace};
use crate::machine::{NoSuchEdge, Status};
use crate::metrics::Metrics;
use crate::provision::{Dispatcher, UnknownProvider};
use crate::store::{
    Claim, ClaimKind, ClaimState, Hold, NewClaim, NewWorkspace, Placed, Snapshot, Still, Store, StoreError,
};
use fits::Asked;
use plan::Step;
use saga::Halt;

/// Lapsed claims that one tick takes over at most.
const TAKEN_AT_ONCE: u32 = 32;

/// Calls to providers that this host has in flight at once, for its claims.
const CALLS_AT_ONCE: usize = 64;

/// How often a claim that another host may hold is looked at while somebody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Who puts idle workspaces to sleep.
const IDLE: &str = "idle";

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Commanded {
    /// Its claim is open, or over already.
    Claimed(Box<Claim>),
    /// A policy denied it; nothing changed.
    Denied {
        status: Status,
        decision: Box<Decision>,
    },
    /// The table has no edge for it from the row's status.
    NoEdge(NoSuchEdge),
    /// Another claim is open on the row. Nothing was done.
    Busy {
        status: Status,
        claim_id: String,
    },
    /// It would need a provider that is not configured here. Nobody was asked.
    NoProvider {
        status: Status,
        unknown: UnknownProvider,
    },
    Unknown,
    Outran,
}

/// Why a command could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    UnknownProvider(#[from] UnknownProvider),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the host is stopping")]
    Stopping,
    #[error("a removal opens no claim")]
    NoClaim,
}

/// Opens claims and carries them out. Cheap to clone.
#[derive(Clone)]
pub struct Claims(Arc<Host>);

/// What every saga of this host stands on.
struct Host {
    store: Store,
    advance: Advance,
    dispatcher: Arc<Dispatcher>,
    metrics: Arc<Metrics>,
    config: ClaimsConfig,
    /// This run of this host: after a restart it is another.
    owner: String,
    /// Where boxes find the registry.
    registry_url: String,
    /// Turns to call a provider.
    calls: Semaphore,
    running: TaskTracker,
    stop: CancellationToken,
    /// Woken whenever a claim ended here.
    ended: Notify,
}

impl Claims {
    pub fn new(
        store: Store,
        advance: Advance,
        dispatcher: Arc<Dispatcher>,
        metrics: Arc<Metrics>,
        config: ClaimsConfig,
        registry_url: String,
    ) -> Self {
        let owner = Uuid::now_v7().to_string();
        let (running, stop, ended) = (TaskTracker::new(), CancellationToken::new(), Notify::new());
        Self(Arc::new(Host {
            store,
            advance,
            dispatcher,
            metrics,
            config,
            owner,
            registry_url,
            calls: Semaphore::new(CALLS_AT_ONCE),
            running,
            stop,
            ended,
        }))
    }

    /// Asks the policies about a command and, where they allow it, opens its
    /// claim and begins to carry it out. Whoever asked may go away meanwhile.
    ///
    /// # Errors
    /// A target that is no configured provider; the database.
    pub async fn command(&self, id: &str, command: Command) -> Result<Commanded, CommandError> {
        if let Some(target) = &command.target_provider {
            self.0.dispatcher.check(target)?;
        }
        let (host, id) = (self.0.clone(), id.to_owned());
        // A request that is dropped between the claim and its task would leave it to the lease.
        let asked = self.0.running.spawn(async move { host.command(&id, &command, None).await });
        asked.await.map_err(|_| CommandError::Stopping)?
    }

    /// [`Claims::command`] by a claim of this id: where there is one already, it
    /// was asked before. With `at`, of the row at that version and no other.
    ///
    /// # Errors
    /// Those of [`Claims::command`].
    pub async fn command_once(
        &self,
        claim_id: &str,
        id: &str,
        command: Command,
        at: Option<i64>,
    ) -> Result<Commanded, CommandError> {
        if let Some(claim) = self.0.store.claim(claim_id).await? {
            return Ok(Commanded::Claimed(Box::new(claim)));
        }
        let (host, id, claim_id) = (self.0.clone(), id.to_owned(), claim_id.to_owned());
        let asked =
            self.0.running.spawn(async move { host.command_as(claim_id, &id, &command, None, at).await });
        asked.await.map_err(|_| CommandError::Stopping)?
    }

    /// Puts to sleep what a sweep found idle for so many milliseconds, if the policies allow it.
    ///
    /// # Errors
    /// The database.
    pub async fn hibernate_idle(
        &self,
        facts: Snapshot,
        idle_ms: u64,
        still: Still,
    ) -> Result<Commanded, CommandError> {
        let host = self.0.clone();
        let asked = self.0.running.spawn(async move {
            let (id, cause) = (facts.workspace.id.clone(), Cause::IdleFor { for_: idle_ms });
            let claim = host.new_claim(ClaimKind::Hibernate, IDLE, None, None);
            let asked = Asked { kind: claim.kind, target: None, forced: false, taken_along: false };
            let fits = |row: &Workspace| host.fits(&asked, row);
            let advanced = host.advance.claim_found(facts, &cause, &claim, &still, &fits).await;
            host.settled(&claim.id, &id, advanced).await
        });
        asked.await.map_err(|_| CommandError::Stopping)?
    }

    /// Creates a workspace; where it has a provider, with the claim that starts
    /// its first box. Whoever asked may go away meanwhile.
    ///
    /// # Errors
    /// No provider of that name is configured; the database.
    pub async fn create(
        &self,
        mut new: NewWorkspace,
        actor: &str,
    ) -> Result<(Placed, NewWorkspace), CommandError> {
        if let Some(provider) = &new.provider {
            self.0.dispatcher.check(provider)?;
            new.claim = Some(self.0.new_claim(ClaimKind::Create, actor, None, None));
        }
        let host = self.0.clone();
        let created = self.0.running.spawn(async move {
            let placed = host.store.create(&new).await?;
            if let (Placed::Done, Some(claim)) = (placed, &new.claim) {
                host.opened(&claim.id, &new.id).await?;
            }
            Ok((placed, new))
        });
        created.await.map_err(|_| CommandError::Stopping)?
    }

    /// The claim once it has ended, or as it stands when `patience` is over. None: there is none.
    ///
    /// # Errors
    /// The database.
    pub async fn wait(&self, claim_id: &str, patience: Duration) -> Result<Option<Claim>, StoreError> {
        let until = Instant::now() + patience;
        loop {
            let ended = self.0.ended.notified();
            let claim = self.0.store.claim(claim_id).await?;
            let over = claim.as_ref().is_none_or(|claim| claim.state != ClaimState::Open);
            if over || Instant::now() >= until {
                return Ok(claim);
            }
            let look = (Instant::now() + LOOK_AGAIN).min(until);
            tokio::select! {
                // A host that stops answers with what it has.
                () = self.0.stop.cancelled() => return Ok(claim),
                _ = timeout_at(look, ended) => {}
            }
        }
    }

    /// Takes over claims whose lease lapsed; how many.
    ///
    /// # Errors
    /// The database; the next tick is the retry.
    pub async fn take_over(&self) -> Result<usize, StoreError> {
        let host = &self.0;
        let steps = Step::ALL.map(Step::as_str);
        let foreign = host.store.foreign_claims(&steps).await?;
        if host.metrics.foreign_claims(foreign) < foreign {
            tracing::warn!(
                claims = foreign,
                "open claims of a later version's kind are left to hosts that know it"
            );
        }
        let mut taken = 0;
        for lapsed in host.store.lapsed_claims(&steps, TAKEN_AT_ONCE).await? {
            let hold = host.store.take_over(&lapsed, &host.owner, host.config.lease_ms).await?;
            if let Some(hold) = hold {
                tracing::warn!(
                    claim.id = hold.claim_id,
                    claim.epoch = hold.epoch,
                    workspace.id = hold.workspace_id,
                    "a claim's lease lapsed; it is taken over"
                );
                host.metrics.claims_taken_over.inc();
                host.carry_out(hold, true);
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// How long a claim of this host is its own without a word from it, in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        self.0.config.lease_ms
    }

    /// How often [`Claims::take_over`] is to be called.
    pub fn tick_every(&self) -> Duration {
        Duration::from_millis(self.0.config.tick_ms.max(10))
    }

    /// Gives up what is under way, so that another host can take it over at once.
    pub async fn shut_down(&self) {
        self.0.stop.cancel();
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// The names of the configured providers.
    pub fn providers(&self) -> Vec<String> {
        self.0.dispatcher.names()
    }
}

impl Host {
    fn new_claim(
        &self,
        kind: ClaimKind,
        actor: &str,
        parent: Option<&Hold>,
        target_provider: Option<String>,
    ) -> NewClaim {
        NewClaim {
            id: Uuid::now_v7().to_string(),
            kind,
            actor: actor.to_owned(),
            parent: parent.map(|parent| (parent.claim_id.clone(), parent.epoch)),
            owner: self.owner.clone(),
            lease_ms: self.config.lease_ms,
            target_provider,
        }
    }

    async fn command(
        self: &Arc<Self>,
        id: &str,
        command: &Command,
        parent: Option<&Hold>,
    ) -> Result<Commanded, CommandError> {
        self.command_as(Uuid::now_v7().to_string(), id, command, parent, None).await
    }

    async fn command_as(
        self: &Arc<Self>,
        claim_id: String,
        id: &str,
        command: &Command,
        parent: Option<&Hold>,
        at: Option<i64>,
    ) -> Result<Commanded, CommandError> {
        let kind = ClaimKind::of(command.command).ok_or(CommandError::NoClaim)?;
        let target = command.target_provider.clone();
        let claim = NewClaim { id: claim_id, ..self.new_claim(kind, &command.actor, parent, target) };
        let target = command.target_provider.as_deref();
        let asked = Asked { kind, target, forced: command.force, taken_along: parent.is_some() };
        let fits = |row: &Workspace| self.fits(&asked, row);
        let advanced = self.advance.command(id, command, &claim, at, &fits).await;
        self.settled(&claim.id, id, advanced).await
    }

    /// What an attempt to open this claim came to; where it is open, it is carried out.
    async fn settled(
        self: &Arc<Self>,
        claim_id: &str,
        id: &str,
        advanced: Result<Advanced, StoreError>,
    ) -> Result<Commanded, CommandError> {
        let advanced = match advanced {
            Err(error) => match self.opened(claim_id, id).await {
                // The answer was lost, and not the claim.
                Ok(Some(open)) => return Ok(Commanded::Claimed(Box::new(open))),
                _ => return Err(error.into()),
            },
            Ok(advanced) => advanced,
        };
        Ok(match advanced {
            Advanced::Moved { .. } => match self.opened(claim_id, id).await? {
                Some(open) => Commanded::Claimed(Box::new(open)),
                // Gone already means: it never was, or its workspace is no more.
                None => Commanded::Unknown,
            },
            Advanced::Held { status, decision } => Commanded::Denied { status, decision: Box::new(decision) },
            Advanced::Claimed { status, claim_id } => Commanded::Busy { status, claim_id },
            Advanced::NoEdge(none) => Commanded::NoEdge(none),
            Advanced::NoProvider { status, unknown } => Commanded::NoProvider { status, unknown },
            Advanced::Unknown => Commanded::Unknown,
            Advanced::Outran | Advanced::TokenTaken | Advanced::TokenDead => Commanded::Outran,
        })
    }

    /// The claim, if it was opened; then this host begins to carry it out. One
    /// that another host has taken over meanwhile is that host's, whose epoch it has.
    async fn opened(self: &Arc<Self>, claim_id: &str, id: &str) -> Result<Option<Claim>, StoreError> {
        let Some(open) = self.store.claim(claim_id).await? else { return Ok(None) };
        Point::Opened.reached(&open.kind);
        self.metrics.claim_opened(&open.kind);
        if open.takeovers == 0 && open.state == ClaimState::Open {
            let hold = Hold { claim_id: claim_id.to_owned(), workspace_id: id.to_owned(), epoch: open.epoch };
            self.carry_out(hold, false);
        }
        Ok(Some(open))
    }

    /// A turn to call a provider: so many at once, in the whole host.
    async fn calling(&self) -> Result<Calling<'_>, Halt> {
        let turn = self.calls.acquire().await.map_err(|_| Halt::Stopping)?;
        Ok(Calling { dispatcher: &self.dispatcher, _turn: turn })
    }

    /// In a task of its own.
    fn carry_out(self: &Arc<Self>, hold: Hold, taken_over: bool) {
        self.running.spawn(saga::carry_out(self.clone(), hold, taken_over));
    }
}

/// The dispatcher, for the one call that this turn is for.
struct Calling<'a> {
    dispatcher: &'a Dispatcher,
    _turn: SemaphorePermit<'a>,
}

impl Deref for Calling<'_> {
    type Target = Dispatcher;

    fn deref(&self) -> &Dispatcher {
        self.dispatcher
    }
}
