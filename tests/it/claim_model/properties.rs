//! What must hold in every state, and what must happen in some.

use sprag::machine::Status;
use stateright::Property;

use super::Protocol;
use super::state::{Instance, Owed, Row, State, Worker};

pub const ONE_BOX: &str = "one box at a time";
pub const ONLY_ITS_OWNER: &str = "only its owner closes a claim";
pub const RIGHT_ADDRESS: &str = "a stop goes where its box is";
pub const NO_STRAY_BOX: &str = "what runs is the row's, or owed a stop";
pub const NOTHING_STOPS: &str = "nothing stops half done";

pub(super) fn must_hold() -> Vec<Property<Protocol>> {
    vec![
        // A box whose stop is owed is not counted: its provider could not be reached.
        Property::always(ONE_BOX, |_, state: &State| {
            state.running().filter(|(at, instance)| !state.owes(*at, *instance)).count() <= 1
        }),
        Property::always(ONLY_ITS_OWNER, |_, state: &State| !state.wrong.closed_by_another),
        Property::always("removed is the end", |_, state: &State| !state.wrong.removed_written),
        Property::always(RIGHT_ADDRESS, |_, state: &State| !state.wrong.misaddressed),
        // Whatever the network still holds.
        Property::always(NO_STRAY_BOX, |_, state: &State| {
            let row = &state.row;
            let known = |at, instance| {
                (row.provider, row.instance) == (at, Some(instance)) || state.owes(at, instance)
            };
            row.claim.is_some() || state.running().all(|(at, instance)| known(at, instance))
        }),
        Property::always("what the row says runs, runs", |_, state: &State| {
            let row = &state.row;
            let said = row.instance.is_none_or(|instance| state.runs(row.provider, instance));
            let empty = matches!(row.status, Status::Failed | Status::Hibernated | Status::Removed);
            row.claim.is_some() || said && row.instance.is_none() == empty
        }),
        // Neither a removal nor a lapsed lease has to come to its help.
        Property::always(NOTHING_STOPS, |protocol: &Protocol, state: &State| {
            let settled = state.row.claim.is_none() && state.outbox.is_empty();
            settled || protocol.goes_on(state)
        }),
    ]
}

/// That the model is no empty one: what a protocol so bounded comes to.
pub(super) fn must_happen(protocol: &Protocol) -> Vec<Property<Protocol>> {
    fn ended(state: &State) -> Option<&Row> {
        (state.row.claim.is_none() && state.row.epoch > 0).then_some(&state.row)
    }
    let mut properties = vec![
        Property::sometimes("a loser loses", |_, state: &State| state.workers[1] == Worker::Lost),
        Property::sometimes("a claim rolls back", |_, state: &State| {
            let rolled_back = |row: &Row| row.instance.is_none() && row.status != Status::Removed;
            ended(state).is_some_and(rolled_back) && state.outbox.is_empty()
        }),
        Property::sometimes("a claim ends owing", |_, state: &State| {
            ended(state).is_some_and(|row| row.status == Status::Failed) && !state.outbox.is_empty()
        }),
    ];
    if protocol.takeovers > 0 {
        properties.push(Property::sometimes("a box of an earlier epoch is adopted", |_, state: &State| {
            let adopted =
                |row: &Row| row.instance.is_some_and(|instance| (1..row.epoch).contains(&instance.0));
            ended(state).is_some_and(adopted) && state.takeovers == 0
        }));
        properties.push(Property::sometimes("a takeover starts anew", |_, state: &State| {
            state.takeovers == 0 && ended(state).is_some_and(|row| row.instance == Some(Instance(row.epoch)))
        }));
    }
    if protocol.removals > 0 {
        properties.push(Property::sometimes("a removal supersedes", |_, state: &State| {
            let started = |owed: &Owed| (1..Instance::LEFT.0).contains(&owed.instance.0);
            state.row.status == Status::Removed && state.outbox.iter().any(started)
        }));
    }
    if protocol.again {
        properties.push(Property::sometimes("a boot is begun anew", |_, state: &State| {
            state.row.claim.is_some_and(|claim| claim.prior == Status::Provisioning)
        }));
        properties.push(Property::sometimes("a second claim commits", |_, state: &State| {
            state.workers[1] == Worker::Gone && ended(state).is_some_and(|row| row.instance.is_some())
        }));
    }
    properties
}
