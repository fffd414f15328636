//! Compiled code that this host keeps for itself.
//!
//! It is native code and is run as such, so only this host may have written
//! it: the directory is its own with mode 0700, and each file carries a hash of
//! its name and code. Whatever does not fit is a miss, never an error.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

/// Files that are kept; the oldest go first.
const FILES: usize = 256;

const HASH_BYTES: usize = 32;

/// A directory of compiled modules.
pub struct Cache {
    dir: PathBuf,
    /// Stands for wasmtime's version and everything in the configuration that
    /// shapes compiled code.
    engine: u64,
}

impl Cache {
    /// Opens the directory, made where it is missing. None, with a log line,
    /// where it can't be made or others could write to it.
    pub fn open(dir: &Path, engine: &Engine) -> Option<Self> {
        if let Err(why) = own(dir) {
            tracing::warn!(dir = %dir.display(), why, "compiled policies are not kept");
            return None;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Some(Self { dir: dir.to_owned(), engine: hasher.finish() })
    }

    fn key(&self, digest: &str) -> String {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        format!("{name}-{:016x}.code", self.engine)
    }

    /// The code that was kept for a module. None: a miss, whatever the reason.
    pub fn get(&self, digest: &str) -> Option<Vec<u8>> {
        let key = self.key(digest);
        let mut file = std::fs::read(self.dir.join(&key)).ok()?;
        let (hash, code) = file.split_at_checked(HASH_BYTES)?;
        if hash != seal(&key, code) {
            tracing::warn!(file = key, "a compiled policy was damaged; it is compiled again");
            return None;
        }
        file.drain(..HASH_BYTES);
        Some(file)
    }

    /// Keeps a module's code. A failure costs the next start some time, so it
    /// is only logged.
    pub fn put(&self, digest: &str, code: &[u8]) {
        if let Err(error) = self.write(&self.key(digest), code).and_then(|()| self.prune()) {
            tracing::warn!(dir = %self.dir.display(), %error, "a compiled policy could not be kept");
        }
    }

    fn write(&self, key: &str, code: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(&seal(key, code))?;
        file.write_all(code)?;
        file.persist(self.dir.join(key))?;
        Ok(())
    }

    fn prune(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            files.push((entry.metadata()?.mtime(), entry.path()));
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES);
        files.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

fn seal(key: &str, code: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::new().chain_update(key).chain_update(code).finalize().into()
}

/// Makes the directory, and checks that it is this user's alone.
fn own(dir: &Path) -> Result<(), String> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| e.to_string())?;
    let found = std::fs::symlink_metadata(dir).map_err(|e| e.to_string())?;
    if !found.is_dir() {
        return Err("it is no directory".to_owned());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to somebody else".to_owned());
    }
    match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err("others may enter it; it must have mode 0700".to_owned()),
    }
}
