//! The one binary: parse, call `cli`, say what went wrong.

use std::process::ExitCode;

/// Requests allocate on one thread and free on another; this allocator is made for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sprag::cli::run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
