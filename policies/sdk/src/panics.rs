//! What a panic says, where the host finds it. A trap carries no words, and a
//! policy imports nothing that it could say them to. So a hook leaves them in an
//! exported static, and the host reads that when the call has ended.

#![allow(unsafe_code)]

use std::fmt::{self, Write as _};

/// Bytes of a panic's words that are kept.
const BYTES: usize = 508;

/// As the host reads it.
#[repr(C)]
struct Words {
    length: u32,
    text: [u8; BYTES],
}

impl Words {
    const NONE: Self = Self { length: 0, text: [0; BYTES] };
}

/// Takes what there is room for, whole characters. It must not panic itself.
impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let used = self.length as usize;
        let taken = &text.as_bytes()[..text.floor_char_boundary(BYTES.saturating_sub(used))];
        for (to, from) in self.text.iter_mut().skip(used).zip(taken) {
            *to = *from;
        }
        self.length += taken.len() as u32;
        if taken.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The place that the host looks at.
#[cfg(target_arch = "wasm32")]
#[repr(transparent)]
struct Left(std::cell::UnsafeCell<Words>);

// SAFETY: a policy module is WebAssembly without threads.
#[cfg(target_arch = "wasm32")]
unsafe impl Sync for Left {}

// SAFETY: no other symbol has this name: it has the name of this crate.
#[cfg(target_arch = "wasm32")]
#[unsafe(export_name = "sprag_policy_panic")]
static LEFT: Left = Left(std::cell::UnsafeCell::new(Words::NONE));

/// From now on in this call, a panic leaves its words.
#[cfg(target_arch = "wasm32")]
pub(crate) fn watch() {
    std::panic::set_hook(Box::new(|info| {
        // SAFETY: one thread, and a panic within the hook ends the call.
        let words = unsafe { &mut *LEFT.0.get() };
        *words = Words::NONE;
        leave(words, info.location(), info.payload_as_str().unwrap_or_default());
    }));
}

/// Too many words are cut.
fn leave(words: &mut Words, at: Option<impl fmt::Display>, said: &str) {
    let _ = match at {
        Some(at) => write!(words, "{at}: {said}"),
        None => words.write_str(said),
    };
}

#[cfg(test)]
#[path = "panics_tests.rs"]
mod tests;
