//! What every test stands on: real databases, real modules, a real host.
//!
//! `cargo xtask test` sets the variables read here. Where one is missing the
//! test fails and says so; nothing is skipped.

pub mod cli;
pub mod cluster;
pub mod control_plane;
pub mod db;
pub mod field_agent;
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

/// A client for hosts of this machine: no proxy, whatever the environment says.
pub fn client() -> reqwest::Client {
    client_with(|builder| builder)
}

/// [`client`], with more to it.
#[allow(clippy::disallowed_methods, reason = "the one client of tests")]
pub fn client_with(more: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> reqwest::Client {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    more(reqwest::Client::builder().no_proxy().tls_certs_only([])).build().expect("a client")
}

/// `GET`, of a host of this machine.
pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    client().get(url).send().await
}
