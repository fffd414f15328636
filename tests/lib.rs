//! The tests live in `it/`; this crate has no library of its own.
