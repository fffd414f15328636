//! Sandboxes, questions, and the modules of `tests/guests`, made when they are
//! asked for: a guest is text, so nothing has to be built before a test.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sprag::facts::{Cause, Heartbeat, Question, Settings, Workspace};
use sprag::machine::Status;
use sprag::policy::{Binding, Limits, Module, Revision, Sandbox, SandboxConfig};
use sprag::revisions::load_dir;
use tokio::sync::OnceCell;
use wit_component::StringEncoding;

/// A sandbox with these limits, compiling with the real binary, caching nothing.
pub fn sandbox(limits: Limits) -> Sandbox {
    Sandbox::new(SandboxConfig { limits, compiler: super::sprag_bin(), cache_dir: None }).expect("a sandbox")
}

/// Limits small enough that many sandboxes fit into one test process.
pub fn limits() -> Limits {
    Limits { concurrency: 16, ..Limits::default() }
}

/// The shipped policies as revision 1, compiled once for the whole test binary.
pub async fn shipped() -> Revision {
    static SHIPPED: OnceCell<Revision> = OnceCell::const_new();
    let load = async {
        let loaded = load_dir(&sandbox(limits()), &super::policy_dir()).await.expect("the shipped policies");
        Revision { number: 1, ..loaded }
    };
    SHIPPED.get_or_init(|| load).await.clone()
}

/// The bytes of a guest as a platform team would upload them.
pub fn guest(name: &str) -> Bytes {
    let text = read(&format!("{name}.wat"));
    if text.starts_with("(component") {
        return wat::parse_str(&text).expect(name).into();
    }
    core_module(&text)
}

/// A core module of these fields, with the interface's types embedded.
pub fn core_module(fields: &str) -> Bytes {
    let mut text = String::from("(module\n");
    for line in fields.lines() {
        match line.strip_prefix(";; include ") {
            Some(file) => text.push_str(&read(file)),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text.push(')');
    let mut wasm = wat::parse_str(&text).expect("a guest's text");
    let mut resolve = wit_parser::Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/v1");
    let (package, _) = resolve.push_dir(wit).expect("the interface");
    let world = resolve.select_world(&[package], Some("guard-policy")).expect("the world");
    wit_component::embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
        .expect("the types");
    wasm.into()
}

fn read(file: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/guests")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A loaded guest.
pub async fn load(sandbox: &Sandbox, name: &str) -> Arc<Module> {
    sandbox.load(guest(name)).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A revision that binds these guests in this order, with their default settings.
pub async fn revision(sandbox: &Sandbox, number: i64, guests: &[&str]) -> Revision {
    let mut bindings = Vec::new();
    for name in guests {
        let module = load(sandbox, name).await;
        let settings = module.settle(&Settings::new()).expect("default settings");
        bindings.push(Binding::new(module, settings));
    }
    Revision { number, bindings }
}

/// An ordinary heartbeat of an online workspace: two candidates.
pub fn question() -> Question {
    Question {
        now: 1_700_000_000_000,
        workspace: Workspace {
            id: "ws-1".to_owned(),
            kind: "workspace".to_owned(),
            runtime: "claude-code".to_owned(),
            provider: Some("local".to_owned()),
            instance_id: Some("i-1".to_owned()),
            status: Status::Online,
            status_since: 1_699_999_000_000,
            last_heartbeat_at: Some(1_699_999_990_000),
            active_tasks: 1,
            ancestor_paused: false,
            persistent_volume: false,
            labels: [("team".to_owned(), "blue".to_owned())].into(),
        },
        cause: Cause::Heartbeat(Heartbeat {
            error_rate: 0.25,
            sample_error: "timeout".to_owned(),
            ..Heartbeat::default()
        }),
        candidates: vec![Status::Failed, Status::Degraded],
    }
}

/// The module that fails as the workspace's id says: `policies/sdk/examples/panics.rs`.
pub fn panics() -> Bytes {
    let file = super::policy_dir().with_file_name("guests").join("panics.wasm");
    let bytes = std::fs::read(&file);
    bytes.unwrap_or_else(|e| panic!("{}: {e}; `cargo xtask policies` builds it", file.display())).into()
}
