//! In a debug build, and in no other, `SPRAG_DIE_AT=NAME` has the host killed
//! at the moment of that name: the tests go through all of them.

use std::fmt;

/// Ends this process here, if it was told to.
#[cfg(debug_assertions)]
pub(crate) fn reached(moment: fmt::Arguments<'_>) {
    use std::sync::OnceLock;
    static DIE_AT: OnceLock<Option<String>> = OnceLock::new();
    let Some(told) = DIE_AT.get_or_init(|| std::env::var("SPRAG_DIE_AT").ok()) else { return };
    if *told == moment.to_string() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reached(_: fmt::Arguments<'_>) {}
