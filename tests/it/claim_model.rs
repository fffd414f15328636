//! The claim protocol as a model, explored to the end: two hosts, two
//! providers, one workspace, a network that is late, loses and reorders, owners
//! that pause for as long as they like, a takeover, and a removal at any time.
//!
//! It walks the plans of `sprag::claims::plan`, and orders calls by
//! `sprag::provision::Fence`. Each way to break it is one switch; a property
//! must catch each.

mod owner;
mod properties;
mod state;
mod world;

use std::time::Instant;

use rstest::rstest;
use sprag::claims::plan::{Plan, Step, plan};
use sprag::facts::CommandKind;
use sprag::machine::Status;
use stateright::{Checker, HasDiscoveries, Model, Property};

use properties::{
    NO_STRAY_BOX, NOTHING_STOPS, ONE_BOX, ONLY_ITS_OWNER, RIGHT_ADDRESS, must_happen, must_hold,
};
use state::{At, Instance, Message, Owed, Phase, Provider, Row, State, Worker, Wrong};

/// Hosts that want the same command; those that take over come after them.
const RIVALS: usize = 2;

/// One way to get the protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    LoserRollsBack,
    NoFence,
    EpochOnlyFence,
    UnknownIsFailure,
    TakeoverWithoutFencing,
    /// An owner whose call is stale takes itself for superseded, though the outbox overtook it.
    StaleIsSuperseded,
    /// A stop that was given up is not owed.
    StopGivenUpIsForgotten,
    /// The outbox numbers its calls for itself, not by the row.
    OutboxCountsAlone,
    /// A removal stops the row's instance at the row's provider, though a claim is open.
    RemovalTrustsRow,
}

/// What is explored.
#[derive(Clone, Debug)]
struct Protocol {
    command: CommandKind,
    broken: Option<Broken>,
    takeovers: usize,
    removals: usize,
    /// Whether a takeover fences only the provider where a new box was recorded:
    /// no other call of a claim can do harm however late.
    fences_less: bool,
    /// Whether owners that were superseded are followed until they notice.
    sleepers: bool,
    /// Whether the second host may claim what the first has ended.
    again: bool,
    /// Whether an earlier claim left a box that is owed a stop.
    left: bool,
    /// How often the outbox forgets that a stop was done.
    forgets: usize,
}

impl Protocol {
    fn plan(&self) -> Plan {
        plan(Some(self.command))
    }

    fn target(&self, from: At) -> At {
        let leaves = self.plan().iter().any(|planned| planned.step == Step::WriteProvider);
        if leaves { from.other() } else { from }
    }

    /// The status in which the row begins.
    fn prior(&self) -> Status {
        if self.command == CommandKind::Wake { Status::Hibernated } else { Status::Online }
    }

    /// Whether something is still to come that nobody has to ask for.
    fn goes_on(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        let by_itself = |action: &Action| {
            matches!(action, Action::Act(_) | Action::TimeOut(_) | Action::Deliver(_) | Action::SendOwed(_))
        };
        actions.iter().any(by_itself)
    }

    fn may_claim(&self, row: &Row) -> bool {
        let first = row.epoch == 0;
        (first || self.again)
            && row.claim.is_none()
            // A boot that nobody heard of yet can be begun anew.
            && (row.status == self.prior()
                || row.status == Status::Failed
                || (self.again && row.status == Status::Provisioning))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read(usize),
    Claim(usize),
    /// The next transaction of this worker, and the call it sends.
    Act(usize),
    TimeOut(usize),
    TakeOver(usize),
    Deliver(Message),
    Refuse(Message),
    /// An owed stop is done, and stays owed.
    DeliverForgotten(Message),
    SendOwed(Owed),
    Remove,
    /// The new box speaks.
    Beat,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = (self.command != CommandKind::Wake).then_some(Instance::FIRST);
        let left = self.left.then_some(Instance::LEFT);
        let running = first.into_iter().chain(left).collect();
        let row = Row {
            status: self.prior(),
            version: 0,
            provider: At::A,
            instance: first,
            epoch: 0,
            seq: 0,
            owed_seq: 0,
            claim: None,
        };
        // The hosts differ in nothing, so it is the first that reads first.
        let mut workers = vec![Worker::Idle; RIVALS + self.takeovers];
        workers[0] = Worker::Read { version: 0 };
        vec![State {
            row,
            outbox: left.into_iter().map(|instance| Owed { at: At::A, instance }).collect(),
            workers,
            net: Vec::new(),
            providers: [Provider { accepted: None, running }, Provider::default()],
            takeovers: self.takeovers,
            removals: self.removals,
            forgets: self.forgets,
            wrong: Wrong::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, worker) in state.workers.iter().enumerate() {
            match worker {
                Worker::Idle if number < RIVALS && self.may_claim(&state.row) => {
                    actions.push(Action::Read(number))
                }
                Worker::Read { .. } => actions.push(Action::Claim(number)),
                Worker::Lost if self.broken == Some(Broken::LoserRollsBack) => {
                    actions.push(Action::Act(number))
                }
                Worker::Owner(task) if matches!(task.phase, Phase::Waiting(..)) => {
                    actions.push(Action::TimeOut(number));
                }
                Worker::Owner(_) => actions.push(Action::Act(number)),
                Worker::Idle | Worker::Lost | Worker::Gone => {}
            }
        }
        if state.row.claim.is_some() && state.takeovers > 0 {
            actions.push(Action::TakeOver(state.workers.len() - state.takeovers));
        }
        for message in &state.net {
            actions.push(Action::Deliver(*message));
            if self.refusable(state, message) {
                actions.push(Action::Refuse(*message));
            }
            if message.from.is_none() && state.forgets > 0 {
                actions.push(Action::DeliverForgotten(*message));
            }
        }
        actions.extend(self.due(state).map(Action::SendOwed));
        if state.removals > 0 {
            actions.push(Action::Remove);
        }
        let row = &state.row;
        let awaited = row.claim.is_none() && row.status == Status::Provisioning;
        if self.again && awaited && state.workers[1] == Worker::Idle {
            actions.push(Action::Beat);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Read(worker) => state.workers[worker] = Worker::Read { version: state.row.version },
            Action::Claim(worker) => self.claim(&mut state, worker),
            Action::Act(worker) if state.workers[worker] == Worker::Lost => {
                self.loser_rolls_back(&mut state, worker);
            }
            Action::Act(worker) => self.act(&mut state, worker),
            Action::TimeOut(worker) => world::time_out(&mut state.workers[worker]),
            Action::TakeOver(worker) => self.take_over(&mut state, worker),
            Action::Deliver(message) => self.deliver(&mut state, message, false),
            Action::Refuse(message) => self.deliver(&mut state, message, true),
            Action::DeliverForgotten(message) => {
                let outbox = state.outbox.clone();
                self.deliver(&mut state, message, false);
                state.outbox = outbox;
                state.forgets -= 1;
            }
            Action::SendOwed(owed) => self.send_owed(&mut state, owed),
            Action::Remove => self.remove(&mut state),
            Action::Beat => {
                state.row.status = Status::Online;
                state.row.version += 1;
            }
        }
        self.forget(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = must_hold();
        if self.broken.is_none() {
            properties.extend(must_happen(self));
        }
        properties
    }
}

const RIGHT: Protocol = Protocol {
    command: CommandKind::SwitchProvider,
    broken: None,
    takeovers: 1,
    removals: 1,
    fences_less: false,
    sleepers: true,
    again: false,
    left: false,
    forgets: 0,
};

/// The same, for questions with more states.
const MERGED: Protocol = Protocol { sleepers: false, ..RIGHT };

#[rstest]
#[case::switch_provider(RIGHT)]
#[case::restart(Protocol { command: CommandKind::Restart, ..RIGHT })]
#[case::wake(Protocol { command: CommandKind::Wake, ..RIGHT })]
#[case::switch_provider_merged(MERGED)]
#[case::restart_beside_an_owed_stop(Protocol { command: CommandKind::Restart, left: true, ..MERGED })]
#[case::switch_provider_beside_an_owed_stop(Protocol { left: true, ..MERGED })]
#[case::restart_beside_a_repeated_stop(Protocol { command: CommandKind::Restart, left: true, forgets: 1, takeovers: 0, ..MERGED })]
#[case::restart_that_fences_less(Protocol { command: CommandKind::Restart, fences_less: true, ..MERGED })]
#[case::switch_provider_that_fences_less(Protocol { fences_less: true, left: true, ..MERGED })]
#[case::switch_provider_twice_taken_over_fences_less(Protocol { fences_less: true, takeovers: 2, ..MERGED })]
#[case::restart_twice(Protocol { command: CommandKind::Restart, again: true, removals: 0, ..MERGED })]
#[case::switch_provider_twice(Protocol { again: true, removals: 0, ..MERGED })]
#[case::restart_taken_over_twice(Protocol { command: CommandKind::Restart, takeovers: 2, ..MERGED })]
#[case::switch_provider_taken_over_twice(Protocol { takeovers: 2, ..MERGED })]
fn the_protocol_holds(#[case] protocol: Protocol) {
    let began = Instant::now();
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{protocol:?}: {states} states, depth {depth}, {:?}", began.elapsed());
    checker.assert_properties();
}

/// Each way of breaking it, and what it leads to.
#[rstest]
#[case::loser_rolls_back(Broken::LoserRollsBack, ONLY_ITS_OWNER, RIGHT)]
#[case::no_fence(Broken::NoFence, NO_STRAY_BOX, RIGHT)]
#[case::epoch_only_fence(Broken::EpochOnlyFence, NO_STRAY_BOX, RIGHT)]
#[case::unknown_is_failure(Broken::UnknownIsFailure, NO_STRAY_BOX, RIGHT)]
#[case::takeover_without_fencing(Broken::TakeoverWithoutFencing, ONE_BOX, RIGHT)]
#[case::stale_is_superseded(Broken::StaleIsSuperseded, NOTHING_STOPS, Protocol { left: true, ..MERGED })]
#[case::stop_given_up_is_forgotten(Broken::StopGivenUpIsForgotten, ONE_BOX, RIGHT)]
#[case::outbox_counts_alone(Broken::OutboxCountsAlone, NO_STRAY_BOX, RIGHT)]
#[case::removal_trusts_row(Broken::RemovalTrustsRow, RIGHT_ADDRESS, RIGHT)]
fn a_broken_one_is_caught(#[case] broken: Broken, #[case] property: &'static str, #[case] like: Protocol) {
    for command in [CommandKind::SwitchProvider, CommandKind::Restart] {
        if (command, broken) == (CommandKind::Restart, Broken::RemovalTrustsRow) {
            // A restart stays where it is, so the row is right about the provider.
            continue;
        }
        let began = Instant::now();
        let protocol = Protocol { command, broken: Some(broken), ..like.clone() };
        let until = HasDiscoveries::AnyOf([property].into());
        let checker = protocol.checker().finish_when(until).spawn_bfs().join();
        let states = checker.unique_state_count();
        let path = checker.discovery(property).map(|path| path.into_actions());
        let path =
            path.unwrap_or_else(|| panic!("{broken:?} of {command:?} was not caught in {states} states"));
        println!("{broken:?} of {command:?} fails {property:?} after {} steps", path.len());
        println!("  ({states} states, {:?}): {path:?}", began.elapsed());
    }
}
