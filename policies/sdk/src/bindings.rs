//! What wit-bindgen makes of `wit/v1/policy.wit` for a module with a guard.
//!
//! The types compile natively too; only the exports are WebAssembly's, and
//! those [`export!`](crate::export) expands in the author's crate. A further
//! hook is a further world here, mapped onto these same types.

// Generated code lifts the request out of raw memory and lowers the answer.
#![allow(unsafe_code, missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit/v1",
    world: "guard-policy",
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "export_guard",
    default_bindings_module: "sprag_policy::bindings",
    // A Rust policy has no constructors to run; the workaround would only
    // dirty a page in every sandbox.
    disable_run_ctors_once_workaround: true,
});
