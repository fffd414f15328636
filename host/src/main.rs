//! The one binary: parse, call `cli`, say what went wrong.

use std::process::ExitCode;

/// What a heartbeat allocates in one thread is freed in another (SQLite's rows,
/// say), at which the system's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sprag::cli::run().unwrap_or_else(|error| {
        sprag::cli::complain(&error);
        ExitCode::from(2)
    })
}
