//! Turns what wasmtime says into one of our errors.

use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace, WasmCoreDump};

use super::engine::{Meter, Refused};
use super::fault::Remains;
use super::{Limits, PolicyError};

/// Longest explanation that is kept of an error that is not ours.
const WHY_BYTES: usize = 500;

/// wasmtime has no public type for this one; a guest in `tests/guests` pins it.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// Nor for these: what it says, in a new instance or of a component that would not
/// fit into the pool, and the limit that it means.
const MEANT: [(&str, &str); 10] = [
    ("instance count too high", "instances"),
    ("core module instances, which exceeds", "instances"),
    ("table count too high", "instances"),
    ("tables, which exceeds", "instances"),
    ("defined tables count of", "instances"),
    ("memory count too high", "memories"),
    ("defined memories count of", "memories"),
    ("Wasm linear memories, which exceeds", "memories"),
    ("has a minimum byte size of", "memory_bytes"),
    ("has a minimum element size of", "table_elements"),
];

/// Where in a sandbox's life something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Instantiate,
    Call,
}

/// Names what ended a sandbox, whose store is then good for nothing else.
pub fn classify(
    error: &wasmtime::Error,
    phase: Phase,
    store: &mut Store<Meter>,
    limits: &Limits,
) -> PolicyError {
    let remains = Remains::of(error, store);
    match store.data().refused {
        Some(Refused::Memory) => {
            return PolicyError::OutOfMemory { limit: limits.memory_bytes, place: remains.place() };
        }
        Some(Refused::Table) => {
            let (most, place) = (limits.table_elements, remains.place());
            let why = format!("a table would have grown over {most} elements (limits.table_elements){place}");
            return PolicyError::Trap { why };
        }
        Some(Refused::Other) => {
            return PolicyError::Trap { why: format!("{}{}", why(error), remains.place()) };
        }
        None => {}
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return of_trap(*trap, &remains, limits);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return PolicyError::Busy { limit: limits.concurrency };
    }
    match phase {
        Phase::Instantiate => PolicyError::Instantiate { why: why(error) },
        Phase::Call if why(error).contains(HOSTCALL_FUEL) => PolicyError::OversizedAnswer {
            what: format!("more than {} bytes (limits.answer_bytes)", limits.answer_bytes),
        },
        Phase::Call => PolicyError::BadAnswer { what: why(error) },
    }
}

fn of_trap(trap: Trap, remains: &Remains, limits: &Limits) -> PolicyError {
    let place = || remains.place();
    match trap {
        Trap::OutOfFuel => PolicyError::OutOfFuel { limit: limits.fuel, place: place() },
        Trap::Interrupt => PolicyError::OutOfTime { limit_ms: limits.call_ms, place: place() },
        Trap::StackOverflow => PolicyError::StackOverflow { limit: limits.stack_bytes, place: place() },
        Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::InvalidChar
        | Trap::UnalignedPointer => PolicyError::BadAnswer { what: trap.to_string() },
        other => PolicyError::Trap { why: remains.describe(other) },
    }
}

/// An error and its sources on one line, cut to a length that can be recorded.
pub fn why(error: &wasmtime::Error) -> String {
    // A backtrace or a dump would take all the room.
    let trapped = error.is::<WasmBacktrace>() || error.is::<WasmCoreDump>();
    let why = if trapped { error.root_cause().to_string() } else { format!("{error:#}") };
    let meant = MEANT.iter().find(|(says, _)| why.contains(says));
    let limit = meant.map(|(_, limit)| format!(" (limits.{limit})"));
    clip(why) + &limit.unwrap_or_default()
}

/// Text of a module or a file for people: what would not show, or would show as
/// something else, is escaped.
pub fn escaped(text: &str) -> String {
    let shows = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match shows(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_debug()),
        }
        shown
    })
}

/// Escapes a text and cuts it at a character's edge.
pub fn clip(text: String) -> String {
    let mut text = escaped(&text);
    if text.len() > WHY_BYTES {
        let end = (0..=WHY_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
