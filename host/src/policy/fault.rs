//! What a trap is called: the function that it happened in, by the module's own
//! name section, and in words what a bare `unreachable` stands for.

use wasmtime::{Trap, WasmBacktrace};

use super::classify::clip;

/// Frames of a trap that are looked at.
pub const FRAMES: usize = 32;

/// Longest name of a function that is told.
const NAME_BYTES: usize = 160;

/// What a toolchain puts between an author's code and the trap.
const PLUMBING: [&str; 9] =
    ["core::", "std::", "alloc::", "rust_", "__rust", "_$LT$", "sprag_policy::arena", "panic", "abort"];

/// A trap in words, with the function that it happened in where that has a name.
pub fn trapped(trap: Trap, error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let names: Vec<_> = frames.iter().filter_map(|frame| frame.func_name()).map(readable).collect();
    describe(trap, &names)
}

/// `names`: of the functions, the innermost first.
pub(super) fn describe(trap: Trap, names: &[String]) -> String {
    let authors = names.iter().position(|name| !is_plumbing(name));
    let called = authors.and_then(|i| i.checked_sub(1)).and_then(|i| names.get(i));
    let inner = names.get(..authors.unwrap_or(names.len())).unwrap_or_default();
    let is = |what: &str| inner.iter().any(|name| name.contains(what));
    let what = match trap {
        Trap::UnreachableCodeReached if is("arena::spent") => {
            "the memory that the policy's SDK has for one call is used up (its arena)".to_owned()
        }
        Trap::UnreachableCodeReached if is("panic") => "it panicked".to_owned(),
        Trap::UnreachableCodeReached => "it reached `unreachable`".to_owned(),
        other => other.to_string(),
    };
    let at = authors.and_then(|i| names.get(i)).or(names.first());
    clip(match (at, called) {
        (None, _) => format!("{what} (the module has no names of its functions)"),
        (Some(at), None) => format!("{what}, in {at}"),
        (Some(at), Some(called)) => format!("{what}, in {at}, which called {called}"),
    })
}

fn is_plumbing(name: &str) -> bool {
    let name = name.trim_start_matches('<');
    PLUMBING.iter().any(|prefix| name.starts_with(prefix))
}

/// A Rust name as it is written; any other as it stands.
fn readable(name: &str) -> String {
    // With `#`: without the hash that ends it.
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    if name.len() > NAME_BYTES {
        let end = (0..=NAME_BYTES).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    name
}
