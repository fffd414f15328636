//! All but the owners: the network, the providers' rules, the outbox, removal.

use sprag::machine::Status;
use sprag::provision::Fence;

use super::state::{Answer, At, Instance, Message, Owed, Phase, Provider, State, What, Worker};
use super::{Broken, Protocol};

impl Protocol {
    /// Rules 2 and 3; rule 1 is why there are no copies.
    fn is_stale(&self, provider: &Provider, fence: Fence) -> bool {
        provider.accepted.is_some_and(|accepted| match self.broken {
            Some(Broken::NoFence) => false,
            Some(Broken::EpochOnlyFence) => fence.epoch < accepted.epoch,
            _ => fence <= accepted,
        })
    }

    pub(super) fn refusable(&self, state: &State, message: &Message) -> bool {
        let provider = &state.providers[message.to as usize];
        matches!(message.what, What::Start(_)) && !self.is_stale(provider, message.fence)
    }

    /// A call reaches its provider; who still waits for it is told.
    pub(super) fn deliver(&self, state: &mut State, message: Message, refuse: bool) {
        state.net.retain(|other| *other != message);
        let recorded = state.row.claim.and_then(|claim| claim.new.1);
        let stale = self.is_stale(&state.providers[message.to as usize], message.fence);
        let provider = state.provider(message.to);
        let answer = if stale {
            Answer::Stale
        } else {
            provider.accepted = provider.accepted.max(Some(message.fence));
            match message.what {
                What::Start(_) if refuse => Answer::Refused,
                What::Start(instance) => {
                    provider.running.push(instance);
                    provider.running.sort();
                    Answer::Done
                }
                What::Stop(instance) => {
                    provider.running.retain(|other| *other != instance);
                    Answer::Done
                }
                What::Fence => Answer::Runs(recorded.is_some_and(|new| provider.running.contains(&new))),
            }
        };
        match message.from {
            Some(worker) => tell(&mut state.workers[worker], message.fence, answer),
            None if answer == Answer::Done => {
                let What::Stop(instance) = message.what else { return };
                state.outbox.retain(|owed| *owed != Owed { at: message.to, instance });
            }
            // It is owed still, and is sent again with a newer fence.
            None => {}
        }
    }

    /// Makes one state of those that differ in nothing that can still matter:
    /// calls that are stale and that nobody waits for, an accepted fence that
    /// is older than every call still to come, and, where so told, an owner
    /// that was superseded: its next transaction tells it so, and is its last.
    pub(super) fn forget(&self, state: &mut State) {
        let open = state.row.claim.is_some();
        for worker in state.workers.iter_mut().filter(|_| !self.sleepers) {
            if matches!(worker, Worker::Owner(task) if !open || task.epoch != state.row.epoch) {
                *worker = Worker::Gone;
            }
        }
        let net = std::mem::take(&mut state.net);
        let stale = |message: &Message| self.is_stale(&state.providers[message.to as usize], message.fence);
        let waited_for = |message: &Message| {
            message.from.is_none_or(|worker| waits(&state.workers[worker], message.fence))
        };
        let net: Vec<_> = net.into_iter().filter(|message| !stale(message) || waited_for(message)).collect();
        let needed = [At::A, At::B].map(|at| net.iter().any(|message| message.to == at && stale(message)));
        for (provider, needed) in state.providers.iter_mut().zip(needed) {
            provider.accepted = provider.accepted.filter(|_| needed);
        }
        state.net = net;
    }

    /// The owed stops that the outbox may send now.
    pub(super) fn due<'a>(&self, state: &'a State) -> impl Iterator<Item = Owed> + 'a {
        let on_its_way = |owed: &Owed| {
            let what = What::Stop(owed.instance);
            state.net.iter().any(|sent| sent.from.is_none() && sent.to == owed.at && sent.what == what)
        };
        let own = |owed: &Owed| state.row.instance == Some(owed.instance);
        state.outbox.iter().filter(move |owed| !on_its_way(owed) && !own(owed)).copied()
    }

    /// The outbox sends with the row's present epoch, and a seq of the row's.
    pub(super) fn send_owed(&self, state: &mut State, owed: Owed) {
        let fence = if self.broken == Some(Broken::OutboxCountsAlone) {
            state.row.owed_seq += 1;
            Fence { epoch: state.row.epoch, seq: state.row.owed_seq }
        } else {
            next_fence(state)
        };
        send(state, Message { to: owed.at, what: What::Stop(owed.instance), fence, from: None });
    }

    /// One transaction: the claim is superseded, its epoch dead, and a stop owed for every box there may be.
    pub(super) fn remove(&self, state: &mut State) {
        state.removals -= 1;
        let row = &mut state.row;
        let mut boxes = vec![(row.provider, row.instance)];
        if let Some(claim) = row.claim.take() {
            // The row may name the new provider already, and the old box still.
            if self.broken != Some(Broken::RemovalTrustsRow) {
                boxes.clear();
                boxes.push(claim.old);
            }
            boxes.push(claim.new);
        }
        row.status = Status::Removed;
        row.instance = None;
        row.version += 1;
        row.epoch += 1;
        row.seq = 0;
        for (at, instance) in boxes {
            owe(state, at, instance);
        }
    }
}

/// The next fence of the row's epoch. One counter for owner and outbox: an owed
/// stop must be newer than the start that it is to prevent.
pub(super) fn next_fence(state: &mut State) -> Fence {
    state.row.seq += 1;
    Fence { epoch: state.row.epoch, seq: state.row.seq }
}

pub(super) fn send(state: &mut State, message: Message) {
    if let What::Stop(instance) = message.what {
        state.wrong.misaddressed |= home(state, instance).is_some_and(|home| home != message.to);
    }
    state.net.push(message);
    state.net.sort();
}

pub(super) fn owe(state: &mut State, at: At, instance: Option<Instance>) {
    let Some(instance) = instance else { return };
    let owed = Owed { at, instance };
    if !state.outbox.contains(&owed) {
        state.outbox.push(owed);
        state.outbox.sort();
    }
}

/// Where a box was started, as far as it can be seen.
fn home(state: &State, instance: Instance) -> Option<At> {
    let running = state.running().find(|(_, other)| *other == instance).map(|(at, _)| at);
    let starting = state.net.iter().find(|sent| sent.what == What::Start(instance)).map(|sent| sent.to);
    let first = (instance == Instance::FIRST).then_some(At::A);
    running.or(starting).or(first)
}

fn waits(worker: &Worker, fence: Fence) -> bool {
    matches!(worker, Worker::Owner(task) if matches!(task.phase, Phase::Waiting(_, waiting) if waiting == fence))
}

fn tell(worker: &mut Worker, fence: Fence, answer: Answer) {
    if !waits(worker, fence) {
        return;
    }
    let Worker::Owner(task) = worker else { return };
    if let Phase::Waiting(doing, _) = task.phase {
        task.phase = Phase::Answered(doing, answer);
    }
}

/// The patience of whoever waits is at an end.
pub(super) fn time_out(worker: &mut Worker) {
    if let Worker::Owner(task) = worker
        && let Phase::Waiting(doing, _) = task.phase
    {
        task.phase = Phase::Answered(doing, Answer::Unknown);
    }
}
