//! What the rules look at: a repository's files, or a made-up one in a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];
/// Extensions of the files that a rule reads.
const READ: [&str; 4] = ["md", "rs", "sql", "toml"];

/// Files by their path from the root, with `/` between the parts.
#[derive(Default)]
pub struct Tree {
    texts: BTreeMap<String, String>,
    /// Every file and folder, also those that no rule reads.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads a directory.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "").with_context(|| format!("cannot read {}", root.display()))?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.read_folder(&entry.path(), &path)?;
            } else if READ.iter().any(|extension| name.ends_with(&format!(".{extension}"))) {
                let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }

    /// A made-up tree.
    #[cfg(test)]
    pub fn made_up(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.texts.insert((*path).to_owned(), (*text).to_owned());
            let mut part = *path;
            while !part.is_empty() {
                tree.paths.insert(part.to_owned());
                part = part.rsplit_once('/').map_or("", |(folder, _)| folder);
            }
        }
        tree
    }

    /// Paths and texts of the files with that extension.
    pub fn texts<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let of_kind = move |path: &str| path.rsplit_once('.').is_some_and(|(_, it)| it == extension);
        self.texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .filter(move |(path, _)| of_kind(path))
    }

    /// Whether there is such a file or folder.
    pub fn holds(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }
}
