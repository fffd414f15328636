//! From what is wanted to what decides: every module loaded under its limits,
//! with its settings settled; and what makes two revisions the same.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::dir::Wanted;
use super::settings::read_settings;
use super::{MAX_MODULES, RevisionError};
use crate::facts::ModuleLimits;
use crate::policy::{Binding, Module, Sandbox};
use crate::store::BoundModule;

/// Loads a module under its own limits.
pub(super) async fn load(
    sandbox: &Sandbox,
    label: &str,
    bytes: Bytes,
    own: &ModuleLimits,
) -> Result<Arc<Module>, RevisionError> {
    let refused = |error| RevisionError::Module { module: label.to_owned(), error };
    sandbox.load_with(bytes, own).await.map_err(refused)
}

/// Compiles and probes all of `wanted`; keeps nothing yet.
pub(super) async fn bind(
    sandbox: &Sandbox,
    wanted: &[Wanted],
) -> Result<(Vec<Binding>, Vec<BoundModule>), RevisionError> {
    if wanted.is_empty() || wanted.len() > MAX_MODULES {
        return Err(RevisionError::Count(wanted.len()));
    }
    let mut bindings = Vec::with_capacity(wanted.len());
    let mut rows: Vec<BoundModule> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let refused = |error| RevisionError::Module { module: one.label.clone(), error };
        let module = load(sandbox, &one.label, one.bytes.clone(), &one.limits).await?;
        let given = read_settings(module.manifest(), &one.settings).map_err(refused)?;
        let settings = module.settle(&given).map_err(refused)?;
        let manifest = module.manifest();
        if let Some(i) = rows.iter().position(|r| r.name == manifest.name) {
            let other = wanted[i].label.clone();
            return Err(RevisionError::SameName(other, one.label.clone(), manifest.name.clone()));
        }
        rows.push(BoundModule {
            digest: module.digest().to_owned(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            settings: given,
            limits: one.limits,
        });
        bindings.push(Binding::new(module, settings));
    }
    Ok((bindings, rows))
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Equal where the same modules decide in the same order with the same settings
/// and limits.
pub(super) fn fingerprint(modules: &[BoundModule]) -> String {
    let mut hash = Sha256::new();
    for module in modules {
        // Names and settings are lists of strings and numbers: this can't fail.
        let settings = serde_json::to_string(&module.settings).unwrap_or_default();
        hash.update(module.digest.as_bytes());
        hash.update(settings.as_bytes());
        // As before there were any, where there are none: it is the same revision.
        if !module.limits.is_empty() {
            hash.update(serde_json::to_string(&module.limits).unwrap_or_default().as_bytes());
        }
        hash.update(b"\n");
    }
    hex(hash)
}
