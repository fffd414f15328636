//! The sagas: commands that touch the world outside the database, and end in
//! commit or rollback whatever happens to the host that carries them out.

pub mod create;
pub mod hibernate;
pub mod pause;
pub mod plan;
pub mod restart;
pub mod resume;
pub mod switch_provider;
pub mod wake;
