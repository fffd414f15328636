//! The one test binary. `cargo xtask test` builds what it needs and says where
//! it lies (see `support`).

mod alone;
mod brake;
mod cases;
mod claim_model;
mod claims;
mod cli;
mod control_plane;
mod crash;
mod disk;
mod fail_closed;
mod golden;
mod guests;
mod loops;
mod machine;
mod outgoing;
mod policy_dir;
mod policy_faults;
mod policy_limits;
mod policy_panics;
mod provision;
mod recovery;
mod sandbox;
mod store;
mod support;
mod swap;
mod wire;
