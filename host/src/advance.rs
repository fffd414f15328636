//! The one path that changes a status.
//!
//! Facts → candidates → guard → commit. Whatever wants a change (a heartbeat, a
//! registration, an operator, a loop, a claim) comes through
//! here, and nothing else in the host may ask the store for a [`Step`] with a
//! transition. No transaction is open while guest code runs; the commit names
//! the version that was judged, and where somebody else moved the row first,
//! everything of the step is discarded and it starts again from new facts.

mod motion;
mod removal;
mod sweep;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use uuid::Uuid;

pub use removal::{MAX_SUBTREE, Removal};
pub use sweep::{Found, Look, Settled};

use crate::die_at;
use crate::facts::{
    Answer, Bound, Cause, Command, Decision, Denial, Fault, Outcome, Question, Reason, Workspace,
};
use crate::machine::{Edge, NoSuchEdge, Status};
use crate::metrics::Metrics;
use crate::policy::Revision;
use crate::provision::UnknownProvider;
use crate::revisions::Active;
use crate::store::{
    Commit, Credential, Ended, Ending, Hold, NewClaim, Registration, Snapshot, Step, Still, Store, StoreError,
};

/// How often a step that was outrun starts again from new facts.
pub const ATTEMPTS: usize = 3;

/// What became of one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Advanced {
    /// The status changed, and it is in the database.
    Moved { to: Status, decision: Decision },
    /// Policies were asked and nothing changed; the row's status as judged.
    Held { status: Status, decision: Decision },
    /// A claim is open on the row: only its holder changes the status. Nobody was asked.
    Claimed { status: Status, claim_id: String },
    /// The command needs a provider that is not configured here. Nobody was asked.
    NoProvider { status: Status, unknown: UnknownProvider },
    /// The table has no edge for this cause from this status; nobody was asked.
    NoEdge(NoSuchEdge),
    /// No such workspace.
    Unknown,
    /// A first token was asked for, but the workspace has a live one.
    TokenTaken,
    /// The agent's token has ended since it was looked at. Nothing was written.
    TokenDead,
    /// Somebody else moved the row each of [`ATTEMPTS`] times. Nothing was written.
    Outran,
}

/// Why a command is not one for a row, whatever policies would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It needs a provider that is not configured here.
    NoProvider(UnknownProvider),
    /// It takes along what is awake, and this is asleep.
    Asleep,
}

/// Looks at the facts on which a command is about to be judged.
pub type Fits<'a> = &'a (dyn Fn(&Workspace) -> Result<(), Unfit> + Send + Sync);

/// Where a test stands between the read and the write of a step.
pub trait Between: Send + Sync {
    /// Called when `workspace_id` has been judged and nothing is written yet.
    fn judged<'a>(&'a self, workspace_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// The path, with what it stands on.
#[derive(Clone)]
pub struct Advance {
    store: Store,
    active: Active,
    metrics: Arc<Metrics>,
    /// One in this many decisions is kept that nobody asked for by name, and
    /// that moved and denied nothing.
    sample: u64,
    /// Told of every committed step, so that event streams wake at once.
    changed: Arc<Notify>,
    /// Told of every committed step that owes something.
    owed: Arc<OnceLock<Arc<Notify>>>,
    between: Option<Arc<dyn Between>>,
}

/// What a step writes beside a status and its decision.
#[derive(Clone, Copy, Default)]
struct With<'a> {
    registration: Option<&'a Registration>,
    /// A claim, opened with the transition.
    claim: Option<&'a NewClaim>,
    /// Of the agent whose word it is: with a dead token it has none.
    credential: Option<Credential>,
    /// Of a sweep: what must still be so.
    still: Option<&'a Still>,
    /// The only version that it is meant for.
    at: Option<i64>,
    /// Of a command: whether it is one for the row at all.
    fits: Option<Fits<'a>>,
}

/// A row judged and not yet written.
struct Judged {
    step: Step,
    decision: Decision,
}

impl Advance {
    /// `sample`: one in this many decisions that moved and denied nothing is kept; 0 keeps none.
    pub fn new(store: Store, active: Active, metrics: Arc<Metrics>, sample: u64) -> Self {
        Self { store, active, metrics, sample, changed: Arc::default(), owed: Arc::default(), between: None }
    }

    /// For tests: `between` is awaited between each judgement and its write.
    #[must_use]
    pub fn with_between(mut self, between: Arc<dyn Between>) -> Self {
        self.between = Some(between);
        self
    }

    /// Woken whenever this host committed something that an event tells of.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Whom to wake when a committed step owes something. Once.
    pub fn owed_wakes(&self, wake: Arc<Notify>) {
        let _ = self.owed.set(wake);
    }

    /// Judges the workspace as the database now has it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn workspace(
        &self,
        id: &str,
        cause: &Cause,
        registration: Option<&Registration>,
    ) -> Result<Advanced, StoreError> {
        match self.store.snapshot(id).await? {
            Some(facts) => self.from(facts, cause, registration).await,
            None => Ok(Advanced::Unknown),
        }
    }

    /// Judges facts that were just read, and reads again where they were outrun.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn from(
        &self,
        facts: Snapshot,
        cause: &Cause,
        registration: Option<&Registration>,
    ) -> Result<Advanced, StoreError> {
        self.step(facts, cause, With { registration, ..With::default() }).await
    }

    /// [`Advance::from`] for what an agent says who presents this: while a claim is
    /// open, what its new box says is kept, and judged when the claim has ended.
    ///
    /// # Errors
    /// Those of [`Advance::from`].
    pub async fn agent(
        &self,
        mut facts: Snapshot,
        cause: &Cause,
        registration: Option<&Registration>,
        credential: Credential,
    ) -> Result<Advanced, StoreError> {
        loop {
            let id = facts.workspace.id.clone();
            let with = With { registration, credential: Some(credential), ..With::default() };
            let advanced = self.step(facts, cause, with).await?;
            let Advanced::Claimed { claim_id, .. } = &advanced else { return Ok(advanced) };
            let said = serde_json::to_string(cause).unwrap_or_default();
            if Box::pin(self.store.speak(claim_id, &credential.token, &said)).await? {
                return Ok(advanced);
            }
            // The old box, which has no say; or the claim has just ended.
            match Box::pin(self.store.snapshot(&id)).await? {
                Some(now) if now.claim_id.as_ref() != Some(claim_id) => facts = now,
                _ => return Ok(advanced),
            }
        }
    }

    /// Judges a command that `fits` the row and, where it is allowed, opens its claim
    /// with the transition. With `at`, a row at another version has outrun it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn command(
        &self,
        id: &str,
        command: &Command,
        claim: &NewClaim,
        at: Option<i64>,
        fits: Fits<'_>,
    ) -> Result<Advanced, StoreError> {
        let Some(facts) = self.store.snapshot(id).await? else { return Ok(Advanced::Unknown) };
        let with = With { claim: Some(claim), at, fits: Some(fits), ..With::default() };
        self.step(facts, &Cause::Commanded(command.clone()), with).await
    }

    /// Ends a claim as its holder says. The host's own: no policy is asked.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or nobody knows (a lost commit).
    pub async fn end_claim(&self, hold: &Hold, ending: &Ending<'_>) -> Result<Ended, StoreError> {
        let ended = self.store.end_claim(hold, ending).await?;
        if matches!(ended, Ended::Done { .. }) {
            if let Some((step, _)) = &ending.transition {
                self.metrics.moved(*step);
            }
            self.changed.notify_waiters();
        }
        Ok(ended)
    }

    async fn step(&self, mut facts: Snapshot, cause: &Cause, with: With<'_>) -> Result<Advanced, StoreError> {
        for attempt in 1..=ATTEMPTS {
            let status = facts.workspace.status;
            let id = facts.workspace.id.clone();
            if with.at.is_some_and(|at| at != facts.version) {
                return Ok(Advanced::Outran);
            }
            if let Some(claim_id) = facts.claim_id.take() {
                return Box::pin(self.stand_back(&facts, claim_id, with)).await;
            }
            let edge = match status.edge(cause.kind(), &facts.workspace.runtime) {
                Ok(edge) => edge,
                Err(none) => return self.beside_the_table(facts, cause, none).await,
            };
            match with.fits.map_or(Ok(()), |fits| fits(&facts.workspace)) {
                Ok(()) => {}
                Err(Unfit::NoProvider(unknown)) => return Ok(Advanced::NoProvider { status, unknown }),
                Err(Unfit::Asleep) => {
                    return Ok(Advanced::NoEdge(NoSuchEdge { from: status, cause: cause.kind() }));
                }
            }
            let judged = self.judge(facts, &edge, cause, with).await?;
            if let Some(between) = &self.between {
                between.judged(&id).await;
            }
            if judged.step.is_empty() {
                return Ok(settled(status, judged.decision));
            }
            // Boxed, so that a heartbeat that changes nothing does not carry their room.
            match Box::pin(self.write(std::slice::from_ref(&judged.step))).await? {
                Commit::Done => return Ok(settled(status, judged.decision)),
                Commit::TokenTaken => return Ok(Advanced::TokenTaken),
                Commit::TokenDead => return Ok(Advanced::TokenDead),
                // A sweep comes again, and by itself; whoever was faster had news of the row.
                Commit::Outran | Commit::Braked if with.still.is_some() => return Ok(Advanced::Outran),
                Commit::Outran | Commit::Braked => {
                    self.metrics.outran(cause.kind());
                    tracing::debug!(workspace.id = id, attempt, "outran");
                }
            }
            facts = match Box::pin(self.store.snapshot(&id)).await? {
                Some(facts) => facts,
                None => return Ok(Advanced::Unknown),
            };
        }
        // Whoever won may have left nothing to come back for: a removal, say.
        match facts.workspace.status.edge(cause.kind(), &facts.workspace.runtime) {
            Ok(_) => Ok(Advanced::Outran),
            Err(none) => Ok(Advanced::NoEdge(none)),
        }
    }

    /// Leaves the status to the claim's holder; where the agent is and its card are stored all the same.
    async fn stand_back(
        &self,
        facts: &Snapshot,
        claim_id: String,
        with: With<'_>,
    ) -> Result<Advanced, StoreError> {
        if let Some(registration) = with.registration {
            // The box that is being started gets its own; nobody else is given one meanwhile.
            if registration.first_token.is_some() {
                return Ok(Advanced::TokenTaken);
            }
            let step = Step {
                registration: Some(registration.clone()),
                credential: with.credential,
                ..Step::of(&facts.workspace.id, facts.version)
            };
            match self.write(std::slice::from_ref(&step)).await? {
                Commit::Done => {}
                Commit::Outran | Commit::Braked => return Ok(Advanced::Outran),
                Commit::TokenTaken => return Ok(Advanced::TokenTaken),
                Commit::TokenDead => return Ok(Advanced::TokenDead),
            }
        }
        Ok(Advanced::Claimed { status: facts.workspace.status, claim_id })
    }

    /// Asks the guards of one revision, from beginning to end.
    async fn judge(
        &self,
        facts: Snapshot,
        edge: &Edge,
        cause: &Cause,
        with: With<'_>,
    ) -> Result<Judged, StoreError> {
        let revision = self.active.get();
        let version = facts.version;
        let question = Question {
            now: facts.now,
            workspace: facts.workspace,
            cause: cause.clone(),
            candidates: edge.candidates(),
        };
        let mut decision = decide(&revision, version, question, &self.metrics).await;
        let owes = self.set_in_motion(&revision, &mut decision).await?;
        let transition = match &decision.outcome {
            Outcome::Moved { to, reason, .. } => edge.to(*to).ok().map(|step| (step, reason.clone())),
            Outcome::Held { .. } => None,
        };
        let commanded = matches!(cause, Cause::Commanded(_));
        let kept = commanded || decision.is_remarkable() || self.is_sampled(&decision.id);
        let step = Step {
            registration: with.registration.and_then(|r| registered(r, &decision)),
            claim: with
                .claim
                .filter(|_| transition.is_some())
                .map(|claim| (claim.clone(), decision.question.workspace.clone())),
            credential: with.credential,
            still: with.still.cloned(),
            transition,
            owes,
            decision: kept.then(|| decision.clone()),
            ..Step::of(&decision.question.workspace.id, version)
        };
        Ok(Judged { step, decision })
    }

    async fn write(&self, steps: &[Step]) -> Result<Commit, StoreError> {
        if steps.iter().all(Step::is_empty) {
            return Ok(Commit::Done);
        }
        let owes = steps.iter().any(|step| !step.owes.is_empty());
        if owes {
            die_at::reached(format_args!("owe:judged"));
        }
        let commit = self.store.commit(steps).await?;
        if commit == Commit::Done {
            if owes {
                die_at::reached(format_args!("owe:committed"));
                self.owed.get().inspect(|owed| owed.notify_one());
            }
            for (step, _) in steps.iter().filter_map(|s| s.transition.as_ref()) {
                self.metrics.moved(*step);
            }
            self.changed.notify_waiters();
        }
        Ok(commit)
    }

    /// By the id's own random bits: no counter to share, no clock.
    fn is_sampled(&self, id: &str) -> bool {
        self.sample != 0
            && Uuid::parse_str(id).is_ok_and(|id| (id.as_u128() as u64).is_multiple_of(self.sample))
    }
}

/// The guard half of a step: one revision, every interested policy, one
/// outcome. Replay runs exactly this.
pub async fn decide(
    revision: &Revision,
    row_version: i64,
    question: Question,
    metrics: &Metrics,
) -> Decision {
    let votes = revision.ask(&question).await;
    let outcome =
        if revision.number == 0 { no_revision(&question) } else { Outcome::of(&question.candidates, &votes) };
    for vote in &votes {
        if let Answer::Error(fault) = &vote.answer {
            warn_fault(metrics, &vote.by, fault, "denies every candidate", &question.workspace.id);
        }
    }
    metrics.decided(question.cause.kind(), &outcome);
    Decision::new(row_version, revision.number, question, votes, outcome)
}

/// Without a revision nobody may allow anything: that is a denial of all.
fn no_revision(question: &Question) -> Outcome {
    let deny = |candidate: &Status| Denial {
        candidate: *candidate,
        policy: "host".to_owned(),
        reason: Reason::new("no-active-revision", "no policy revision is active on this host"),
    };
    Outcome::Held { denials: question.candidates.iter().map(deny).collect() }
}

/// Each is counted; the log names a module's 1st, 2nd, 4th, 8th, … so that it survives them.
fn warn_fault(metrics: &Metrics, by: &Bound, fault: &Fault, means: &str, workspace_id: &str) {
    if !metrics.policy_failed(by, &fault.code).is_power_of_two() {
        return;
    }
    tracing::warn!(
        policy.name = by.policy,
        policy.version = by.version,
        policy.digest = by.digest,
        fault = fault.code,
        workspace.id = workspace_id,
        "a policy failed, which {means}: {}",
        fault.detail
    );
}

/// What is stored of a registration. One that fails the row, or leaves it failed, hands
/// out no first token; one that is denied otherwise, or that nobody could judge, is not stored.
fn registered(registration: &Registration, decision: &Decision) -> Option<Registration> {
    let (to, denial) = match &decision.outcome {
        Outcome::Moved { to, .. } => (*to, None),
        held @ Outcome::Held { .. } => (decision.question.workspace.status, held.denial_of(Status::Online)),
    };
    if denial.is_some_and(|denial| to != Status::Failed || denial.is_fault()) {
        return None;
    }
    let moved = matches!(decision.outcome, Outcome::Moved { .. });
    let ready = denial.is_none() && !(moved && to == Status::Failed);
    let first_token = registration.first_token.filter(|_| ready);
    Some(Registration { first_token, ..registration.clone() })
}

fn settled(status: Status, decision: Decision) -> Advanced {
    match decision.outcome {
        Outcome::Moved { to, .. } => Advanced::Moved { to, decision },
        Outcome::Held { .. } => Advanced::Held { status, decision },
    }
}
