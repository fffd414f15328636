//! Files that everybody can read and that are their owner's business: what an older
//! version or an ordinary umask made so is mended at start. What a group may read
//! (`0640`) is somebody's decision, and stays.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// What everybody may do.
const OTHERS: u32 = 0o007;

/// What the owner may do.
const OWNER: u32 = 0o700;

/// Makes a file or directory that may be there its owner's alone, where everybody
/// could use it. Not through a link: what that names may be anything.
///
/// Where it can't be done, the log says what is to be done.
pub fn tighten(path: &Path) {
    match tightened(path) {
        Ok(None) => {}
        Ok(Some((before, now))) => {
            tracing::info!(
                path = %path.display(),
                before = format!("{before:04o}"),
                now = format!("{now:04o}"),
                "everybody could read it; now its owner alone can"
            );
        }
        Err(error) => tracing::warn!(
            path = %path.display(),
            error = &error as &dyn std::error::Error,
            "everybody can read it, and that can't be changed from here: chmod o= it"
        ),
    }
}

fn tightened(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let before = found.mode() & 0o777;
    if found.is_symlink() || before & OTHERS == 0 {
        return Ok(None);
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to user {}", found.uid())));
    }
    let now = before & OWNER;
    fs::set_permissions(path, Permissions::from_mode(now))?;
    Ok(Some((before, now)))
}
