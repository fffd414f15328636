//! What is left of a call that ended in a trap: the functions that it ended in,
//! by the module's own name section, and what a panic said, where the module left
//! that in its memory. Both are a module's words: bounded, and escaped.

use std::fmt::{self, Write as _};

use wasmtime::{Instance, Store, Trap, Val, WasmBacktrace, WasmCoreDump};

use super::Place;
use super::classify::clip;
use super::engine::Meter;

/// Frames of a trap that are looked at.
pub const FRAMES: usize = 32;

/// Longest name of a function that is told.
const NAME_BYTES: usize = 160;

/// An exported static of the module that panicked: the number of bytes (u32, little
/// endian), and after it so many of UTF-8. `policies/sdk/src/panics.rs` writes it.
const WORDS: &str = "sprag_policy_panic";

/// Bytes of a panic's words that are looked at.
const WORDS_BYTES: usize = 512;

/// What a toolchain puts between an author's code and the trap: how its functions begin.
const PLUMBING: [&str; 7] =
    ["core::", "std::", "alloc::", "rust_begin_unwind", "rust_panic", "__rust", "sprag_policy::arena"];

/// The same, by their whole name.
const PLUMBING_NAMES: [&str; 3] = ["abort", "__abort", "panic"];

pub struct Remains {
    /// Of the functions, the innermost first.
    names: Vec<String>,
    words: Option<String>,
}

impl Remains {
    /// Of the call that ended in `error`.
    pub fn of(error: &wasmtime::Error, store: &mut Store<Meter>) -> Self {
        let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
        let names = frames.iter().filter_map(|frame| frame.func_name()).map(readable).collect();
        let instances = error.downcast_ref::<WasmCoreDump>().map_or(&[][..], WasmCoreDump::instances);
        let panicked = matches!(error.downcast_ref::<Trap>(), Some(Trap::UnreachableCodeReached));
        let words = panicked.then(|| instances.iter().find_map(|instance| words(*instance, store))).flatten();
        Self { names, words }
    }

    /// The author's innermost function, and what it called, if that is not the author's.
    pub fn place(&self) -> Place {
        let Some(at) = self.authors() else { return Place(self.names.first().cloned().map(clip)) };
        let called = at.checked_sub(1).map(|i| format!(", which called {}", self.names[i]));
        Place(Some(clip(format!("{}{}", self.names[at], called.unwrap_or_default()))))
    }

    /// A trap in words; of a bare `unreachable`, what it stands for.
    pub fn describe(&self, trap: Trap) -> String {
        let inner = &self.names[..self.authors().unwrap_or(self.names.len())];
        let is = |what: &str| inner.iter().any(|name| name.contains(what));
        let what = match trap {
            Trap::UnreachableCodeReached if self.words.is_some() => "it panicked".to_owned(),
            Trap::UnreachableCodeReached if is("arena::spent") && is("panicking") => {
                "it panicked, with more words than the memory that the policy's SDK has for one call"
                    .to_owned()
            }
            Trap::UnreachableCodeReached if is("arena::spent") => {
                "the memory that the policy's SDK has for one call is used up (its arena)".to_owned()
            }
            Trap::UnreachableCodeReached if is("panic") => "it panicked".to_owned(),
            Trap::UnreachableCodeReached => "it reached `unreachable`".to_owned(),
            other => other.to_string(),
        };
        let place = match self.place() {
            Place(None) => " (the module has no names of its functions)".to_owned(),
            place => place.to_string(),
        };
        let words = self.words.as_ref().map(|words| format!(": {words}"));
        format!("{what}{place}{}", words.unwrap_or_default())
    }

    /// Where in `names` the author's code begins.
    fn authors(&self) -> Option<usize> {
        self.names.iter().position(|name| !is_plumbing(name))
    }
}

/// What this instance left as its words, if it has the static.
fn words(instance: Instance, store: &mut Store<Meter>) -> Option<String> {
    let Val::I32(at) = instance.get_global(&mut *store, WORDS)?.get(&mut *store) else { return None };
    let memory = instance.get_memory(&mut *store, "memory")?.data(&*store);
    let (length, text) = memory.get(usize::try_from(at.cast_unsigned()).ok()?..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let text = text.get(..length.min(WORDS_BYTES)).unwrap_or(text);
    (!text.is_empty()).then(|| clip(String::from_utf8_lossy(text).into_owned()))
}

fn is_plumbing(name: &str) -> bool {
    let name = name.trim_start_matches('<');
    PLUMBING_NAMES.contains(&name) || PLUMBING.iter().any(|prefix| name.starts_with(prefix))
}

/// A Rust name as it is written; any other as it stands.
fn readable(name: &str) -> String {
    let mut short = Short(String::new());
    // With `#`: without the hash that ends it. It errs where it was cut.
    let _ = write!(short, "{:#}", rustc_demangle::demangle(name));
    short.0
}

/// A name up to its bound: what is written after that is not even made, since a
/// short mangled name can stand for a megabyte.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = NAME_BYTES.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}
