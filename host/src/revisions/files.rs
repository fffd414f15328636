//! Files that somebody else writes: only regular ones are read, never more of
//! one than its bound, and nobody waits for a file system that doesn't answer.
//!
//! A call to a file system can't be given up, so each is made on a thread that
//! nobody joins: neither a loop nor the end of the process waits for it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a directory may take to be read; longer: its file system doesn't answer.
const WITHIN: Duration = Duration::from_secs(60);

/// Read at once; in between, the reader looks whether anybody still waits.
const CHUNK: usize = 256 << 10;

/// Work that may block, beside the runtime: one at a time, so that a file system
/// that never answers keeps one thread and no more.
#[derive(Clone, Debug)]
pub struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Aside {
    /// The work's result. Dropping the future tells the work that nobody waits.
    ///
    /// # Errors
    /// Words for a person: it took too long, or there is no thread to be had.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, String> {
        let gone = CancellationToken::new();
        let _told = gone.clone().drop_guard();
        let answered = async {
            let turn = self.0.clone().acquire_owned().await.map_err(|e| e.to_string())?;
            let (answer, answered) = oneshot::channel();
            let work = move || {
                let _turn = turn;
                let _ = answer.send(work(&gone));
            };
            let thread = std::thread::Builder::new().name("sprag-files".to_owned());
            thread.spawn(work).map_err(|e| format!("no thread to read it: {e}"))?;
            answered.await.map_err(|_| "the thread that read it ended without an answer".to_owned())
        };
        match tokio::time::timeout(WITHIN, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the file system has not answered within {} s", WITHIN.as_secs())),
        }
    }
}

/// Whether there is something of this name, be it a link to nowhere.
pub fn exists(path: &Path) -> Result<bool, String> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

/// A regular file's bytes, through symbolic links. `bound` is named in the error.
///
/// # Errors
/// What it is, or how it fails, without its name.
pub fn read(path: &Path, limit: usize, bound: &str, gone: &CancellationToken) -> Result<Bytes, String> {
    // Looked at first: to open a device may do something.
    let found = std::fs::metadata(path).map_err(|e| absent(path, &e))?;
    regular(&found)?;
    small(found.len(), limit, bound)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| e.to_string())?;
    let mut file = File::from(opened);
    let before = file.metadata().map_err(|e| e.to_string())?;
    regular(&before)?;
    small(before.len(), limit, bound)?;
    let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0).min(limit));
    let mut chunk = vec![0; CHUNK];
    loop {
        if gone.is_cancelled() {
            return Err("nobody waits for it any more".to_owned());
        }
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.to_string()),
        };
        small(u64::try_from(bytes.len() + n).unwrap_or(u64::MAX), limit, bound)?;
        bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
    }
    let after = file.metadata().map_err(|e| e.to_string())?;
    if stamp(&before) != stamp(&after) || u64::try_from(bytes.len()) != Ok(after.len()) {
        return Err("it was written to while it was read".to_owned());
    }
    Ok(bytes.into())
}

/// What changes when a file is replaced or written to: device, inode, size, and
/// both times, since a copy may bring its old time of writing along.
pub type Stamp = [i64; 7];

/// The stamp of what a path leads to, or the kind of failure.
pub fn look(path: &Path) -> Result<Stamp, ErrorKind> {
    std::fs::metadata(path).map(|found| stamp(&found)).map_err(|e| e.kind())
}

fn stamp(file: &Metadata) -> Stamp {
    let (device, inode, size) = (file.dev(), file.ino(), file.size());
    [
        device.cast_signed(),
        inode.cast_signed(),
        size.cast_signed(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ]
}

fn absent(path: &Path, error: &std::io::Error) -> String {
    let link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    match error.kind() {
        ErrorKind::NotFound if link => "it is a link to what does not exist".to_owned(),
        _ => error.to_string(),
    }
}

fn regular(found: &Metadata) -> Result<(), String> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "something else",
    };
    Err(format!("it is {what}; only a regular file is read"))
}

fn small(found: u64, limit: usize, bound: &str) -> Result<(), String> {
    if usize::try_from(found).is_ok_and(|found| found <= limit) {
        return Ok(());
    }
    Err(format!("it has {found} bytes; at most {limit} are read ({bound})"))
}
