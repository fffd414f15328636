//! The one binary: parse, call `cli`, say what went wrong.

use std::process::ExitCode;

fn main() -> ExitCode {
    sprag::cli::run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
