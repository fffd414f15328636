//! What every test stands on: real databases, real modules, a real host.
//!
//! `cargo xtask test` sets the variables read here. Where one is missing the
//! test fails and says so; nothing is skipped.

pub mod cli;
pub mod cluster;
pub mod control_plane;
pub mod db;
pub mod fleet;
pub mod host;
pub mod process;
pub mod sandbox;

use std::path::PathBuf;

/// A variable that `cargo xtask test` sets.
pub fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests with `cargo xtask test`"))
}

/// The directory of the shipped policies' modules.
pub fn policy_dir() -> PathBuf {
    required("SPRAG_TEST_POLICY_DIR").into()
}

/// The `sprag` binary.
pub fn sprag_bin() -> PathBuf {
    required("SPRAG_TEST_BIN").into()
}

/// A superuser's URL of the throw-away Postgres cluster; each test makes its own database in it.
pub fn postgres_url() -> String {
    required("SPRAG_TEST_POSTGRES_URL")
}
