//! What people write: a directory of modules, the `policies.toml` beside them,
//! and settings whose types the modules declare.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::files::{self, Aside, Stamp};
use super::{MAX_MODULES, RevisionError, hex};
use crate::facts::{Setting, Settings};
use crate::policy::{Limits, Manifest, PolicyError};
use crate::written;

/// The file beside the modules that says their order and their settings.
const LISTING: &str = "policies.toml";

/// Bytes of that file.
const LISTING_BYTES: usize = 256 << 10;

/// Files of a policy directory, modules or not.
const MAX_ENTRIES: usize = 10_000;

/// What bounds a module's file.
const MODULE_BYTES: &str = "limits.module_bytes";

/// A setting as people write it: a duration is a string such as `5m`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum WrittenSetting {
    Flag(bool),
    Number(f64),
    Text(String),
}

/// Settings as people write them, by name.
pub type WrittenSettings = BTreeMap<String, WrittenSetting>;

/// One module of a revision that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How errors call it: a file, or a digest.
    pub label: String,
    pub bytes: Bytes,
    pub settings: WrittenSettings,
}

/// `policies.toml`: the order in which policies are asked, and their settings.
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
}

/// Reads every `*.wasm` of `dir` in the order of its `policies.toml`; those
/// that it doesn't name follow by name. What is hidden (`._x.wasm`) is none.
///
/// # Errors
/// [`RevisionError::Directory`] with the file and what is wrong with it.
pub async fn read_dir(dir: &Path, limits: &Limits) -> Result<Vec<Wanted>, RevisionError> {
    read_dir_aside(&Aside::default(), dir, limits).await
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
        let Some(path) = files.remove(&entry.module) else {
            let why = format!(
                "module {:?} is named twice, or there is no {}.wasm beside it",
                entry.module, entry.module
            );
            return Err(failed(&listing, why));
        };
        ordered.push((path, entry.settings));
    }
    ordered.extend(files.into_values().map(|path| (path, WrittenSettings::new())));
    let mut wanted = Vec::with_capacity(ordered.len());
    for (path, settings) in ordered {
        let bytes =
            files::read(&path, limits.module_bytes, MODULE_BYTES, gone).map_err(|why| failed(&path, why))?;
        wanted.push(Wanted { label: shown(&path), bytes, settings });
    }
    Ok(wanted)
}

fn read_manifesto(listing: &Path, gone: &CancellationToken) -> Result<Manifesto, String> {
    let bytes = files::read(listing, LISTING_BYTES, "the bound of this file", gone)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| format!("it is no text: {e}"))?;
    toml::from_str(text).map_err(|e| written::why_not(text, &e))
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

/// A path for people: what would not show is escaped.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let shows = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match shows(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_debug()),
        }
        shown
    })
}

/// Reads written settings by the types that the module declares.
pub(super) fn read_settings(manifest: &Manifest, written: &WrittenSettings) -> Result<Settings, PolicyError> {
    let mut settings = Settings::new();
    for (name, value) in written {
        let declared = manifest.settings.iter().find(|s| s.name == *name).map(|s| &s.default);
        let setting = match (value, declared) {
            (WrittenSetting::Flag(flag), _) => Setting::Flag(*flag),
            (WrittenSetting::Number(number), _) => Setting::Number(*number),
            (WrittenSetting::Text(text), Some(Setting::Duration(_))) => Setting::Duration(
                duration_ms(text).map_err(|why| PolicyError::BadSetting { name: name.clone(), why })?,
            ),
            (WrittenSetting::Text(text), _) => Setting::Text(text.clone()),
        };
        settings.insert(name.clone(), setting);
    }
    Ok(settings)
}

/// `90s`, `5m`, `1h 30m` … in milliseconds.
fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time; write one such as 30s, 5m or 1h 30m");
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    u64::try_from(duration.as_millis()).map_err(|_| wrong())
}

/// Equal where a directory holds the same modules with the same settings written beside them.
pub(super) fn contents(wanted: &[Wanted]) -> String {
    let mut hash = Sha256::new();
    for one in wanted {
        hash.update(Sha256::digest(&one.bytes));
        hash.update(serde_json::to_string(&one.settings).unwrap_or_default().as_bytes());
        hash.update(b"\n");
    }
    hex(hash)
}
