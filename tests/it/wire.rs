//! The wire, over real HTTP, on both databases: every row of the tables of
//! `docs/http.md`, every error and its code, and what a bad client can't do.

mod agents;
mod bounds;
mod description;
mod events;
mod fails_closed;
mod policies;
mod stopping;
mod workspaces;
