//! The rules that keep the host's modules in layers.

use crate::tidy::Finding;
use crate::tidy::source::{Source, is_word};
use crate::tidy::tree::Tree;

const HOST: &str = "host/src/";

/// The host's modules, lowest first. A module sees its own layer and those below.
const LAYERS: [&[&str]; 9] = [
    &["machine"],
    &["facts"],
    &["clock", "die_at", "errors", "metrics", "modes", "secret", "seldom", "written"],
    &["outgoing"],
    &["store", "policy", "provision"],
    &["advance", "recovery", "heartbeats", "revisions", "claims", "effects", "replay"],
    &["http", "loops"],
    // The configuration has a section of each module below.
    &["config"],
    &["cli"],
];

/// Modules of one layer that must not see each other.
const STRANGERS: [&str; 3] = ["store", "policy", "provision"];

/// Crates that one module alone may name.
const SEALED: [(&str, &str); 2] = [("sqlx", "host/src/store/"), ("wasmtime", "host/src/policy/")];

pub fn arrows(tree: &Tree) -> Vec<Finding> {
    let modules = modules(tree);
    let mut found = Vec::new();
    for (path, text) in host(tree) {
        let Some(home) = module_of(path) else { continue };
        let source = Source::of(text);
        for (line, named) in named_modules(path, &source.code) {
            if !modules.contains(&named.as_str()) || named == home {
                continue;
            }
            let upwards = layer(&named) > layer(home);
            let strangers = STRANGERS.contains(&home) && STRANGERS.contains(&named.as_str());
            if upwards || strangers {
                found.push(Finding::new(path, line, format!("{home} names {named}")));
            }
        }
    }
    found
}

pub fn placed(tree: &Tree) -> Vec<Finding> {
    let stray = modules(tree).into_iter().filter(|module| layer(module).is_none());
    stray.map(|module| Finding::new(&format!("{HOST}{module}"), 0, "a module that has no layer")).collect()
}

pub fn sealed(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in host(tree) {
        let source = Source::of(text);
        for (name, _) in SEALED.iter().filter(|(_, home)| !path.starts_with(home)) {
            let lines = source.lines().filter(|(_, line)| names_crate(line, name));
            found.extend(lines.map(|(line, _)| Finding::new(path, line, format!("names {name}"))));
        }
    }
    found
}

fn host(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.texts("rs").filter(|(path, _)| path.starts_with(HOST))
}

/// The top-level modules that there are.
fn modules(tree: &Tree) -> Vec<&str> {
    let mut names: Vec<_> =
        host(tree).filter_map(|(path, _)| module_of(path)).filter(|m| *m != "main").collect();
    names.dedup();
    names
}

/// The top-level module that a file belongs to; `lib.rs` only declares them, and
/// `main` stands above all.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(HOST)?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

/// `main` is above every layer, a module that is not placed below none.
fn layer(module: &str) -> Option<usize> {
    match module {
        "main" => Some(LAYERS.len()),
        _ => LAYERS.iter().position(|layer| layer.contains(&module)),
    }
}

fn names_crate(line: &str, name: &str) -> bool {
    words_at(line, name).any(|at| {
        let (before, after) = (line[..at].trim_end(), &line[at + name.len()..]);
        let part_of_a_path = before.ends_with("::");
        let imported = before.ends_with("use") || before.ends_with("extern crate");
        !part_of_a_path && (after.starts_with("::") || imported)
    })
}

/// Lines and names of what follows `crate::` (or as many `super::` as lead there).
fn named_modules(path: &str, code: &str) -> Vec<(usize, String)> {
    let inside = path.strip_prefix(HOST).unwrap_or(path).trim_end_matches(".rs").trim_end_matches("/mod");
    let supers = "super::".repeat(inside.split('/').count());
    let mut found = Vec::new();
    for root in ["crate::", "sprag::", supers.as_str()] {
        for at in words_at(code, root) {
            let deeper = root == supers
                && (code[..at].ends_with("super::") || code[at + root.len()..].starts_with("super::"));
            if deeper {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(heads(&code[at + root.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first names of a path or of a `{…}` of paths.
fn heads(text: &str) -> Vec<String> {
    let word = |text: &str| -> String { text.trim_start().chars().take_while(|c| is_word(*c)).collect() };
    let Some(group) = text.strip_prefix('{') else { return vec![word(text)] };
    let mut depth = 0_usize;
    let mut names = vec![word(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// Where `word` stands in `text` as a word of its own.
fn words_at(text: &str, word: &str) -> impl Iterator<Item = usize> {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let end = at + word.len();
        let before = text[..*at].chars().next_back().is_some_and(is_word);
        let after = !word.ends_with(':') && text[end..].chars().next().is_some_and(is_word);
        !before && !after
    })
}
