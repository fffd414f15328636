//! Child processes that never outlive us.
//!
//! Every child leads a process group of its own, so that a Ctrl-C reaches the
//! children through us and in order: tests first, then the database under them.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Lines of a log that an error shows.
const LOG_TAIL: usize = 30;

static SIGNALS: AtomicU32 = AtomicU32::new(0);
/// Groups that a signal to us is passed on to.
static FOREGROUND: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Passes SIGINT, SIGTERM and SIGHUP on to whatever runs in the foreground:
/// SIGTERM at first, SIGKILL from the second on.
pub fn forward_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        let signal = match SIGNALS.fetch_add(1, Ordering::SeqCst) {
            0 => Signal::SIGTERM,
            _ => Signal::SIGKILL,
        };
        for group in foreground().iter() {
            let _ = killpg(*group, signal);
        }
    })
    .context("cannot handle signals")
}

/// Whether we were told to stop.
pub fn interrupted() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

fn foreground() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    FOREGROUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `command` to its end, its output on ours.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    if interrupted() {
        bail!("interrupted");
    }
    let mut child = spawn(command.stdin(Stdio::null()))?;
    let group = group_of(&child);
    foreground().push(group);
    // A signal may have come between the check and the registration.
    if interrupted() {
        let _ = killpg(group, Signal::SIGTERM);
    }
    let status = child.wait();
    foreground().retain(|running| *running != group);
    let status = status.with_context(|| format!("lost {}", name(command)))?;
    if interrupted() {
        bail!("interrupted");
    }
    Ok(status)
}

/// Runs `command` and fails unless it exits with 0.
pub fn run_ok(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` quietly; its output only in the error.
pub fn run_quiet(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} failed: {}\n{}", shown(command), output.status, String::from_utf8_lossy(&said).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", name(command)))
}

/// Our exit code after a child's; a child that was killed is a failure.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Starts `command` in a group of its own; on Linux it is told to stop when we die.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.process_group(0);
    stop_with_parent(command);
    command.spawn().with_context(|| format!("cannot run {}", name(command)))
}

/// Sends `signal` to the child's group and waits at most `patience`; then SIGKILL.
pub fn stop(child: &mut Child, signal: Signal, patience: Duration) -> io::Result<ExitStatus> {
    let group = group_of(child);
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let _ = killpg(group, signal);
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()
}

fn group_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn stop_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call; it
    // allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGINT).map_err(Into::into));
    }
}

#[cfg(not(target_os = "linux"))]
fn stop_with_parent(_: &mut Command) {}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    format!("`{} {}`", name(command), words.join(" "))
}

/// That many random bytes of the system's generator, in hexadecimal.
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).context("the system gives no randomness")?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last lines of a child's log, for an error.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}
