//! What an owner does: the plan of the command, step by step, each journaled
//! before and after, then commit; or what was done undone.
//!
//! One action of the model is one transaction, and the call that it sends: to
//! be paused between the two is to have sent it late, which the network does
//! anyway.

use sprag::claims::plan::{Planned, Step, Undo};
use sprag::machine::Status;

use super::state::{Answer, At, Claim, Doing, Instance, Message, Phase, State, Steps, Task, What, Worker};
use super::world::{next_fence, owe, send};
use super::{Broken, Protocol};

impl Protocol {
    /// The compare-and-swap on the version that was read.
    pub(super) fn claim(&self, state: &mut State, worker: usize) {
        let Worker::Read { version } = state.workers[worker] else { return };
        if state.row.version != version {
            state.workers[worker] = Worker::Lost;
            return;
        }
        let row = &mut state.row;
        let old = (row.provider, row.instance);
        let new = (self.target(row.provider), None);
        row.claim = Some(Claim { owner: worker, prior: row.status, old, new, done: Steps::default() });
        row.status = Status::Provisioning;
        row.version += 1;
        row.epoch += 1;
        row.seq = 0;
        let task = Task { epoch: row.epoch, to_fence: Vec::new(), runs: false, phase: Phase::Next };
        state.workers[worker] = Worker::Owner(task);
    }

    /// The lease lapsed: the next epoch, and every provider of the claim to fence first.
    pub(super) fn take_over(&self, state: &mut State, worker: usize) {
        state.takeovers -= 1;
        let row = &mut state.row;
        let Some(claim) = &mut row.claim else { return };
        claim.owner = worker;
        row.epoch += 1;
        row.seq = 0;
        let mut to_fence = vec![claim.old.0, claim.new.0];
        to_fence.dedup();
        if self.fences_less {
            to_fence = claim.new.1.map(|_| claim.new.0).into_iter().collect();
        }
        if self.broken == Some(Broken::TakeoverWithoutFencing) {
            to_fence.clear();
        }
        let task = Task { epoch: row.epoch, to_fence, runs: false, phase: Phase::Next };
        state.workers[worker] = Worker::Owner(task);
    }

    /// One transaction of an owner. Every one begins with the question whether
    /// the claim is open and the epoch its own; that is also how an owner
    /// learns what became of a commit that was not answered.
    pub(super) fn act(&self, state: &mut State, worker: usize) {
        let Worker::Owner(task) = state.workers[worker].clone() else { return };
        let claim = match state.row.claim {
            Some(claim) if state.row.epoch == task.epoch => claim,
            _ => {
                state.workers[worker] = Worker::Gone;
                return;
            }
        };
        let turn = Turn { protocol: self, state, worker, task, claim };
        match turn.task.phase {
            Phase::Next => turn.next(),
            Phase::Answered(doing, answer) => turn.answered(doing, answer),
            Phase::Undo { may_run } => turn.undo(may_run),
            Phase::Waiting(..) => {}
        }
    }

    /// What a defect of old did: the loser armed its rollback before it had won.
    pub(super) fn loser_rolls_back(&self, state: &mut State, worker: usize) {
        state.workers[worker] = Worker::Gone;
        if let Some(claim) = state.row.claim
            && state.row.status == Status::Provisioning
        {
            close(state, worker, claim.prior, claim.old);
        }
    }
}

/// An owner whose claim is open, in one transaction.
struct Turn<'a> {
    protocol: &'a Protocol,
    state: &'a mut State,
    worker: usize,
    task: Task,
    claim: Claim,
}

impl Turn<'_> {
    fn next(mut self) {
        if let Some(at) = self.task.to_fence.first().copied() {
            return self.call(Doing::FenceAt(at), at, What::Fence);
        }
        let done = self.claim.done;
        let Some(planned) = self.protocol.plan().iter().find(|planned| !done.contains(planned.step)) else {
            let new = self.claim.new;
            return self.end(Status::Provisioning, new);
        };
        match planned.step {
            Step::StopOld => match self.claim.old {
                (at, Some(instance)) => self.call(Doing::Step(Step::StopOld), at, What::Stop(instance)),
                (_, None) => self.done(Step::StopOld),
            },
            Step::WriteProvider => {
                self.state.row.provider = self.claim.new.0;
                self.done(Step::WriteProvider);
            }
            // What runs already was started by an owner before this one.
            Step::StartNew if self.task.runs => self.done(Step::StartNew),
            Step::StartNew => {
                let name = Instance(self.task.epoch);
                self.claim.new.1 = Some(name);
                let at = self.claim.new.0;
                self.call(Doing::Step(Step::StartNew), at, What::Start(name));
            }
            step => unreachable!("{step} is in no plan that is modelled"),
        }
    }

    fn answered(mut self, doing: Doing, answer: Answer) {
        match (doing, answer) {
            (_, Answer::Stale) if self.protocol.broken == Some(Broken::StaleIsSuperseded) => {
                self.state.workers[self.worker] = Worker::Gone;
            }
            // Ours is the epoch still, so it was the outbox that overtook: once more, with the next seq.
            (Doing::Step(Step::StopNew), Answer::Stale) => self.undo(true),
            (Doing::Ask, Answer::Stale) => self.ask(),
            (_, Answer::Stale) => self.phase(Phase::Next),
            (Doing::FenceAt(_), Answer::Runs(runs)) => {
                self.task.to_fence.remove(0);
                self.task.runs |= runs;
                self.phase(Phase::Next);
            }
            (Doing::FenceAt(_), _) => self.fail_owing(),
            (Doing::Step(Step::StopOld), answer) => {
                if answer != Answer::Done && self.protocol.broken != Some(Broken::StopGivenUpIsForgotten) {
                    owe(self.state, self.claim.old.0, self.claim.old.1);
                }
                self.done(Step::StopOld);
            }
            (Doing::Step(Step::StartNew), Answer::Done) | (Doing::Ask, Answer::Runs(true)) => {
                self.done(Step::StartNew);
            }
            (Doing::Step(Step::StartNew), Answer::Unknown)
                if self.protocol.broken != Some(Broken::UnknownIsFailure) =>
            {
                self.ask();
            }
            (Doing::Step(Step::StartNew), _) | (Doing::Ask, Answer::Runs(false)) => {
                self.phase(Phase::Undo { may_run: false });
            }
            (Doing::Ask, _) => self.phase(Phase::Undo { may_run: true }),
            (Doing::Step(Step::StopNew), Answer::Done) => self.phase(Phase::Undo { may_run: false }),
            (Doing::Step(_), _) => self.fail_owing(),
        }
    }

    /// The last step that can be undone; or the end.
    fn undo(mut self, may_run: bool) {
        let claim = self.claim;
        let was_done = |planned: &&Planned| match planned.step {
            Step::StartNew => may_run,
            step => claim.done.contains(step),
        };
        let undone =
            self.protocol.plan().iter().rev().filter(was_done).find(|planned| planned.undo != Undo::Nothing);
        match undone.map(|planned| (planned.step, planned.undo)) {
            Some((_, Undo::By(Step::StopNew))) => match self.claim.new {
                (at, Some(instance)) => self.call(Doing::Step(Step::StopNew), at, What::Stop(instance)),
                (_, None) => self.phase(Phase::Undo { may_run: false }),
            },
            Some((step, Undo::By(Step::RestoreProvider))) => {
                self.state.row.provider = self.claim.old.0;
                self.claim.done.remove(step);
                self.phase(Phase::Undo { may_run: false });
            }
            Some((_, Undo::Cannot)) => self.end(Status::Failed, (claim.old.0, None)),
            Some((step, undo)) => unreachable!("{step} is undone by {undo:?} in no plan that is modelled"),
            None => self.end(claim.prior, claim.old),
        }
    }

    /// Whether the start that was not answered happened; if not, it can't any more.
    fn ask(self) {
        let at = self.claim.new.0;
        self.call(Doing::Ask, at, What::Fence);
    }

    /// Nothing more can be learnt: the row ends `failed`, and every box that may run is owed a stop.
    fn fail_owing(self) {
        if !self.claim.done.contains(Step::StopOld) {
            owe(self.state, self.claim.old.0, self.claim.old.1);
        }
        owe(self.state, self.claim.new.0, self.claim.new.1);
        let provider = self.claim.old.0;
        self.end(Status::Failed, (provider, None));
    }

    fn end(self, status: Status, of: (At, Option<Instance>)) {
        close(self.state, self.worker, status, of);
        self.state.workers[self.worker] = Worker::Gone;
    }

    fn done(mut self, step: Step) {
        self.claim.done.insert(step);
        self.phase(Phase::Next);
    }

    /// Journals the call and sends it.
    fn call(self, doing: Doing, to: At, what: What) {
        let fence = next_fence(self.state);
        send(self.state, Message { to, what, fence, from: Some(self.worker) });
        self.phase(Phase::Waiting(doing, fence));
    }

    fn phase(mut self, phase: Phase) {
        self.task.phase = phase;
        self.state.row.claim = Some(self.claim);
        self.state.workers[self.worker] = Worker::Owner(self.task);
    }
}

fn close(state: &mut State, by: usize, status: Status, (provider, instance): (At, Option<Instance>)) {
    state.wrong.closed_by_another |= state.row.claim.is_some_and(|claim| claim.owner != by);
    state.wrong.removed_written |= state.row.status == Status::Removed;
    let row = &mut state.row;
    row.claim = None;
    row.status = status;
    row.provider = provider;
    row.instance = instance;
    row.version += 1;
}
