//! `cargo xtask tidy`: the house rules, as far as a machine can see them.
//!
//! Each rule reads a [`Tree`] and says where it is broken and how to mend that.
//! They scan text: quick, without a parser, and good enough for code that went
//! through rustfmt. A unit test holds this repository to all of them.

mod files;
mod layers;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::tidy::tree::Tree;

/// One house rule.
struct Rule {
    name: &'static str,
    /// How to mend what it finds.
    mend: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// A place that breaks a rule.
#[derive(Clone)]
struct Finding {
    path: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

const RULES: [Rule; 11] = [
    Rule {
        name: "docs-first",
        mend: "begin the file with `//!`: what lives here, and why it is so",
        check: text::docs_first,
    },
    Rule {
        name: "length",
        mend: "split the file at its seam; 400 lines are plenty, 500 the limit",
        check: text::length,
    },
    Rule { name: "unfinished", mend: "finish it, or take it out and file an issue", check: text::unfinished },
    Rule {
        name: "clock",
        mend: "take `now` as an argument; only host/src/clock.rs reads the system clock",
        check: text::clock,
    },
    Rule {
        name: "sql",
        mend: "move the query to a method of the store; all SQL stands in host/src/store/",
        check: text::sql,
    },
    Rule {
        name: "layers",
        mend: "arrows point one way (cli > http, loops > advance, claims > store, policy > facts > machine): \
               move the code down, or hand the value in",
        check: layers::arrows,
    },
    Rule {
        name: "placed",
        mend: "name the module in LAYERS of xtask/src/tidy/layers.rs, at the lowest layer that fits",
        check: layers::placed,
    },
    Rule {
        name: "sealed",
        mend: "sqlx is for host/src/store/ and wasmtime for host/src/policy/: go through their types",
        check: layers::sealed,
    },
    Rule {
        name: "migrations",
        mend: "give both engines the migration, under the same number and name",
        check: files::migrations,
    },
    Rule {
        name: "versions",
        mend: "write `name.workspace = true`; versions stand in the root Cargo.toml alone",
        check: files::versions,
    },
    Rule {
        name: "links",
        mend: "mend the path, relative to the file that holds the link",
        check: files::links,
    },
];

/// Prints what breaks the rules.
pub fn run(root: &Path) -> Result<ExitCode> {
    let complaints = complaints(&Tree::read(root)?);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() {
        println!("tidy: {} rules hold", RULES.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} complaints", complaints.len());
    Ok(ExitCode::FAILURE)
}

fn complaints(tree: &Tree) -> Vec<String> {
    let found =
        RULES.iter().flat_map(|rule| (rule.check)(tree).into_iter().map(move |finding| (rule, finding)));
    found
        .map(|(rule, Finding { path, line, what })| {
            format!("{path}:{line}: [{}] {what}; {}", rule.name, rule.mend)
        })
        .collect()
}
