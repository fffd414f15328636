//! The interface as Rust, generated from `wit/v1`.
//!
//! The world `policy` is only the door to the types: a module need not export
//! all of it, so each interface is looked up by itself (`GuestIndices`).
//! Requests borrow from the host's own facts; answers own what they bring.

// The generated code covers every hook; what the host does not call is unused.
#![allow(dead_code)]

wasmtime::component::bindgen!({
    path: "../wit/v1",
    world: "policy",
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use self::exports::sprag::policy::{about, cooldown, guard, recovery};
pub use self::sprag::policy::types;
