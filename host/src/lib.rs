//! The host of Sprag: a registry of long-running agents whose every change of
//! status is decided by sandboxed WebAssembly policies.
//!
//! Read [`machine`] first, then [`advance`], the one path that changes a status.

pub mod advance;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod config;
mod die_at;
pub mod effects;
pub mod errors;
pub mod facts;
pub mod heartbeats;
pub mod http;
pub mod loops;
pub mod machine;
pub mod metrics;
mod modes;
pub mod outgoing;
pub mod policy;
pub mod provision;
pub mod recovery;
pub mod replay;
pub mod revisions;
pub mod secret;
mod seldom;
pub mod store;
mod written;
