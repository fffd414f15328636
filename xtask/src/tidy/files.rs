//! Rules about files beside each other: migrations, manifests, links.

use std::collections::BTreeSet;

use crate::tidy::Finding;
use crate::tidy::tree::Tree;

const MIGRATIONS: [&str; 2] = ["host/migrations/sqlite/", "host/migrations/postgres/"];

pub fn migrations(tree: &Tree) -> Vec<Finding> {
    let names = |folder: &str| -> BTreeSet<String> {
        tree.texts("sql").filter_map(|(path, _)| path.strip_prefix(folder)).map(str::to_owned).collect()
    };
    let [sqlite, postgres] = MIGRATIONS.map(names);
    let missing = |from: &BTreeSet<String>, of: &BTreeSet<String>, folder: &str| -> Vec<Finding> {
        let lacking = of.difference(from);
        lacking
            .map(|name| Finding::new(&format!("{folder}{name}"), 0, "only the other engine has it"))
            .collect()
    };
    [missing(&sqlite, &postgres, MIGRATIONS[0]), missing(&postgres, &sqlite, MIGRATIONS[1])].concat()
}

pub fn versions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let members = tree.texts("toml").filter(|(path, _)| path.ends_with("/Cargo.toml"));
    for (path, text) in members {
        let mut section = "";
        for (index, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                // `[dependencies.serde]`: a section per dependency.
                if section.contains("dependencies.") && !section.starts_with("workspace.") {
                    found.push(Finding::new(path, index, format!("`{line}`")));
                }
            } else if section.ends_with("dependencies") && line.contains('=') && !line.starts_with('#') {
                let inherited = line.replace(' ', "").contains("workspace=true");
                if !inherited {
                    found.push(Finding::new(path, index, format!("`{line}`")));
                }
            }
        }
    }
    found
}

pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.texts("md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut in_block = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            }
            if in_block {
                continue;
            }
            let dead = targets(line).into_iter().filter(|target| !leads_somewhere(tree, folder, target));
            found.extend(
                dead.map(|target| Finding::new(path, index + 1, format!("`{target}` leads nowhere"))),
            );
        }
    }
    found
}

/// What stands in `](…)`, outside of code.
fn targets(line: &str) -> Vec<&str> {
    let prose = line.split('`').step_by(2);
    let ends = prose.flat_map(|text| text.split("](").skip(1));
    ends.filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

fn leads_somewhere(tree: &Tree, folder: &str, target: &str) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            _ => parts.push(part),
        }
    }
    tree.holds(&parts.join("/"))
}
