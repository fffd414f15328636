//! The conformance suite of the store: every test runs on SQLite and on
//! Postgres, and expects the same of both.

mod beats;
mod commit;
mod connect;
mod events;
mod policies;
mod removal;
mod workspaces;

use std::collections::BTreeMap;

use rstest_reuse as _;
