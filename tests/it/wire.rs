//! The wire, over real HTTP, on both databases: every call of agents, operators
//! and everybody, every error and its code, and what a bad client can't do.

mod agents;
mod bounds;
mod described;
mod description;
mod events;
mod fails_closed;
mod field_agent;
mod http2;
mod itself;
mod keep_alive;
mod policies;
mod readers;
mod registration;
mod said;
mod stopping;
mod understood;
mod workspaces;
