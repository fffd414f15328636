//! Each rule on a small made-up tree, seen red and green; and this repository
//! held to all of them.

use std::path::Path;

use super::source::Source;
use super::tree::Tree;
use super::{Finding, complaints, files, layers, text};

/// What a rule finds in one file, as `line: what`.
fn finds(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
    let found = check(&Tree::made_up(files));
    found.into_iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.what)).collect()
}

#[test]
fn this_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    let complaints = complaints(&Tree::read(root).expect("the repository can be read"));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn docs_come_first() {
    assert_eq!(
        finds(text::docs_first, &[("a.rs", "//! Why.\n"), ("b.rs", "fn main() {}\n")]),
        ["b.rs:1: no module docs"]
    );
}

#[test]
fn files_are_short() {
    let (short, long) = ("\n".repeat(500), "\n".repeat(501));
    assert_eq!(finds(text::length, &[("a.rs", &short), ("b.rs", &long)]), ["b.rs:501: 501 lines"]);
}

#[test]
fn nothing_is_put_off() {
    let put_off = concat!(
        "// TO",
        "DO later\nlet a = 1;\n#[ig",
        "nore]\n#[ig",
        "nore = \"slow\"]\n//! (to ",
        "come)\n"
    );
    let found = finds(text::unfinished, &[("a.rs", put_off), ("b.rs", "// done\n")]);
    assert_eq!(
        found.iter().map(|f| &f[..7]).collect::<Vec<_>>(),
        ["a.rs:1:", "a.rs:3:", "a.rs:4:", "a.rs:5:"]
    );
}

#[test]
fn one_file_reads_the_clock() {
    let call = "fn f() { std::time::SystemTime::now(); }\n// SystemTime::now in prose\n";
    let found = finds(text::clock, &[("host/src/clock.rs", call), ("host/src/advance.rs", call)]);
    assert_eq!(found, ["host/src/advance.rs:1: reads the system clock"]);
}

#[test]
fn sql_stands_in_the_store() {
    let query = "fn f() { q(\"SELECT id\n  FROM workspaces\"); }\n// SELECT a FROM b\n";
    let prose = "const HELP: &str = \"update the card\"; const MORE: &str = \"select one of these\";\n";
    let raw = "const Q: &str = r#\"\n UPDATE w SET \"a\" = 1\"#;\n";
    let tree = [
        ("host/src/store/a.rs", query),
        ("host/src/http/a.rs", query),
        ("host/src/http/b.rs", prose),
        ("host/src/http/c.rs", raw),
        ("tests/it/a.rs", query),
    ];
    assert_eq!(finds(text::sql, &tree), ["host/src/http/a.rs:1: SQL", "host/src/http/c.rs:1: SQL"]);
}

#[test]
fn arrows_point_down() {
    let tree = [
        ("host/src/machine.rs", "use crate::facts::Facts;\n"),
        ("host/src/facts.rs", "use super::advance;\nuse crate::machine::Status;\n"),
        ("host/src/store/mod.rs", "use crate::{facts::Facts, policy::{Engine, http}};\n"),
        ("host/src/store/rows.rs", "use super::advance;\nfn f() { super::super::http::f() }\n"),
        ("host/src/policy/mod.rs", "// crate::store in prose\nuse crate::facts::{self, store};\n"),
        ("host/src/advance.rs", "use crate::store::Store;\nuse crate::policy::Engine;\n"),
        ("host/src/http/mod.rs", "use crate::advance;\nuse crate::cli::Config;\n"),
        ("host/src/cli/mod.rs", "use crate::http;\n"),
        ("host/src/main.rs", "use sprag::cli;\n"),
    ];
    assert_eq!(
        finds(layers::arrows, &tree),
        [
            "host/src/facts.rs:1: facts names advance",
            "host/src/http/mod.rs:2: http names cli",
            "host/src/machine.rs:1: machine names facts",
            "host/src/store/mod.rs:1: store names policy",
            "host/src/store/rows.rs:2: store names http",
        ]
    );
}

#[test]
fn every_module_has_a_layer() {
    let tree = [
        ("host/src/lib.rs", ""),
        ("host/src/main.rs", ""),
        ("host/src/store/a.rs", ""),
        ("host/src/odd.rs", ""),
    ];
    assert_eq!(finds(layers::placed, &tree), ["host/src/odd:0: a module that has no layer"]);
}

#[test]
fn engines_are_sealed_in() {
    let code =
        "use sqlx::Row;\nfn f() -> wasmtime::Result<()> { self::wasmtime_like() }\nuse {wasmtime::Engine};\n";
    let tree = [
        ("host/src/store/a.rs", "use sqlx::Row;\n"),
        ("host/src/policy/a.rs", "use wasmtime::Engine;\nuse sqlx;\n"),
        ("host/src/http/a.rs", code),
        ("host/src/loops/a.rs", "//! sqlx::Row in prose\nlet wasmtime = my::sqlx::row();\n"),
        ("tests/it/a.rs", code),
    ];
    let mut found = finds(layers::sealed, &tree);
    found.sort();
    assert_eq!(
        found,
        [
            "host/src/http/a.rs:1: names sqlx",
            "host/src/http/a.rs:2: names wasmtime",
            "host/src/http/a.rs:3: names wasmtime",
            "host/src/policy/a.rs:2: names sqlx",
        ]
    );
}

#[test]
fn both_engines_have_each_migration() {
    let tree = [
        ("host/migrations/sqlite/0001_begin.sql", ""),
        ("host/migrations/postgres/0001_begin.sql", ""),
        ("host/migrations/sqlite/0002_more.sql", ""),
        ("host/migrations/postgres/0002_other.sql", ""),
    ];
    assert_eq!(
        finds(files::migrations, &tree),
        [
            "host/migrations/sqlite/0002_other.sql:0: only the other engine has it",
            "host/migrations/postgres/0002_more.sql:0: only the other engine has it",
        ]
    );
}

#[test]
fn versions_stand_in_the_root() {
    let member = "[package]\nname = \"a\"\n[dependencies]\na.workspace = true\nb = \"1\"\n# c = \"1\"\n\
                  d = { workspace = true, features = [\"x\"] }\n[dev-dependencies.e]\nversion = \"1\"\n";
    let tree = [("Cargo.toml", "[workspace.dependencies]\na = \"1\"\n"), ("a/Cargo.toml", member)];
    assert_eq!(
        finds(files::versions, &tree),
        ["a/Cargo.toml:5: `b = \"1\"`", "a/Cargo.toml:8: `[dev-dependencies.e]`"]
    );
}

#[test]
fn links_lead_somewhere() {
    let page = "[a](b.md) [c](../host/src) [d](#here) [e](https://example.org/x) [f](b.md#part)\n\
                `[g](code.md)` [h](gone.md) [i](../../out.md)\n```\n[j](gone.md)\n```\n";
    let tree = [("docs/a.md", page), ("docs/b.md", ""), ("host/src/lib.rs", "")];
    assert_eq!(
        finds(files::links, &tree),
        ["docs/a.md:2: `gone.md` leads nowhere", "docs/a.md:2: `../../out.md` leads nowhere"]
    );
}

#[test]
fn literals_and_comments_are_no_code() {
    let source = Source::of("a /* b /* c */ d */ 'e' '\\'' \"f\\\"g\" r#\"h\"i\"# for<'x> j // k\nl");
    assert_eq!(source.code.split_whitespace().collect::<String>(), "afor<'x>jl");
    assert_eq!(source.strings, [(1, "f\\\"g".to_owned()), (1, "h\"i".to_owned())]);
}
