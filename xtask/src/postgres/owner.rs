//! Who runs Postgres. It refuses root, so root hands it to another user and
//! sees to it that this user can reach the binaries and the data directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::process;

/// The users that root hands a cluster to, the first that exists.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The user that owns and runs a cluster.
pub enum Owner {
    /// Whoever runs xtask.
    Ourselves,
    /// We are root; this is whom we hand it to.
    StandIn { uid: u32, gid: u32 },
}

impl Owner {
    /// Ourselves, or for root a user that has no privileges.
    pub fn choose() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        for name in STAND_INS {
            if let Some(user) = User::from_name(name).context("cannot read the list of users")? {
                return Ok(Self::StandIn { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
            }
        }
        bail!("Postgres refuses to run as root, and there is no user {} to run it as", STAND_INS.join(" or "))
    }

    /// A new temporary directory that only this user can enter.
    pub fn home(&self) -> Result<TempDir> {
        let ours = std::env::temp_dir();
        let place = match self {
            Self::StandIn { .. } if !open_to_all(&ours) => PathBuf::from("/tmp"),
            _ => ours,
        };
        let home = tempfile::Builder::new()
            .prefix("sprag-pg-")
            .tempdir_in(&place)
            .with_context(|| format!("no temporary directory in {}", place.display()))?;
        self.give(home.path())?;
        Ok(home)
    }

    /// `bin` itself where this user can run what lies in it, else a copy of the
    /// installation below `home` (a clone under /root is closed to all others).
    pub fn reachable(&self, bin: &Path, home: &Path) -> Result<PathBuf> {
        if matches!(self, Self::Ourselves) || open_to_all(&bin.join("postgres")) {
            return Ok(bin.to_owned());
        }
        let installation = bin.parent().context("Postgres's binaries lie in no directory")?;
        let copy = home.join("installation");
        process::run_quiet(Command::new("cp").arg("-R").arg("-P").arg(installation).arg(&copy))?;
        if let Self::StandIn { uid, gid } = self {
            process::run_quiet(Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(&copy))?;
        }
        Ok(copy.join("bin"))
    }

    /// Makes this user the owner of one file or directory.
    pub fn give(&self, path: &Path) -> Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::StandIn { uid, gid } => chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("cannot give away {}", path.display())),
        }
    }

    /// Lets `command` run as this user, at home in `home`, in English.
    pub fn own(&self, command: &mut Command, home: &Path) {
        command.current_dir(home).env("HOME", home).env("LC_ALL", "C");
        if let Self::StandIn { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
    }
}

/// Whether anybody may enter all directories above `path`, and run or enter it.
fn open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| fs::metadata(part).is_ok_and(|it| it.permissions().mode() & 0o001 != 0))
}
