//! One SQLite file, one host: a lock beside the file, which the kernel frees
//! whatever becomes of its holder. Who only reads needs none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sqlx::sqlite::SqliteConnectOptions;

use crate::modes;

/// Why this process does not have the database to itself.
#[derive(Debug, thiserror::Error)]
pub enum SoleError {
    #[error("{file} is in use by {holder}; one SQLite file is for one host: stop that one, or use Postgres")]
    Held { file: String, holder: String },
    #[error("locking {file}")]
    Io {
        file: String,
        #[source]
        error: io::Error,
    },
}

/// The database is this process's alone, until this is dropped.
#[derive(Debug)]
#[must_use = "it holds as long as it is kept"]
pub struct Sole(#[expect(dead_code, reason = "it holds the lock")] Option<File>);

impl Sole {
    /// Takes the SQLite file of this URL; makes it where it is not there yet.
    /// `holder` is what others are told. A Postgres is for any number of hosts.
    ///
    /// # Errors
    /// Somebody else has it, and who; a file that can't be locked.
    pub fn take(url: &str, holder: &str) -> Result<Self, SoleError> {
        // A URL that is none is the store's to refuse.
        let Some(file) = sqlite_file(url) else { return Ok(Self(None)) };
        let failed = |error| SoleError::Io { file: file.display().to_string(), error };
        make(&file).map_err(failed)?;
        // The same file by another path is the same.
        let real = file.canonicalize().map_err(failed)?;
        let lock_file = beside(&real, "-host");
        for name in ["", "-wal", "-shm", "-journal", "-host"] {
            modes::tighten(&beside(&real, name));
        }
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_file);
        let mut lock = open.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
                return Err(SoleError::Held { file: file.display().to_string(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Only words for others: a disk that is full does not keep a host from starting.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(holder.as_bytes()));
        Ok(Self(Some(lock)))
    }
}

fn beside(file: &Path, name: &str) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(name);
    beside.into()
}

fn sqlite_file(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let named = !rest.trim_start_matches("//").is_empty() && !rest.contains("memory");
    let options = SqliteConnectOptions::from_str(url).ok().filter(|_| named)?;
    Some(options.get_filename().to_owned())
}

/// Makes the file, and the folder that it lies in, for nobody but its owner: SQLite
/// gives its log the same mode. What is there is left to [`modes::tighten`].
pub(super) fn make(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
