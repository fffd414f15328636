//! Rules about what a single Rust file says.

use crate::tidy::Finding;
use crate::tidy::source::Source;
use crate::tidy::tree::Tree;

/// Lines of a file, tests included.
const MAX_LINES: usize = 500;

/// Signs of work that was put off. In pieces, so that this file is free of them.
const MARKS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[", "ignore"),
    concat!("(to ", "come)"),
];

pub fn docs_first(tree: &Tree) -> Vec<Finding> {
    let bare = tree.texts("rs").filter(|(_, text)| !text.starts_with("//!"));
    bare.map(|(path, _)| Finding::new(path, 1, "no module docs")).collect()
}

pub fn length(tree: &Tree) -> Vec<Finding> {
    let long =
        tree.texts("rs").map(|(path, text)| (path, text.lines().count())).filter(|(_, n)| *n > MAX_LINES);
    long.map(|(path, lines)| Finding::new(path, lines, format!("{lines} lines"))).collect()
}

pub fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.texts("rs").chain(tree.texts("sql")) {
        for (index, line) in text.lines().enumerate() {
            let marks = MARKS.iter().filter(|mark| line.contains(**mark));
            found.extend(marks.map(|mark| Finding::new(path, index + 1, format!("`{mark}`"))));
        }
    }
    found
}

pub fn clock(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.texts("rs").filter(|(path, _)| *path != "host/src/clock.rs") {
        let source = Source::of(text);
        let lines = source.lines().filter(|(_, line)| line.contains("SystemTime::now"));
        found.extend(lines.map(|(line, _)| Finding::new(path, line, "reads the system clock")));
    }
    found
}

/// How a statement begins, and what must follow for it to be no English sentence.
const STATEMENTS: [(&str, &str); 10] = [
    ("select ", " from "),
    ("select ", "()"),
    ("insert into ", ""),
    ("update ", " set "),
    ("delete from ", ""),
    ("create table", ""),
    ("create index", ""),
    ("alter table", ""),
    ("drop table", ""),
    ("pragma ", ""),
];

pub fn sql(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let outside = |path: &str| path.starts_with("host/src/") && !path.starts_with("host/src/store/");
    for (path, text) in tree.texts("rs").filter(|(path, _)| outside(path)) {
        let statements = Source::of(text).strings.into_iter().filter(|(_, string)| is_sql(string));
        found.extend(statements.map(|(line, _)| Finding::new(path, line, "SQL")));
    }
    found
}

fn is_sql(string: &str) -> bool {
    let words = string.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    STATEMENTS.iter().any(|(start, more)| words.starts_with(start) && words.contains(more))
}
