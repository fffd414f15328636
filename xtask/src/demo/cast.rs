//! Who plays, and what is done to each: round and round, from the beginning
//! again after the last act.

/// One workspace, whose box the provider `local` starts.
pub struct Role {
    pub name: &'static str,
    pub kind: &'static str,
    /// The name of the workspace above it, which comes before it in [`CAST`].
    pub parent: Option<&'static str>,
    pub script: &'static [(Pause, Act)],
}

/// Seconds before an act.
pub type Pause = u64;

/// What is done to an agent.
#[derive(Clone, Copy)]
pub enum Act {
    /// It is told what to say of itself: its control file.
    Say(&'static str),
    /// An operator's command, and its body.
    Command(&'static str, &'static str),
    /// Its process is killed, and all that is in its group.
    Kill,
}

use Act::{Command, Kill, Say};

const WELL: &str = "{}";
const TOOLS: &str = r#"{"mcp_server_present": true, "loaded_mcp_tools": ["fleet_list", "fleet_restart"]}"#;

pub const CAST: [Role; 10] = [
    // Nobody touches it: for whoever watches to play with.
    alone("steady-eddie", &[]),
    alone(
        "flaky-fiona",
        &[
            (6, Say(r#"{"error_rate": 0.72}"#)),
            (7, Say(r#"{"error_rate": 0.3}"#)),
            (5, Say(r#"{"error_rate": 0.02}"#)),
            (12, Say(WELL)),
        ],
    ),
    alone("wedged-walter", &[(10, Say(r#"{"runtime_state": "wedged"}"#)), (8, Say(WELL))]),
    // Its tools are missing at first.
    Role { kind: "platform", ..alone("platform-pia", &[(9, Say(TOOLS)), (40, Say(WELL))]) },
    alone(
        "borderline-bob",
        &[
            (8, Say(r#"{"error_rate": 0.49}"#)),
            (6, Say(r#"{"error_rate": 0.5}"#)),
            (6, Say(r#"{"error_rate": 0.1}"#)),
            (6, Say(r#"{"error_rate": 0.09}"#)),
        ],
    ),
    // Nobody mends these three: the host finds them, and starts them again. What
    // they were told lies in the old box.
    alone("silent-sam", &[(25, Say(r#"{"silent": true}"#))]),
    alone("crashing-carl", &[(32, Say(r#"{"crash": 3}"#))]),
    alone("killed-kate", &[(18, Kill)]),
    alone(
        "restless-rita",
        &[
            (5, Command("restart", "{}")),
            (8, Command("switch-provider", r#"{"provider": "other"}"#)),
            (8, Command("pause", "{}")),
            (6, Command("resume", "{}")),
            (8, Command("switch-provider", r#"{"provider": "local"}"#)),
            (8, Command("hibernate", "{}")),
            (6, Command("wake", "{}")),
        ],
    ),
    // What is paused above it takes it along.
    Role { parent: Some("restless-rita"), ..alone("rita-junior", &[]) },
];

const fn alone(name: &'static str, script: &'static [(Pause, Act)]) -> Role {
    Role { name, kind: "workspace", parent: None, script }
}
