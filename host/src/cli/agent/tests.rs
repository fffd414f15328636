//! What the agent says, by its files; the agent against a host is in `tests/it/provision`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::control::Control;
use super::report::Report;

fn control(text: &str) -> anyhow::Result<Control> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    Control::read(file.path())
}

#[test]
fn no_control_file_means_that_all_is_well() {
    assert_eq!(Control::read(Path::new("/nowhere.json")).expect("no file"), Control::default());
    assert_eq!(control("{}").expect("an empty one"), Control::default());
    let body = Report::of(&Control::default(), "workspace", None).heartbeat(
        &Control::default(),
        "w",
        Duration::from_millis(2_900),
    );
    let expected = json!({
        "workspace_id": "w", "error_rate": 0.0, "sample_error": "", "active_tasks": 0, "current_task": "",
        "uptime_seconds": 2, "runtime_state": "", "mcp_server_present": null, "model_present": true,
        "loaded_mcp_tools": null,
    });
    assert_eq!(body, expected);
}

#[test]
fn a_misspelt_key_is_an_error() {
    assert!(control(r#"{"errorrate": 1}"#).is_err());
    assert!(control("{").is_err());
}

#[test]
fn the_control_file_is_obeyed() {
    let text = r#"{"error_rate": 0.7, "runtime_state": "wedged", "active_tasks": 3, "current_task": "t",
        "model_present": false, "loaded_mcp_tools": 2, "silent": true, "crash": 7}"#;
    let control = control(text).expect("a control file");
    assert_eq!((control.silent, control.crash), (true, Some(7)));
    let body = Report::of(&control, "workspace", None).heartbeat(&control, "w", Duration::ZERO);
    let said = |key: &str| body[key].clone();
    assert_eq!(said("error_rate"), 0.7);
    assert_eq!(said("runtime_state"), "wedged");
    assert_eq!(said("active_tasks"), 3);
    assert_eq!(said("model_present"), false);
    assert_eq!(said("loaded_mcp_tools"), 2);
    assert_eq!(said("sample_error"), "a tool call failed");
}

#[test]
fn a_platform_has_the_tools_that_were_delivered() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("plugins.json");
    let tools = |control: &Control, kind: &str| {
        let said = Report::of(control, kind, Some(&file)).readiness();
        (said["mcp_server_present"].clone(), said["loaded_mcp_tools"].clone())
    };
    let well = Control::default();
    assert_eq!(tools(&well, "platform"), (json!(false), json!([])), "no file");
    assert_eq!(tools(&well, "workspace"), (Value::Null, Value::Null));
    std::fs::write(&file, r#"[{"name":"fleet-tools","version":"1"},{"name":"more"}]"#).expect("writing");
    assert_eq!(tools(&well, "platform"), (json!(true), json!(["fleet-tools", "more"])));
    let lost = Control { loaded_mcp_tools: Some(json!([])), ..Control::default() };
    assert_eq!(tools(&lost, "platform"), (json!(true), json!([])), "declared, not loaded");
}
