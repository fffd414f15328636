//! What people write: a directory of modules and the `policies.toml` beside them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::bind::hex;
use super::files::{self, Aside, Stamp};
use super::settings::WrittenSettings;
use super::{MAX_MODULES, RevisionError};
use crate::facts::ModuleLimits;
use crate::policy::{Limits, clip, escaped};
use crate::written;

/// The file beside the modules that says their order and their settings.
const LISTING: &str = "policies.toml";

/// Bytes of that file.
const LISTING_BYTES: usize = 256 << 10;

/// Files of a policy directory, modules or not.
const MAX_ENTRIES: usize = 10_000;

/// How long a host that starts waits for the directory to be there.
const AT_START: Duration = Duration::from_secs(5);

/// What bounds a module's file.
const MODULE_BYTES: &str = "limits.module_bytes";

/// One module of a revision that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How errors call it: a file, or a digest.
    pub label: String,
    pub bytes: Bytes,
    pub settings: WrittenSettings,
    /// What it may use, where that is not what every module may.
    pub limits: ModuleLimits,
}

/// `policies.toml`: the order in which policies are asked, their settings and limits.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifesto {
    #[serde(default)]
    policy: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    module: String,
    #[serde(default)]
    settings: WrittenSettings,
    #[serde(default)]
    limits: ModuleLimits,
}

/// Reads every `*.wasm` of `dir` in the order of its `policies.toml`; those
/// that it doesn't name follow by name. What is hidden (`._x.wasm`) is none.
///
/// # Errors
/// [`RevisionError::Directory`] with the file and what is wrong with it.
pub async fn read_dir(dir: &Path, limits: &Limits) -> Result<Vec<Wanted>, RevisionError> {
    read_dir_aside(&Aside::default(), dir, limits).await
}

/// Whether this directory answers; a file system that doesn't may do so later.
///
/// # Errors
/// There is none, or it can't be read.
pub async fn answers(dir: &Path) -> std::io::Result<bool> {
    let of = dir.to_owned();
    answers_within(AT_START, move || std::fs::read_dir(of).map(drop)).await
}

async fn answers_within(
    time: Duration,
    asking: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<bool> {
    let asked = Aside::default();
    match tokio::time::timeout(time, asked.run(move |_| asking())).await {
        Ok(Ok(answer)) => answer.map(|()| true),
        Ok(Err(why)) => Err(std::io::Error::other(why)),
        Err(_) => Ok(false),
    }
}

/// [`read_dir`] for one who reads again and again.
pub(super) async fn read_dir_aside(
    aside: &Aside,
    dir: &Path,
    limits: &Limits,
) -> Result<Vec<Wanted>, RevisionError> {
    let (of, limits) = (dir.to_owned(), limits.clone());
    aside.run(move |gone| read_all(&of, &limits, gone)).await.unwrap_or_else(|why| Err(failed(dir, why)))
}

/// Reads one module that somebody names, hidden or not.
///
/// # Errors
/// [`RevisionError::Directory`] with the file and what is wrong with it.
pub async fn read_file(file: &Path, limits: &Limits) -> Result<Bytes, RevisionError> {
    let (of, limit) = (file.to_owned(), limits.module_bytes);
    let read = Aside::default().run(move |gone| files::read(&of, limit, MODULE_BYTES, gone)).await;
    read.and_then(|read| read).map_err(|why| failed(file, why))
}

/// The limits that a `policies.toml` beside this file gives it, if any does.
///
/// # Errors
/// [`RevisionError::Directory`] where that can't be read.
pub async fn limits_beside(file: &Path) -> Result<ModuleLimits, RevisionError> {
    let listing = file.with_file_name(LISTING);
    let at = listing.clone();
    let aside = Aside::default();
    let read = aside.run(move |gone| match files::exists(&at)? {
        true => read_manifesto(&at, gone),
        false => Ok(Manifesto::default()),
    });
    let manifesto = read.await.and_then(|read| read).map_err(|why| failed(&listing, why))?;
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let entry = manifesto.policy.into_iter().find(|entry| Some(entry.module.as_str()) == stem);
    Ok(entry.map(|entry| entry.limits).unwrap_or_default())
}

/// A file, and what it leads to.
type Seen = (PathBuf, Result<Stamp, ErrorKind>);

/// What a directory looks like from outside. Where two looks are equal, nothing
/// was changed in between; a link that was turned, or a directory that is a link
/// itself, is seen as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    files: Result<Vec<Seen>, String>,
}

impl Look {
    pub async fn at(aside: &Aside, dir: &Path) -> Self {
        let of = dir.to_owned();
        let files = aside.run(move |gone| list(&of, gone).map(|listed| stamps(&of, listed))).await;
        Self { files: files.and_then(|listed| listed.map_err(|e| e.to_string())) }
    }
}

fn stamps(dir: &Path, listed: BTreeMap<String, PathBuf>) -> Vec<Seen> {
    let files = listed.into_values().chain([dir.join(LISTING)]);
    files.map(|path| (path.clone(), files::look(&path))).collect()
}

fn read_all(dir: &Path, limits: &Limits, gone: &CancellationToken) -> Result<Vec<Wanted>, RevisionError> {
    let mut files = list(dir, gone)?;
    if files.is_empty() {
        return Err(failed(dir, "it holds no *.wasm file".to_owned()));
    }
    let listing = dir.join(LISTING);
    let manifesto = match files::exists(&listing).map_err(|why| failed(&listing, why))? {
        true => read_manifesto(&listing, gone).map_err(|why| failed(&listing, why))?,
        false => Manifesto::default(),
    };
    let mut ordered = Vec::with_capacity(files.len());
    for entry in manifesto.policy {
        let name = escaped(&entry.module);
        let Some(path) = files.remove(&entry.module) else {
            let twice = ordered.iter().any(|(path, ..): &(PathBuf, _, _)| has_stem(path, &entry.module));
            let why = match twice {
                true => format!("module = \"{name}\" stands there twice; once is right"),
                false => format!("module = \"{name}\": there is no {name}.wasm beside it"),
            };
            return Err(failed(&listing, why));
        };
        ordered.push((path, entry.settings, entry.limits));
    }
    let unnamed = |path| (path, WrittenSettings::new(), ModuleLimits::default());
    ordered.extend(files.into_values().map(unnamed));
    let mut wanted = Vec::with_capacity(ordered.len());
    for (path, settings, own) in ordered {
        let label = shown(&path);
        let refused = |error| RevisionError::Module { module: label.clone(), error };
        let limits = limits.of_module(&own).map_err(refused)?;
        let bytes =
            files::read(&path, limits.module_bytes, MODULE_BYTES, gone).map_err(|why| failed(&path, why))?;
        wanted.push(Wanted { label, bytes, settings, limits: own });
    }
    Ok(wanted)
}

fn has_stem(path: &Path, stem: &str) -> bool {
    path.file_stem().and_then(|found| found.to_str()) == Some(stem)
}

fn read_manifesto(listing: &Path, gone: &CancellationToken) -> Result<Manifesto, String> {
    let bytes = files::read(listing, LISTING_BYTES, "the bound of this file", gone)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| format!("it is no text: {e}"))?;
    written::read(text).map_err(clip)
}

/// The modules of a directory by their stems. Nothing is opened.
fn list(dir: &Path, gone: &CancellationToken) -> Result<BTreeMap<String, PathBuf>, RevisionError> {
    let unread = |e: std::io::Error| failed(dir, e.to_string());
    let mut files = BTreeMap::new();
    for (n, entry) in std::fs::read_dir(dir).map_err(unread)?.enumerate() {
        let path = entry.map_err(unread)?.path();
        if n >= MAX_ENTRIES || gone.is_cancelled() {
            return Err(failed(dir, format!("it holds more than {MAX_ENTRIES} files")));
        }
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
            return Err(failed(&path, "its name is not UTF-8".to_owned()));
        };
        files.insert(stem.to_owned(), path.clone());
        if files.len() > MAX_MODULES {
            return Err(failed(dir, format!("it holds more than {MAX_MODULES} modules (*.wasm)")));
        }
    }
    Ok(files)
}

fn failed(path: &Path, why: String) -> RevisionError {
    RevisionError::Directory { path: shown(path), why }
}

/// A path for people.
fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Equal where a directory holds the same modules with the same settings written beside them.
pub(super) fn contents(wanted: &[Wanted]) -> String {
    let mut hash = Sha256::new();
    for one in wanted {
        hash.update(Sha256::digest(&one.bytes));
        hash.update(serde_json::to_string(&one.settings).unwrap_or_default().as_bytes());
        hash.update(serde_json::to_string(&one.limits).unwrap_or_default().as_bytes());
        hash.update(b"\n");
    }
    hex(hash)
}

#[cfg(test)]
#[path = "dir_tests.rs"]
mod tests;
