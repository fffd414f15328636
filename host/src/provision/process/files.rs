//! Small files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// Replaces a file by this value as JSON; on disk when this returns.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    let mut file = NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, value)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

/// Replaces a file by a secret that nobody else can read, and that is not left
/// beside it, whoever is killed meanwhile: [`forget_secret`] finds all there is.
pub fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let new = unfinished(path);
    remove(&new)?;
    let mut file = private().create_new(true).write(true).open(&new).map_err(|e| named(&new, &e))?;
    file.write_all(secret.as_bytes()).and_then(|()| fs::rename(&new, path)).map_err(|e| named(path, &e))
}

/// Removes a file of [`write_secret`], which may be there.
pub fn forget_secret(path: &Path) -> io::Result<()> {
    remove(&unfinished(path)).and(remove(path))
}

/// Where a secret is until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// Reads a file of [`write`]. None: there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(named(path, &e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| named(path, &io::Error::from(e)))
}

/// Removes a file that may be there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(named(path, &e)),
        _ => Ok(()),
    }
}

/// Opens a file to be locked, and makes it where there is none.
pub fn lock(path: &Path) -> io::Result<File> {
    private().truncate(false).write(true).open(path).map_err(|e| named(path, &e))
}

/// Opens a log to be written on.
pub fn log(path: &Path) -> io::Result<File> {
    private().append(true).open(path).map_err(|e| named(path, &e))
}

/// A file that nobody else can read, made where there is none.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

/// Makes a directory that only we can look into, and those above it; on disk when this returns.
pub fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| named(path, &e))?;
    path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// The names in a directory; none where it does not exist.
pub fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(named(path, &e)),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
