//! Turns what wasmtime says into one of our errors.

use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::engine::{Meter, Refused};
use super::{Limits, PolicyError};

/// Longest explanation that is kept of an error that is not ours.
const WHY_BYTES: usize = 500;

/// wasmtime has no public type for this one; a guest in `tests/guests` pins it.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// Where in a sandbox's life something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Instantiate,
    Call,
}

/// Names what ended a sandbox.
pub fn classify(error: &wasmtime::Error, phase: Phase, meter: &Meter, limits: &Limits) -> PolicyError {
    match meter.refused {
        Some(Refused::Memory) => return PolicyError::OutOfMemory { limit: limits.memory_bytes },
        Some(Refused::Other) => return PolicyError::Trap { why: why(error) },
        None => {}
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return of_trap(*trap, limits);
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

fn of_trap(trap: Trap, limits: &Limits) -> PolicyError {
    match trap {
        Trap::OutOfFuel => PolicyError::OutOfFuel { limit: limits.fuel },
        Trap::Interrupt => PolicyError::OutOfTime { limit_ms: limits.call_ms },
        Trap::StackOverflow => PolicyError::StackOverflow { limit: limits.stack_bytes },
        Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::InvalidChar
        | Trap::UnalignedPointer => PolicyError::BadAnswer { what: trap.to_string() },
        other => PolicyError::Trap { why: other.to_string() },
    }
}

/// An error and its sources on one line, cut to a length that can be recorded.
pub fn why(error: &wasmtime::Error) -> String {
    clip(format!("{error:#}"))
}

/// Cuts a text at a character's edge.
pub fn clip(mut text: String) -> String {
    if text.len() > WHY_BYTES {
        let end = (0..=WHY_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
