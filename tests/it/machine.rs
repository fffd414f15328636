//! The table is closed, says the same in each of its forms, and is shown to
//! people as it is.

use std::str::FromStr as _;

use sprag::cli::machine::{json, mermaid, table};
use sprag::machine::{CauseKind, EDGES, Runtimes, Status, Target};

#[test]
fn the_printed_table() {
    insta::assert_snapshot!(table());
}

#[test]
fn the_diagram_in_the_architecture_page_is_the_table() {
    let page = include_str!("../../ARCHITECTURE.md");
    let drawn = page.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(drawn, Some(mermaid().as_str()), "paste the output of `sprag machine --format mermaid`");
}

#[test]
fn programs_get_every_row() {
    let printed = json();
    assert_eq!(printed["edges"].as_array().map(Vec::len), Some(EDGES.len()));
    assert_eq!(printed["statuses"].as_array().map(Vec::len), Some(Status::ALL.len()));
    assert_eq!(printed["edges"][5]["only"], "runtime not external");
}

#[test]
fn nothing_leads_out_of_removed() {
    for cause in CauseKind::ALL {
        for runtime in ["claude-code", "external"] {
            assert!(Status::Removed.edge(cause, runtime).is_err(), "removed has an edge on {cause}");
        }
    }
}

#[test]
fn a_heartbeat_or_a_registration_brings_back_neither_a_paused_nor_a_hibernated_row() {
    for status in [Status::Paused, Status::Hibernated, Status::Removed] {
        for cause in [CauseKind::Heartbeat, CauseKind::Registered] {
            assert!(status.edge(cause, "hermes").is_err(), "{status} has an edge on {cause}");
        }
    }
}

#[test]
fn no_status_and_cause_have_two_rows() {
    for status in Status::ALL {
        for cause in CauseKind::ALL {
            for runtime in [Runtimes::OnlyExternal, Runtimes::NotExternal] {
                let rows = EDGES.iter().filter(|row| {
                    row.cause == cause
                        && row.from.contains(&status)
                        && (row.runtimes == Runtimes::All || row.runtimes == runtime)
                });
                assert!(rows.count() <= 1, "{status} on {cause} is ambiguous for {runtime:?}");
            }
        }
    }
}

#[test]
fn only_a_command_begins_a_status_anew_and_only_a_target_can_be_moved_to() {
    for row in EDGES {
        let runtime = if row.runtimes == Runtimes::OnlyExternal { "external" } else { "hermes" };
        for from in row.from {
            let edge = from.edge(row.cause, runtime).expect("a row is an edge");
            let anew = *from == Status::Provisioning
                && [CauseKind::Restart, CauseKind::SwitchProvider].contains(&row.cause);
            assert_eq!(edge.candidates().contains(from), anew, "{from} on {}", row.cause);
            for to in Status::ALL {
                let listed = match row.to {
                    Target::FirstOf(targets) => targets.contains(&to) && to != *from,
                    Target::Anew(target) => to == target,
                    Target::PriorOrFailed => false,
                };
                assert_eq!(edge.to(to).is_ok(), listed, "{from} → {to} on {}", row.cause);
            }
        }
    }
}

/// A boot that is stuck is what an operator restarts; and one whose box is not running has failed.
#[test]
fn a_boot_can_be_begun_anew_and_can_be_found_over() {
    for cause in [CauseKind::Restart, CauseKind::SwitchProvider] {
        let edge = Status::Provisioning.edge(cause, "hermes").expect("an edge");
        let anew = edge.to(Status::Provisioning).expect("a move");
        assert_eq!((anew.from(), anew.to()), (Status::Provisioning, Status::Provisioning));
    }
    let probed = Status::Provisioning.edge(CauseKind::Probed, "hermes").map(|e| e.candidates());
    assert_eq!(probed, Ok(vec![Status::Failed]));
}

#[test]
fn silence_of_an_external_runtime_waits_for_its_agent() {
    let to = |runtime| Status::Online.edge(CauseKind::Silence, runtime).map(|e| e.candidates());
    assert_eq!(to("external"), Ok(vec![Status::AwaitingAgent]));
    assert_eq!(to("claude-code"), Ok(vec![Status::Offline]));
}

#[test]
fn each_name_has_one_form() {
    for status in Status::ALL {
        assert_eq!(Status::from_str(status.as_str()), Ok(status));
        assert_eq!(serde_json::to_value(status).ok(), Some(status.as_str().into()));
        assert!(status.event_type().ends_with(&status.as_str().to_uppercase()));
    }
    for cause in CauseKind::ALL {
        assert_eq!(CauseKind::from_str(cause.as_str()), Ok(cause));
        assert_eq!(serde_json::to_value(cause).ok(), Some(cause.as_str().into()));
    }
    let unknown = Status::from_str("onlin").map_err(|e| e.to_string());
    assert!(unknown.is_err_and(|e| e.contains("\"onlin\"") && e.contains("awaiting_agent")));
}
