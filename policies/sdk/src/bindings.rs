//! What wit-bindgen makes of `wit/v1/policy.wit`: a module here for each
//! interface that a policy may export, all on the same types.
//!
//! The types compile natively too; only the exports are WebAssembly's, and
//! those [`export!`](crate::export) expands in the author's crate. The worlds
//! of the interface all export `about`, whose macros would clash in one crate;
//! so each has a world of its own, and what a module exports in the end is the
//! union of those that were expanded: `about` and `recovery` are the world
//! `recovery-policy`, and so on.

// Generated code lifts the request out of raw memory and lowers the answer.
#![allow(unsafe_code, missing_docs, clippy::all)]

pub mod about {
    wit_bindgen::generate!({
        path: "../../wit/v1",
        inline: "package sprag:sdk; world about { export sprag:policy/about@1.0.0; }",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_about",
        default_bindings_module: "sprag_policy::bindings::about",
        // A Rust policy has no constructors to run; the workaround would only
        // dirty a page in every sandbox.
        disable_run_ctors_once_workaround: true,
    });
}

pub mod guard {
    wit_bindgen::generate!({
        path: "../../wit/v1",
        inline: "package sprag:sdk; world guard { export sprag:policy/guard@1.0.0; }",
        with: { "sprag:policy/types@1.0.0": crate::bindings::about::sprag::policy::types },
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_guard",
        default_bindings_module: "sprag_policy::bindings::guard",
        disable_run_ctors_once_workaround: true,
    });
}

pub mod cooldown {
    wit_bindgen::generate!({
        path: "../../wit/v1",
        inline: "package sprag:sdk; world cooldown { export sprag:policy/cooldown@1.0.0; }",
        with: { "sprag:policy/types@1.0.0": crate::bindings::about::sprag::policy::types },
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_cooldown",
        default_bindings_module: "sprag_policy::bindings::cooldown",
        disable_run_ctors_once_workaround: true,
    });
}

pub mod recovery {
    wit_bindgen::generate!({
        path: "../../wit/v1",
        inline: "package sprag:sdk; world recovery { export sprag:policy/recovery@1.0.0; }",
        with: { "sprag:policy/types@1.0.0": crate::bindings::about::sprag::policy::types },
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_recovery",
        default_bindings_module: "sprag_policy::bindings::recovery",
        disable_run_ctors_once_workaround: true,
    });
}
