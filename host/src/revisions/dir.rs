//! What people write: a directory of modules, the `policies.toml` beside them,
//! and settings whose types the modules declare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{RevisionError, hex};
use crate::facts::{Setting, Settings};
use crate::policy::{Manifest, PolicyError};
use crate::written;

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
/// that it doesn't name follow by name.
///
/// # Errors
/// [`RevisionError::Directory`] with the file and what is wrong with it.
pub async fn read_dir(dir: &Path) -> Result<Vec<Wanted>, RevisionError> {
    let failed =
        |path: &Path, why: String| RevisionError::Directory { path: path.display().to_string(), why };
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut entries = tokio::fs::read_dir(dir).await.map_err(|e| failed(dir, e.to_string()))?;
    while let Some(entry) = entries.next_entry().await.map_err(|e| failed(dir, e.to_string()))? {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "wasm")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            files.insert(stem.to_owned(), path);
        }
    }
    let listing = dir.join("policies.toml");
    let manifesto: Manifesto = match tokio::fs::read_to_string(&listing).await {
        Ok(text) => toml::from_str(&text).map_err(|e| failed(&listing, written::why_not(&text, &e)))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Manifesto::default(),
        Err(e) => return Err(failed(&listing, e.to_string())),
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
        let bytes = tokio::fs::read(&path).await.map_err(|e| failed(&path, e.to_string()))?;
        wanted.push(Wanted { label: path.display().to_string(), bytes: bytes.into(), settings });
    }
    if wanted.is_empty() {
        return Err(failed(dir, "holds no *.wasm file".to_owned()));
    }
    Ok(wanted)
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
