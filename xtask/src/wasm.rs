//! Building for `wasm32-unknown-unknown`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::process;

pub const TARGET: &str = "wasm32-unknown-unknown";
/// Cargo's profile, and so the folder that the modules land in.
pub const PROFILE: &str = "policy";

/// Bytes of stack of a module. A new sandbox touches little of it, and a small
/// memory image is what makes one cheap.
const STACK: &str = "zstack-size=32768";

/// A `cargo build` for WebAssembly, to which the caller adds what to build.
pub fn build(workspace: &Workspace) -> Result<Command> {
    ensure_target(workspace)?;
    let mut command = workspace.cargo();
    command.args(["build", "--target", TARGET, "--profile", PROFILE]);
    // Flags from the environment would replace those of the target.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let config = fs::read_to_string(workspace.root.join(".cargo/config.toml")).unwrap_or_default();
    if !config.contains(STACK) {
        command.args(["--config", &format!(r#"target.{TARGET}.rustflags=["-C","link-arg=-{STACK}"]"#)]);
    }
    Ok(command)
}

/// Adds the target to the toolchain where rustup has not done so by itself.
fn ensure_target(workspace: &Workspace) -> Result<()> {
    let sysroot =
        process::run_quiet(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&workspace.root))?;
    let std = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    if std.is_dir() {
        return Ok(());
    }
    eprintln!("xtask: adding {TARGET} to the toolchain");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(&workspace.root);
    process::run_quiet(&mut rustup).with_context(|| {
        format!(
            "the toolchain in {} has no standard library for {TARGET} and rustup could not add it; \
             policies can't be built. Install it with `rustup target add {TARGET}`, or your distribution's package",
            sysroot.trim()
        )
    })?;
    if !std.is_dir() {
        bail!("rustup added {TARGET}, but not to {}: is another rustc first on PATH?", sysroot.trim());
    }
    Ok(())
}

/// Makes `to` hold exactly the given files, each `(name, from)`; no reader ever
/// sees half a file. Files that did not change keep their time, so that a host
/// that watches the folder is not woken for nothing.
pub fn publish(to: &Path, files: &[(String, std::path::PathBuf)]) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for (name, from) in files {
        let bytes = fs::read(from).with_context(|| format!("{} was not built", from.display()))?;
        let place = to.join(name);
        if fs::read(&place).is_ok_and(|old| old == bytes) {
            continue;
        }
        let draft = to.join(format!(".{name}.{}", std::process::id()));
        fs::write(&draft, bytes)
            .and_then(|()| fs::rename(&draft, &place))
            .with_context(|| format!("cannot write {}", place.display()))?;
    }
    let keep: BTreeSet<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !keep.contains(entry.file_name().to_string_lossy().as_ref()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}
