//! Compiling, where a limit can really end it: in a child process with a
//! deadline, a bounded address space and an empty environment.
//!
//! The child (`sprag compile-policy LIMITS`) takes the uploaded bytes on
//! standard input and answers on standard output with one byte that says what
//! follows: compiled code, or the error as JSON. Anything else it may do, such
//! as running out of memory, ends the child alone.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::classify::clip;
use super::{Limits, PolicyError, engine, wrap};

/// The hidden verb of the `sprag` binary.
pub const VERB: &str = "compile-policy";

const CODE: u8 = b'C';
const ERROR: u8 = b'E';

/// Compiles in a child and returns its code.
///
/// # Errors
/// What the child found wrong with the bytes; [`PolicyError::CompileTimeout`];
/// [`PolicyError::Compile`] where the child itself ended badly.
pub async fn in_child(compiler: &Path, limits: &Limits, bytes: &Bytes) -> Result<Vec<u8>, PolicyError> {
    let arguments = serde_json::to_string(limits).map_err(|e| PolicyError::Host { why: e.to_string() })?;
    let mut child = Command::new(compiler)
        .arg(VERB)
        .arg(arguments)
        .env_clear()
        // Our allocator would reserve a gigabyte before the limit on address space holds.
        .env("MIMALLOC_ARENA_RESERVE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| PolicyError::Host { why: format!("{} can't be run: {e}", compiler.display()) })?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // A child that ended early says why on its other streams.
            let _ = stdin.write_all(bytes).await;
        }
        child.wait_with_output().await
    };
    let timeout = PolicyError::CompileTimeout { limit_ms: limits.compile_ms };
    let output = tokio::time::timeout(Duration::from_millis(limits.compile_ms), talk)
        .await
        .map_err(|_| timeout.clone())?
        .map_err(|e| PolicyError::Host { why: format!("the compiling child: {e}") })?;
    answer(output).unwrap_or(Err(timeout))
}

/// Reads a child's answer. None: it used up its processor time.
fn answer(output: Output) -> Option<Result<Vec<u8>, PolicyError>> {
    use std::os::unix::process::ExitStatusExt;
    if output.status.signal() == Some(rustix::process::Signal::XCPU.as_raw()) {
        return None;
    }
    let mut said = output.stdout;
    if output.status.success() && said.first() == Some(&CODE) {
        said.remove(0);
        return Some(Ok(said));
    }
    if output.status.success()
        && let Some((&ERROR, json)) = said.split_first()
        && let Ok(error) = serde_json::from_slice(json)
    {
        return Some(Err(error));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let why = clip(format!("the compiling child ended with {}: {}", output.status, words.trim()));
    Some(Err(PolicyError::Compile { why }))
}

/// The hidden verb `compile-policy`: a module's bytes on standard input,
/// compiled code (or the error) on standard output.
///
/// # Errors
/// Where this process can't be limited or its streams fail; what is wrong with
/// the module is an answer, not an error.
pub fn compile_child(limits: &Limits) -> anyhow::Result<()> {
    restrict(limits)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(limits.module_bytes).unwrap_or(u64::MAX);
    std::io::stdin().lock().take(most).read_to_end(&mut bytes).context("reading the module")?;
    let (kind, answer) = match compile(limits, &bytes) {
        Ok(code) => (CODE, code),
        Err(error) => (ERROR, serde_json::to_vec(&error)?),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&[kind]).and_then(|()| out.write_all(&answer)).context("writing the answer")?;
    out.flush().context("writing the answer")
}

fn compile(limits: &Limits, bytes: &[u8]) -> Result<Vec<u8>, PolicyError> {
    let component = wrap::component(bytes)?;
    let bad = |e: wasmtime::Error| PolicyError::Compile { why: clip(format!("{e:#}")) };
    wasmtime::Engine::new(&engine::config(limits))
        .and_then(|e| e.precompile_component(&component))
        .map_err(bad)
}

/// Bounds this process's memory and time by the kernel's own means.
fn restrict(limits: &Limits) -> anyhow::Result<()> {
    let at_most = |n: u64| Rlimit { current: Some(n), maximum: Some(n) };
    setrlimit(Resource::As, at_most(limits.compile_memory_bytes)).context("limiting address space")?;
    let seconds = limits.compile_ms.div_ceil(1_000);
    let cpu = Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(1)) };
    setrlimit(Resource::Cpu, cpu).context("limiting processor time")?;
    setrlimit(Resource::Core, at_most(0)).context("switching core files off")
}
