//! What the model consists of: the row and its claim, the outbox, the hosts'
//! own memory, the network, the providers.

use sprag::claims::plan::Step;
use sprag::machine::Status;
use sprag::provision::Fence;

/// A provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    A,
    B,
}

impl At {
    pub fn other(self) -> Self {
        match self {
            At::A => At::B,
            At::B => At::A,
        }
    }
}

/// A box's name: the epoch in which it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(pub u64);

impl Instance {
    /// The box that the row has at first.
    pub const FIRST: Instance = Instance(0);
    /// A box of an earlier claim whose stop is still owed.
    pub const LEFT: Instance = Instance(99);
}

/// A set of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Steps(u8);

impl Steps {
    fn bit(step: Step) -> u8 {
        let place = Step::ALL.iter().position(|one| *one == step);
        1 << place.expect("every step is in ALL")
    }

    pub fn insert(&mut self, step: Step) {
        self.0 |= Self::bit(step);
    }

    pub fn remove(&mut self, step: Step) {
        self.0 &= !Self::bit(step);
    }

    pub fn contains(self, step: Step) -> bool {
        self.0 & Self::bit(step) != 0
    }
}

/// The open claim, as the database has it. That a step was begun is not kept:
/// the recorded name of the new box is all of it that anyone acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub owner: usize,
    pub prior: Status,
    /// Provider and instance when the claim was won.
    pub old: (At, Option<Instance>),
    /// Where it leads, and the name of the new box once one was chosen.
    pub new: (At, Option<Instance>),
    pub done: Steps,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub status: Status,
    pub version: u8,
    pub provider: At,
    pub instance: Option<Instance>,
    pub epoch: u64,
    /// The last seq given out in this epoch, to whomever.
    pub seq: u64,
    /// The outbox's own, where the protocol is broken so.
    pub owed_seq: u64,
    pub claim: Option<Claim>,
}

/// A stop that the outbox owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owed {
    pub at: At,
    pub instance: Instance,
}

/// A task in some host. Its memory; what the database knows is in the row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    Idle,
    /// Has read the row and means to claim it.
    Read {
        version: u8,
    },
    /// Lost the race: 409.
    Lost,
    Owner(Task),
    /// Done, or knows that it was superseded.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub epoch: u64,
    /// The providers that a takeover has yet to fence.
    pub to_fence: Vec<At>,
    /// The recorded new box runs, said a fence.
    pub runs: bool,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looks into the journal for what comes next.
    Next,
    Waiting(Doing, Fence),
    Answered(Doing, Answer),
    /// Undoes what was done; whether the new box may run.
    Undo {
        may_run: bool,
    },
}

/// What an owner waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Fences this provider after a takeover.
    FenceAt(At),
    Step(Step),
    /// Whether the start that was not answered happened.
    Ask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Done,
    /// To a fence: whether the recorded new box runs.
    Runs(bool),
    Refused,
    Stale,
    /// Repeated as often as it is, never answered.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    Start(Instance),
    Stop(Instance),
    Fence,
}

/// A call on its way. The network may keep it for ever or deliver it at any
/// later time, in any order. Its copies need no place here: every call has a
/// fence and a key of its own, so a second copy finds the key finished or the
/// fence overtaken, and either way nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    pub to: At,
    pub what: What,
    pub fence: Fence,
    /// None: the outbox.
    pub from: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Provider {
    pub accepted: Option<Fence>,
    /// In order.
    pub running: Vec<Instance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub row: Row,
    /// In order.
    pub outbox: Vec<Owed>,
    pub workers: Vec<Worker>,
    /// In order.
    pub net: Vec<Message>,
    pub providers: [Provider; 2],
    /// Takeovers and removals still to come.
    pub takeovers: usize,
    pub removals: usize,
    /// How often the outbox may still forget that a stop was done.
    pub forgets: usize,
    pub wrong: Wrong,
}

/// What happened once and must never happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrong {
    /// Somebody else than its owner closed a claim.
    pub closed_by_another: bool,
    /// A removed row was written.
    pub removed_written: bool,
    /// A provider was asked to stop a box that another one was asked to start.
    pub misaddressed: bool,
}

impl State {
    pub fn provider(&mut self, at: At) -> &mut Provider {
        &mut self.providers[at as usize]
    }

    pub fn runs(&self, at: At, instance: Instance) -> bool {
        self.providers[at as usize].running.contains(&instance)
    }

    pub fn owes(&self, at: At, instance: Instance) -> bool {
        self.outbox.contains(&Owed { at, instance })
    }

    /// The boxes that run, owed a stop or not.
    pub fn running(&self) -> impl Iterator<Item = (At, Instance)> + '_ {
        let at = |at: At| self.providers[at as usize].running.iter().map(move |instance| (at, *instance));
        at(At::A).chain(at(At::B))
    }
}
